"""A run directory or a config from a stranger does nothing, and what is wrong is one sentence."""

import csv
import json
import os
import shutil
import unicodedata
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import tailcast
from tailcast.config import RunConfig
from tailcast.errors import TailcastError
from tailcast.files import MOST_BYTES
from tailcast.pipeline import Inputs, run, shards
from tailcast.types import Query
from tiny import call, save_model

MARK = "=<img src=x onerror=alert(1)>[red]\x1b]0;owned\x07\x1b[31m\u202e=cmd|'/c calc'!A1 $\\frac{"
QUERIES = [Query.user(f"q{number}", f"hello {number}") for number in range(3)]
SETTINGS = {
    "model": "a table", "queries": "here", "judge": "pattern:4.*4", "max_new_tokens": 6,
    "method": "mixture", "steering": "a table's own", "strengths": (1.0,), "switches": (2,),
    "heats": (), "samples": 24, "monte_carlo": 24, "batch": 64,
}  # fmt: skip
VERBS = {
    "show": ["show", "RUN"],
    "status": ["status", "RUN"],
    "explain": ["explain", "RUN", "q1", "--show-text"],
    "proposals": ["proposals", "RUN", "--show-text"],
    "repeated": ["analyse", "repeated", "RUN"],
    "deployment": ["analyse", "deployment", "RUN", "--calls", "1e6/day"],
    "sensitivity": ["analyse", "sensitivity", "RUN"],
    "forecast": ["analyse", "forecast", "RUN"],
    "compare": ["compare", "RUN"],
    "crosscheck": ["crosscheck", "RUN"],
    "label": ["label", "RUN", "--out", "OUT/sheet.csv"],
    "export": ["export", "RUN", "--inspect", "OUT/run.eval"],
}
SAYS_NO = ("sensitivity", "forecast")  # three queries are too few for these


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tabular, unit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_DRAWS", 512)
        out = tmp_path_factory.mktemp("finished") / "run"
        inputs = Inputs(target=tabular, queries=QUERIES, steering=unit)
        run(RunConfig(**SETTINGS, out=str(out)), inputs=inputs)
    return out


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def opened(capsys, path, verbs=VERBS):
    """Exit code of every verb; what went wrong is one sentence, and no more than that happens."""
    codes = {}
    out = path.parent / "out"
    out.mkdir(exist_ok=True)
    before = everything(path.parent)
    for verb in verbs:
        words = [word.replace("RUN", str(path)).replace("OUT", str(out)) for word in VERBS[verb]]
        code, _, err = call(capsys, *words)
        assert code in (0, 2), (verb, code, err)
        said = [line for line in err.splitlines() if line.startswith("tailcast: ")]
        assert code == 0 or (len(said) == 1 and err.splitlines()[-1:] == said), (verb, err)
        assert "Traceback" not in err and "\x1b" not in err
        codes[verb] = code
        shutil.rmtree(path / "calibration", ignore_errors=True)
    assert everything(path.parent) == before
    return codes


def everything(root):
    """Names of all files and what is in the plain ones, those of the results left out."""
    found = {}
    for path in root.rglob("*"):
        if "out" not in path.relative_to(root).parts[:1]:
            plain = path.is_file() and not path.is_symlink() and path.stat().st_size < 2**20
            found[path] = path.read_bytes() if plain else os.path.lexists(path)
    return found


def test_an_undamaged_run_is_opened(capsys, copy):
    assert opened(capsys, copy) == {verb: 2 * (verb in SAYS_NO) for verb in VERBS}


MANIFEST = [one for one in VERBS if one not in ("show", "crosscheck")]
ESTIMATES = list(VERBS)
DRAWS = ["status", "explain", "proposals", "label", "export"]
FILES = {
    "manifest.json": MANIFEST,
    "estimates.jsonl": ESTIMATES,
    "queries.jsonl": [one for one in MANIFEST if one not in ("explain", "proposals", "label")],
    "audit.json": ["show"],
    "finished.json": ["status"],
    "rounds/0000.json": DRAWS,
    "samples/round-0/q1/00000000-00000024.parquet": DRAWS,
    "verdicts/round-0/q1/00000000-00000024.parquet": DRAWS,
    "scores/round-0/q1/00000000-00000024.parquet": DRAWS,
}
"""And the verbs that read each."""


def linked(path):
    outside = path.parents[len(path.parts) - 1 - path.parts.index("run")] / "outside"
    outside.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(outside)


def sparse(path):
    with path.open("r+b") as file:
        file.truncate(MOST_BYTES + 1)


