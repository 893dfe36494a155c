"""README and docs do what they say: every command runs, or is parsed and says why not more."""

import itertools
import json
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

from documents import blocks, commands
from tailcast.cli.main import app, main
from tailcast.config import make_config
from tailcast.steering import fit_mean_difference, save_steering
from tailcast.types import SteeringVector
from tiny import call, save_model

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted({ROOT / "README.md", *(ROOT / "docs").glob("*.md")} - {ROOT / "docs/cli.md"})

PARSED = {  # what a command needs that no test has; it is parsed then
    "a model or a data set from the hub": r"--judge (strongreject|harmbench)|strongreject \.\.\.",
    "a judge model": r"--judge-model \./judge",
    "a model that is served": r"-server http|-server inspect|paraphrase .*--server",
    "a task of Inspect": r"--task|inspect:",
    "vLLM or a server": r"--(target-)?engine",
    "a GPU": r"--device cuda",
    "Ray": r"--ray",
    "a model that refuses": r"--harmful",
    "a model that does as it is told": r"--from system-prompts|^tailcast paraphrase",
}
NOT_OURS = ("inspect view ", "inspect log ", "--queries ")  # Inspect's own, and flags by themselves
SMALL = {"--samples": 40, "--monte-carlo": 40, "--max-new-tokens": 4, "--splits": 5, "--n": 10}
STANDS_FOR = {
    "QUERY": "q0", "ID": "q0", "COLUMN": "weight", "FILE": "sheet.csv", "GIB": "1", "N": "10",
    "pattern:REGEX": "pattern:two", "KIND": "risks", "NAME": "category",
    "paraphrases": "wordings.jsonl", "10,15,20": "0,1",
}  # fmt: skip
RUN = re.compile(r"DIR|RUN2?|NOW|BEFORE|run[12]?|run-[ab]|now|baseline|greedy|tailcast-demo")
WORDS = ["red", "blue", "one", "tell", "me", "yes"]
SAVED = re.compile(r"as `([\w.]+)`:\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)
QUERIES = [" ".join(words) for words in itertools.product(WORDS, repeat=2)]
CONFIG = """
model = "MODEL"
queries = "queries.jsonl"
max_new_tokens = 4
samples = 40
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with all that the pages name, made by the command line itself."""
    root = tmp_path_factory.mktemp("documents")
    save_model(root / "MODEL")
    settings = (root / "MODEL/config.json").read_text()
    (root / "MODEL/config.json").write_text(settings.replace(": 64", ": 512"))
    rows = [{"id": f"q{k}", "prompt": one, "weight": 1 + k} for k, one in enumerate(QUERIES)]
    others = [{**row, "id": "other-" + row["id"]} for row in rows[:12]]
    pairs = [{"prompt": one, "unsafe": "two two", "safe": "no no"} for one in QUERIES[:12]]
    for name, lines in {
        "queries": rows[:6], "many": rows, "others": others, "part1": rows[:6],
        "part2": rows[6:12], "pairs": pairs,
        "harmful": rows[:9], "harmless": rows[9:18],
        "wordings": [{**row, "base": row["prompt"].split()[0]} for row in rows[:18]],
    }.items():  # fmt: skip
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    (root / "CONFIG.toml").write_text(CONFIG)
    (root / "strongreject.csv").write_text("category,source,forbidden_prompt\none,us,red one\n")
    (root / "harmbench_behaviors_text_all.csv").write_text(
        "Behavior,ContextString,BehaviorID,SemanticCategory,FunctionalCategory\n"
        "red one,,first,one,standard\n"
    )
    (root / "my-folder").mkdir()
    (root / "my-folder/behaviour.toml").write_text('queries = ["red one"]\n')
    vector = np.random.default_rng(0).normal(size=16).astype(np.float32)
    save_steering([SteeringVector("add", 1, vector)], root / "v.safetensors")
    for queries in ("many", "others"):
        main([
            "estimate", "--model", str(root / "MODEL"), "--queries", str(root / f"{queries}.jsonl"),
            "--judge", "pattern:two.*two", "--max-new-tokens", "4", "--samples", "60", "--quiet",
            "--no-settle", "--out", str(root / f"run-of-{queries}"),
        ])  # fmt: skip
    return root


@pytest.fixture
def folder(prepared, tmp_path, monkeypatch):
    """A copy of it to work in; the embedded model is the tiny one, and a person presses keys."""
    place = shutil.copytree(prepared, tmp_path / "folder")
    keys = itertools.cycle("yn")
    monkeypatch.chdir(place)
    monkeypatch.setenv("TAILCAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tailcast.pipeline.plan._TRIAL", 0.05)
    monkeypatch.setattr(  # no layer is good, for a model to which most words are one
        "tailcast.steering.fitting.choose_layer",
        lambda target, pairs, **_: fit_mean_difference(target, pairs)[1],
    )
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("tailcast.cli.labeller.read_key", lambda: next(keys))
    monkeypatch.setattr(
        "tailcast.models.embedded.embedded_settings",
        lambda settings: settings.model_copy(update={"model": str(place / "MODEL")}),
    )
    return place


def filled(words, place, capsys):
    """The words with small sizes, and with something in place of each placeholder."""
    verb = words[0]
    words = ["MODEL" if before == "--model" else word for before, word in itertools.pairwise(words)]
    words = [verb, *(STANDS_FOR.get(word, word) for word in words)]
    for number, (before, word) in enumerate(itertools.pairwise(words), 1):
        if before in SMALL:
            words[number] = str(min(SMALL[before], int(word)))
        if verb not in ("estimate", "run", "demo", "steer") and RUN.fullmatch(word):
            pooled = "forecast" in words and word.endswith("2")
            if not (place / word).exists():  # the page has made none
                shutil.copytree(place / ("run-of-others" if pooled else "run-of-many"), word)
    if verb == "estimate":
        asked = {"--model": "MODEL", "--queries": "queries.jsonl", "--out": "OUT"}
        shutil.rmtree(place / "OUT", ignore_errors=True)
        asked |= {"--max-new-tokens": "4", "--samples": "40"}
        if "--behaviour" in words:
            del asked["--queries"]
        at = words.index("...") if "..." in words else len(words)
        words[at : at + 1] = [
            x for pair in asked.items() if pair[0] not in words and pair[1] for x in pair
        ]
    if verb == "explain" and "q0" in words:
        first = (place / words[1] / "estimates.jsonl").read_text().splitlines()[0]
        words[words.index("q0")] = json.loads(first)["query_id"]
    if verb == "demo":
        words += ["--samples", "10"]
    if verb == "label" and "--query" in words:  # a second sample: the page says to move the first
        shutil.rmtree(place / words[1] / "calibration", ignore_errors=True)
    if "sheet.csv" in words and "calibrate-judge" in words:
        label_all(words[1], place, capsys)
    return [word for word in words if word != "..."]


def label_all(name, place, capsys):
    """A labelled sheet of a run."""
    code, _, err = call(capsys, "label", name, "--out", "sheet.csv")
    assert code == 0, err
    head, *lines = (place / "sheet.csv").read_text().splitlines()
    assert "label" in head.split(","), head
    ids = [line.split(",")[head.split(",").index("id")] for line in lines]
    rows = [f"{id},{word}" for id, word in zip(ids, itertools.cycle(["yes", "no"]))]
    (place / "sheet.csv").write_text("\n".join(["id,label", *rows]))


def execute(command, place, capsys):
    """Run a command, or parse it where PARSED says so; anything else fails."""
    program, *words = command.words
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "pip":
        named = re.findall(r"tailcast\[(\w+)\]", command.line)
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert set(named) <= set(extras["optional-dependencies"])
    elif program == "python":
        compile((ROOT / words[0]).read_text("utf-8"), words[0], "exec")
    elif command.inline and all(re.fullmatch("[a-z-]+", word) for word in words):
        app.parse_args([*words, "--help"], exit_on_error=False, print_error=False)  # a name
    else:
        reason = next((why for why, what in PARSED.items() if re.search(what, command.line)), None)
        filling = filled(words, place, capsys)
        if reason:
            app.parse_args(filling, exit_on_error=False, print_error=False)
        else:
            code, _, err = call(capsys, *filling)
            assert code == 0 or (code == 1 and "--fail-if" in command.line), (filling, err)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_is_executed(page, folder, capsys):
    for name, body in SAVED.findall(page.read_text("utf-8")):
        (folder / name).write_text(body)
    for command in commands(page.read_text("utf-8")):
        try:
            execute(command, folder, capsys)
        except Exception as error:
            raise AssertionError(f"{page.name}: {command.line}") from error


def check_block(block):
    """Run a block of Python, read one of TOML or JSON; others hold commands, or text."""
    if block.language == "python":
        code = re.sub(r"\b(samples|max_new_tokens)=\d+", r"\1=8", block.body)
        code = code.replace('"DIR"', '"MODEL"')
        exec(compile(code, "<page>", "exec"), {"__name__": "page"})
    elif block.language == "toml":
        values = tomllib.loads(block.body.replace('"DIR"', '"MODEL"'))
        if "model" in values:
            make_config(values)
    elif block.language in ("json", "jsonl"):
        assert all(json.loads(line) for line in block.body.splitlines())
    else:
        assert block.language in ("", "bash", "text"), f"nobody checks {block.language}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_is_what_it_says(page, folder):
    (folder / "run").symlink_to(folder / "run-of-many")
    for block in blocks(page.read_text("utf-8")):
        check_block(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_line_of_a_block_of_commands_is_passed_over(page):
    text = page.read_text("utf-8")
    known = {command.line for command in commands(text)}
    for block in blocks(text):
        lines = [line for line in re.sub(r" *\\\n\s*", " ", block.body).splitlines() if line]
        if block.language == "bash" or any(line in known for line in lines):
            others = [line for line in lines if line not in known]
            assert all(line.startswith(NOT_OURS) for line in others), others


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_to_files_lead_somewhere(page):
    text = page.read_text("utf-8")
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("https://") or (page.parent / link).exists(), link
    for named in re.findall(r"`((?:benchmarks|examples|scripts|tests)/[\w./-]+)`", text):
        assert (ROOT / named).exists(), named


def test_a_command_that_is_wrong_fails(folder, capsys):
    """The negative control: a flag, a verb, a make target and a script that do not exist."""
    for wrong in (
        "tailcast estimate --model DIR --queries queries.jsonl --sample 5",
        "tailcast estimate --engine vllm --sample 5",
        "tailcast shows run",
        "tailcast shows",
        "make everything",
        "python benchmarks/nothing.py",
        "pip install 'tailcast[nothing]'",
    ):
        for text in (f"    {wrong}\n", f"`{wrong}`"):
            (command,) = commands(text)
            with pytest.raises(Exception):  # noqa: B017
                execute(command, folder, capsys)


def test_every_page_is_in_the_navigation():
    menu = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert all(f": {page.name}" in menu for page in (ROOT / "docs").glob("*.md"))
