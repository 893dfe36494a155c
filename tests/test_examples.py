"""Every script and notebook under examples/ runs, in a short form."""

import ast
import json
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch

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


@pytest.fixture(scope="module", autouse=True)
def embedded():
    """The embedded model is loaded once, not by each example, and steered by ten pairs."""
    kit, steer = import_module("tailcast.workers.kit"), import_module("tailcast.pipeline.steer")
    load_pairs, threads = steer.load_pairs, torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kit, "load_target", cache(kit.load_target))
        patch.setattr(steer, "load_pairs", lambda source: load_pairs(source)[:10])
        patch.syspath_prepend(ROOT)
        torch.set_num_threads(1)  # two are slower than one while other work runs
        yield
        torch.set_num_threads(threads)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_runs_and_says_something(path, monkeypatch, capsys):
    samples = next((n for name, n in SAMPLES.items() if path.stem.startswith(name)), "12")
    monkeypatch.setenv("EXAMPLE_SAMPLES", samples)
    if path.suffix == ".py":
        assert ast.get_docstring(ast.parse(source(path))), "says no idea that it shows"
    exec(compile(source(path), path.name, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()


def test_examples_are_listed_and_numbered_without_a_gap():
    page = (ROOT.parent / "docs/examples.md").read_text("utf-8")
    assert all(f"`{path.name}`" in page for path in SCRIPTS)
    numbers = [int(path.name[:2]) for path in SCRIPTS if path.suffix == ".py"]
    assert numbers == list(range(1, len(numbers) + 1))


def test_notebooks_hold_no_output_of_a_machine():
    for path in ROOT.glob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        assert not any(one.get("outputs") for one in cells)


def test_figures_are_drawn_anew_with_the_numbers_that_the_page_quotes(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(ROOT.parent / "scripts")
    import_module("draw_figures").draw_all(tmp_path)
    said = capsys.readouterr().out
    for quoted in (
        "1 try: 0.0028 of",
        "2.9e+06 draws plain",
        "exact 0.0024",
        "steered alone 0.00039",
    ):
        assert quoted in said
    kept = {path.name for path in (ROOT.parent / "docs/figures").glob("*.svg")}
    assert {path.name for path in tmp_path.iterdir()} == kept - {"terminal.svg", "crossing.svg"}