def in_place(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5]),
    "rubbish": lambda path: path.write_bytes(np.random.default_rng(0).bytes(999)),
    "no UTF-8": lambda path: path.write_bytes(path.read_bytes()[:40] + b"\xff\xfe"),
    "nested": lambda path: path.write_bytes(b"[" * 10**6),
    "a list": lambda path: path.write_bytes(b"[[]]\n"),
    "a number": lambda path: path.write_bytes(b"1e999\n"),
    "a link out": linked,
    "a link to itself": in_place(lambda path: path.symlink_to(path)),
    "a directory": in_place(lambda path: path.mkdir()),
    "a pipe": in_place(os.mkfifo),
    "too large": sparse,
}


@pytest.mark.parametrize("name", [name for name in FILES if "verdicts" not in name])
def test_these_verbs_read_a_file_and_no_others(capsys, copy, name):
    DAMAGES["rubbish"](copy / name)
    codes = opened(capsys, copy)
    assert [verb for verb in VERBS if codes[verb]] == [
        verb for verb in VERBS if verb in FILES[name] or verb in SAYS_NO
    ]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_said(capsys, copy, name, damage):
    """By two of the verbs that read it, other ones for every damage."""
    DAMAGES[damage](copy / name)
    quick = [verb for verb in FILES[name] if verb not in ("export", "forecast", "label")]
    at = [*DAMAGES].index(damage)
    verbs = {quick[(at + number) % len(quick)] for number in range(2)}
    assert opened(capsys, copy, verbs) == {
        verb: 2 * (verb != "status" or damage != "a directory" or ".json" in name) for verb in verbs
    }


VALUES = (
    None, True, -1, 0, 1, 3.5, 10**400, float("nan"), float("inf"), "", "x", MARK, [], [[]], {},
    {"": {}}, "\ud800", [None], ["x"] * 3, [0] * 3, -(2**63), 2**62, 1e308, 5e-324,
)  # fmt: skip


def places(value, at=()):
    """Every place in a JSON value, by its path; of lists the first two items."""
    if at:
        yield at
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value[:2]) if isinstance(value, list) else inner
    for key, one in inner:
        yield from places(one, (*at, key))


def changed(value, at, new):
    if not at:
        return new
    copy = value.copy()
    copy[at[0]] = changed(copy[at[0]], at[1:], new)
    return copy


def read(path):
    text = path.read_text()
    lines = path.suffix == ".jsonl"
    return [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)


def write(path, value):
    rows = value if path.suffix == ".jsonl" else [value]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", [name for name in FILES if ".json" in name])
def test_any_value_in_any_place_is_taken_or_said(capsys, copy, name):
    """A few of all pairs of a place and a value, the same ones every time."""
    rng, whole = np.random.default_rng(1), read(copy / name)
    pairs = [(at, value) for at in places(whole) for value in VALUES]
    for number in rng.choice(len(pairs), 16, replace=False):
        write(copy / name, changed(whole, *pairs[number]))
        opened(capsys, copy, [FILES[name][number % len(FILES[name])]])


def of_draws(change):
    """Rewrites a file of draws with other columns."""

    def damage(path):
        table = parquet.read_table(path)
        facts, columns = table.schema.metadata, table.to_pydict()
        found = change(columns, facts)
        parquet.write_table(pa.table(columns).replace_schema_metadata(found or facts), path)

    return damage


def put(name, value):
    return of_draws(lambda columns, facts: columns.update({name: [value] * len(columns[name])}))


def dropped(name):
    return of_draws(lambda columns, facts: columns.pop(name) and None)


def shorter(columns, facts):
    columns.update({name: values[:5] for name, values in columns.items()})


TABLES = {
    "no width": ("samples", of_draws(lambda columns, facts: {b"x": b"y"})),
    "a huge width": ("samples", of_draws(lambda c, facts: {**facts, b"width": b"9" * 12})),
    "a negative width": ("samples", of_draws(lambda c, facts: {**facts, b"width": b"-4"})),
    "fewer draws than verdicts": ("samples", of_draws(shorter)),
    "no texts": ("samples", dropped("text")),
    "numbers for texts": ("samples", put("text", 3)),
    "nothing for texts": ("samples", put("text", None)),
    "words for tokens": ("samples", put("tokens", ["x"])),
    "no log-probabilities": ("samples", put("token_logp", [])),
    "NaN": ("samples", put("token_logp", [float("nan")] * 3)),
    "a strength of infinity": ("samples", put("strength", float("inf"))),
    "fewer verdicts than draws": ("verdicts", of_draws(shorter)),
    "words for hits": ("verdicts", put("hit", "x")),
    "no hits": ("verdicts", dropped("hit")),
    "negative shares": ("verdicts", put("share", -1.0)),
    "scores of other draws": ("scores", put("draw", 10**9)),
    "scores of no stream": ("scores", of_draws(lambda c, facts: {**facts, b"streams": b"[]"})),
    "scores of nested streams": (
        "scores", of_draws(lambda c, facts: {**facts, b"streams": b"[" * 10**5})
    ),
    "scores that are NaN": ("scores", put("logp", [float("nan")] * 2)),
}  # fmt: skip


