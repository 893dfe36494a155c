"""Every script and notebook under examples/ runs, in a short form."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "examples"
SCRIPTS = sorted([*ROOT.glob("[0-9]*.py"), *ROOT.glob("*.ipynb")])
SAMPLES = {"03": "500", "04": "500", "05": "500", "08": "200", "decisions": "200"}


def source(path: Path) -> str:
    """A script's text, or a notebook's cells one after the other; each cell must be code."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        return text
    cells = ["".join(one["source"]) for one in json.loads(text)["cells"] if "outputs" in one]
    return "\n\n".join(cells)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_runs_and_says_something(path, tmp_path):
    samples = next((n for name, n in SAMPLES.items() if path.stem.startswith(name)), "12")
    if path.suffix == ".py":
        assert ast.get_docstring(ast.parse(source(path))), "says no idea that it shows"
    done = subprocess.run(
        [sys.executable, "-c", source(path)],
        env={**os.environ, "EXAMPLE_SAMPLES": samples, "PYTHONPATH": _path()},
        cwd=tmp_path, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def _path() -> str:
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_examples_are_listed_and_numbered_without_a_gap():
    page = (ROOT.parent / "docs/examples.md").read_text("utf-8")
    assert all(f"`{path.name}`" in page for path in SCRIPTS)
    numbers = [int(path.name[:2]) for path in SCRIPTS if path.suffix == ".py"]
    assert numbers == list(range(1, len(numbers) + 1))


def test_notebooks_hold_no_output_of_a_machine():
    for path in ROOT.glob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        assert not any(one.get("outputs") for one in cells)