@pytest.mark.parametrize("damage", TABLES)
def test_tables_that_hold_something_else_are_taken_or_said(capsys, copy, damage):
    kind, make = TABLES[damage]
    for path in (copy / kind / "round-0").rglob("*.parquet"):
        make(path)
    codes = opened(capsys, copy, DRAWS)
    assert any(codes.values()) or damage in ("negative shares", "nothing for texts"), codes


# --- Texts


@pytest.fixture(scope="module")
def marked(tmp_path_factory, tabular, unit):
    """A run whose ids, prompts, completions and facts hold markup, code and escape sequences."""
    out = tmp_path_factory.mktemp("marked") / "run"
    queries = [Query.user(f"{MARK}{number}", MARK, (MARK,)) for number in range(2)]
    inputs = Inputs(target=tabular, queries=queries, steering=unit)
    run(RunConfig(**SETTINGS | {"system_prompt": MARK}, out=str(out)), inputs=inputs)
    for path in (out / "samples").rglob("*.parquet"):
        put("text", MARK)(path)
    manifest, rows = read(out / "manifest.json"), read(out / "estimates.jsonl")
    write(out / "manifest.json", manifest | {"facts": {MARK: MARK}, "versions": {MARK: MARK}})
    write(out / "estimates.jsonl", [row | {"reasons": [MARK], "ended": MARK} for row in rows])
    write(out / "audit.json", [one | {"sentence": MARK} for one in read(out / "audit.json")])
    return out


class Tags(HTMLParser):
    """Which elements with which attributes a page has, and where it leads."""

    def __init__(self, text):
        super().__init__()
        self.found, self.links, self.text = set(), set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.add((tag, *sorted({name for name, _ in attributes})))
        self.links |= {value for name, value in attributes if name in ("href", "src", "xlink:href")}

    def handle_data(self, data):
        self.text += data


def test_a_page_holds_texts_as_texts(capsys, finished, marked, tmp_path):
    pages = {}
    for name, path in (("clean", finished), ("marked", marked)):
        place = tmp_path / f"{name}.html"
        code, _, err = call(capsys, "report", path, "--show-text", "--out", place)
        assert code == 0, err
        pages[name] = Tags(place.read_text("utf-8"))
    assert {tag for tag, *_ in pages["marked"].found} <= {tag for tag, *_ in pages["clean"].found}
    attributes = {name for _, *names in pages["marked"].found for name in names}
    assert not any(name.startswith("on") for name in attributes)
    assert all(link.startswith("#") for link in pages["marked"].links)
    assert MARK[:28] in pages["marked"].text


def test_pictures_and_sheets_hold_texts_as_texts(capsys, marked, tmp_path):
    for kind in ("risks", "components"):
        code, _, err = call(capsys, "plot", marked, kind, "--out", tmp_path / "p.svg")
        assert code == 0, err
        tags = {one.tag.split("}")[1] for one in ElementTree.parse(tmp_path / "p.svg").iter()}
        assert tags <= {
            "svg",
            "g",
            "path",
            "text",
            "rect",
            "line",
            "defs",
            "clipPath",
            "a",
            "title",
        }
    for query in read(marked / "queries.jsonl"):
        code, _, err = call(capsys, "explain", marked, query["id"], "--plot", tmp_path / "p.png")
        assert code == 0, err
    for kind in ("csv", "html"):
        copy = shutil.copytree(marked, tmp_path / kind)
        code, _, err = call(capsys, "label", copy, "--out", tmp_path / f"sheet.{kind}")
        assert code == 0, err
    with (tmp_path / "sheet.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not any(cell.lstrip()[:1] in ("=", "+", "-", "@") for cell in cells if cell)
    assert "<img" not in (tmp_path / "sheet.html").read_text("utf-8")


def test_a_terminal_shows_texts_as_texts(capsys, marked, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    first = read(marked / "queries.jsonl")[0]["id"]
    seen = ""
    for words in (
        ["show", marked], ["status", marked], ["proposals", marked, "--show-text"],
        ["explain", marked, first, "--show-text"], ["explain", marked, "nothing"],
        ["crosscheck", marked], ["show", marked, "--json"], ["compare", marked],
        ["analyse", "deployment", marked, "--calls", "1/day"],
    ):  # fmt: skip
        _, out, err = call(capsys, *words)
        seen += out + err
    assert not {one for one in seen if unicodedata.category(one)[0] == "C"} - {"\n"}
    assert seen.count("[red]") > 9 and "\u241b" in seen


# --- Code


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A folder of a stranger; its code leaves a file behind when it runs."""
    monkeypatch.chdir(tmp_path)
    name = f"evil{abs(hash(tmp_path))}"
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\ndef judge(query, text):\n    return 0.0\n"
    (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "kind").mkdir()
    (tmp_path / "kind/behaviour.toml").write_text(
        f'queries = ["red one"]\njudge = "python:{name}:judge"\n'
        '[[system_prompts]]\npositive = "a"\nnegative = "b"\n'
    )
    save_model(tmp_path / "model")
    capture = (tmp_path / "q.jsonl").write_text('{"id": "a", "prompt": "red"}\n')
    assert capture
    return name


CODE = {
    "a judge": ('judge = "python:EVIL:judge"', "--judge python:EVIL:judge"),
    "a scorer": ('judge = "inspect:EVIL.py@f"', "--judge inspect:EVIL.py@f"),
    "a task": ('task = "EVIL.py@f"', "--task EVIL.py@f"),
    "queries": ('queries = "inspect:EVIL.py@f"', "--queries inspect:EVIL.py@f"),
    "a model": ("trust_remote_code = true", "--trust-remote-code"),
    "a behaviour": ('behaviour = "kind"', "--judge python:EVIL:judge"),
}


@pytest.mark.parametrize("what", CODE)
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_code_that_a_config_names_is_refused_with_the_flag_that_allows_it(
    capsys, evil, tmp_path, what, verb
):
    line, flag = (text.replace("EVIL", evil) for text in CODE[what])
    rest = [f'model = "{tmp_path / "model"}"', "samples = 4", "max_new_tokens = 2"]
    rest += [] if line.split()[0] in ("task", "queries", "behaviour") else ['queries = "q.jsonl"']
    (tmp_path / "base.toml").write_text(line + "\n")
    (tmp_path / "run.toml").write_text('base = "base.toml"\n' + "\n".join(rest) + "\n")
    capsys.readouterr()
    code, _, err = call(capsys, verb, "run.toml")
    assert code == 2 and flag in err and len(err.splitlines()) == 1
    assert not (tmp_path / "ran").exists() and not (tmp_path / "run").exists()
    if verb == "run" and what in ("a judge", "a behaviour", "a model"):
        code, _, err = call(capsys, "run", "run.toml", "--quiet", *flag.split())
        assert code == 0, err
        config = read(tmp_path / "run/manifest.json")["config"]
        assert config["trust_remote_code"] == (what == "a model")
        assert (tmp_path / "ran").exists() == (what != "a model")  # a negative control: it runs


def test_code_of_a_behaviour_or_a_run_is_refused(capsys, evil, tmp_path, finished):
    words = ["--behaviour", "kind", "--from", "system-prompts", "--out", "v.safetensors"]
    code, _, err = call(capsys, "steer", "--model", tmp_path / "model", *words)
    assert code == 2 and f"--judge python:{evil}:judge" in err
    words = ["estimate", "--model", tmp_path / "model", "--behaviour", "kind", "--out", "x"]
    code, _, err = call(capsys, *words)
    assert code == 2 and f"--judge python:{evil}:judge" in err
    copy = shutil.copytree(finished, tmp_path / "copy")
    manifest = read(copy / "manifest.json")
    manifest["config"] |= {
        "queries": f"inspect:{evil}.py@f", "judge": f"python:{evil}:judge", "behaviour": "kind",
        "trust_remote_code": True,
    }  # fmt: skip
    write(copy / "manifest.json", manifest)
    assert opened(capsys, copy) == {verb: 2 * (verb in SAYS_NO) for verb in VERBS}
    assert call(capsys, "report", copy, "--out", tmp_path / "r.html")[0] == 0
    code, _, err = call(capsys, "learn", copy, "--out", tmp_path / "s.safetensors")
    assert code == 2 and "--trust-remote-code" in err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [".lock", ".manifest.json.tmp", "samples", "manifest.json"])
def test_nothing_is_written_through_a_link(tmp_path, tabular, name):
    outside = tmp_path / "outside"
    outside.mkdir() if name == "samples" else outside.write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(outside)
    if name != "manifest.json":
        write(tmp_path / "run/manifest.json", {"config": {}})
    config = RunConfig(**SETTINGS | {"method": "mc", "steering": None}, out=str(tmp_path / "run"))
    before = everything(outside) if name == "samples" else outside.read_text()
    with suppress(TailcastError):
        run(config, inputs=Inputs(target=tabular, queries=QUERIES))
    assert before == (everything(outside) if name == "samples" else outside.read_text())


def test_nothing_that_is_read_can_be_a_pickle():
    """Of NumPy and torch; nothing of the package names the module at all."""
    for path in (Path(tailcast.__file__).parent).rglob("*.py"):
        if path.name == "shelf.py":  # a temporary file without a name, which nobody else can open
            continue
        text = path.read_text("utf-8")
        assert "pickle" not in text and "np.load(" not in text, path
        assert text.count("torch.load(") == text.count("weights_only=True"), path
