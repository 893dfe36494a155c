"""What people look at: the page says what the run found, and a hostile run does nothing."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from fractions import Fraction
from functools import cache
from hashlib import sha256
from html.parser import HTMLParser

import numpy as np
import pytest

import tailcast
from tailcast.config import make_config
from tailcast.errors import ConfigError, StoreError
from tailcast.models import TabularTarget
from tailcast.report import KINDS, draw, read_run, save_chart, write_report
from tailcast.report.outlook import expected, mean_risk
from tailcast.report.reproduce import command
from tailcast.report.tables import short_proposal
from tailcast.report.words import anchor, one_in, percent, risk
from tailcast.stats import monte_carlo
from tailcast.types import Query
from tiny import call

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
RARE = "6"


class Hostile(TabularTarget):
    """Every completion is an attack on the page that shows it."""

    def decode(self, tokens):
        return HOSTILE + super().decode(tokens)


def judge(query, text):
    return float(RARE in text.removeprefix(HOSTILE).split())


def target():
    """Seven tokens, the last one comes first if at all, and is rarer and rarer with the prompt."""
    table = np.zeros((3, 7, 7))
    table[:, :, 6] = -30.0
    table[0, :, 6] = np.array([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -30.0])
    return Hostile(table, 3.0 * (np.arange(7) == 6) * np.ones((3, 7, 7)))


@pytest.fixture(scope="module")
def queries():
    """Prompts that begin with each token; the last one never gives a hit."""
    prompts = [chr(42 + token) for token in range(7)]
    ids = [f"plain-{token}" for token in range(4)] + ["</script><b>x", "a/b ü", "never"]
    return [Query.user(id, prompt, ("tag",)) for id, prompt in zip(ids, prompts, strict=True)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, queries, unit):
    """A mixture with plain draws beside it."""
    out = tmp_path_factory.mktemp("runs") / "mixed"
    tailcast.estimate(
        target(), queries, judge, steering=unit, out=out, samples=200, monte_carlo=100,
        max_new_tokens=3, strengths=(0.5, 1.0), switches=(2, 3), heats=(1.5,),
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    """Its report, completions shown."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report([run], out, show_text=True)
    return out


class Parsed(HTMLParser):
    """Elements with their attributes, and the page's text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_loads_nothing_and_runs_only_its_own_script(page):
    text = page.read_text("utf-8")
    parsed = Parsed(text)
    assert not {"link", "iframe", "object", "embed", "img", "image", "base", "video"} & {
        tag for tag, _ in parsed.elements
    }
    for _, attributes in parsed.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src", "xlink:href", "action", "data"):
            assert attributes.get(name, "#").startswith("#"), attributes
    assert not re.search(r"url\(|@import|https?:", text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for _, a in parsed.elements if "http-equiv" in a)
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {a["href"][1:] for _, a in parsed.elements if a.get("href")}
    assert links <= set(ids)


def test_completions_are_hidden_unless_asked_for_and_escaped_then(page, run, tmp_path):
    assert "document.title" in page.read_text("utf-8")
    parsed = Parsed(page.read_text("utf-8"))
    assert sum(tag == "script" for tag, _ in parsed.elements) == 1
    assert any(HOSTILE in words for words in parsed.words)
    write_report([run], tmp_path / "shy.html")
    assert "document.title" not in (tmp_path / "shy.html").read_text("utf-8")


def test_the_page_says_what_the_run_found(page, run):
    found = read_run(run)
    text = page.read_text("utf-8")
    assert len(found.plain) == 7 and found.overall.n_queries == 7
    for one in found.main.values():
        if one.p is not None:
            assert f'data-value="{one.p}"' in text
        assert f'id="{anchor(one.query_id)}"' in text
    assert percent(found.overall.p) in text
    assert found.audit.sentence.replace("'", "&#39;") in text
    for fingerprint in found.facts.values():
        assert fingerprint in text
    for section in ("risks", "agreement", "audit", "repeated", "weights", "deployment", "cost"):
        assert f'<section id="{section}"' in text


def test_what_carries_an_estimate_is_all_of_it(run):
    found = read_run(run)
    for name, one in found.explained.items():
        assert sum(one.draws.values()) == found.main[name].n
        assert sum(hits for _, _, hits, _ in one.by_proposal) == found.main[name].n_hits
        assert len(one.hits) == min(found.main[name].n_hits, 20), "the largest ones"
        shares = [share for _, _, _, share in one.by_proposal]
        assert not one.hits or sum(shares) == pytest.approx(1)


def test_sections_without_data_are_left_out_and_runs_stand_side_by_side(
    run, tmp_path, queries, capsys
):
    tailcast.estimate(target(), queries, judge, out=tmp_path / "plain", samples=50,
                      max_new_tokens=3)  # fmt: skip
    code, out, _ = call(capsys, "report", tmp_path / "plain", run, "--out", tmp_path / "two.html")
    text = (tmp_path / "two.html").read_text("utf-8")
    assert code == 0 and out.strip() == str(tmp_path / "two.html")
    assert '<section id="r1-risks"' in text and '<section id="r2-weights"' in text
    assert "r1-weights" not in text and "r1-agreement" not in text
    assert "Tail risks of 2 runs" in text
    ids = [a["id"] for _, a in Parsed(text).elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_without_its_draws_a_run_still_has_a_page(run, tmp_path):
    bare = shutil.copytree(run, tmp_path / "bare", ignore=shutil.ignore_patterns("samples"))
    write_report([bare], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert '<section id="risks"' in text and '<section id="weights"' not in text


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def damage(name, run):
    """Break a copy of a run in one way."""
    path = run / "estimates.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    manifest = json.loads((run / "manifest.json").read_text())
    if name == "no manifest":
        (run / "manifest.json").unlink()
    elif name == "unfinished":
        path.unlink()
    elif name == "no estimates":
        path.write_text("")
    elif name == "cut off":
        path.write_text(path.read_text()[:-40])
    elif name == "no object":
        path.write_text("[]\n3\n")
    elif name == "a word for a risk":
        path.write_text(lines([{**rows[0], "p": "<b>high</b>"}]))
    elif name == "no number":
        path.write_text(lines([{**rows[0], "ci_high": float("nan")}]))
    elif name == "a verdict of its own":
        path.write_text(lines([{**rows[0], "verdict": "fine"}]))
    elif name == "manifest is a list":
        (run / "manifest.json").write_text("[]")
    elif name == "unknown setting":
        manifest["config"]["frobnicate"] = 1
        (run / "manifest.json").write_text(json.dumps(manifest))
    elif name == "binary":
        (run / "manifest.json").write_bytes(b"\xff\xfe\x00")
    elif name == "draws cut off":
        for shard in (run / "samples").rglob("*.parquet"):
            shard.write_bytes(shard.read_bytes()[:100])
    elif name == "draws of another kind":
        for shard in (run / "samples").rglob("*.parquet"):
            shutil.copy(next((run / "verdicts").rglob("*.parquet")), shard)


@pytest.mark.parametrize(
    "name",
    [
        "no manifest", "unfinished", "no estimates", "cut off", "no object", "a word for a risk",
        "no number", "a verdict of its own", "manifest is a list", "unknown setting", "binary",
        "draws cut off", "draws of another kind",
    ],
)  # fmt: skip
def test_a_broken_run_gives_one_sentence(name, run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    damage(name, copy)
    code, out, err = call(capsys, "report", copy, "--out", tmp_path / "report.html")
    said = " ".join(err.split())
    assert code == 2 and not out and not (tmp_path / "report.html").exists()
    assert said.startswith("tailcast: ") and "Traceback" not in said and "run" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["report"], "no run directory is given"),
        (["report", "RUN", "--out", "no/such/place.html"], "cannot write"),
        (["report", "nowhere"], "does not exist"),
        (["plot", "RUN", "pie"], "none of risks, agreement"),
        (["plot", "RUN", "risks", "--out", "risks.pdf"], "neither .svg nor .png"),
    ],
)
def test_mistakes_are_named(words, says, run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, *[run if word == "RUN" else word for word in words])
    assert code == 2 and says in err and "Traceback" not in err


@pytest.fixture(scope="module")
def many(tmp_path_factory, queries):
    """Six base queries in three wordings each, enough for a forecast."""
    out = tmp_path_factory.mktemp("many") / "plain"
    asked = [
        Query.user(f"{query.id}/{number}", query.prompt)
        for query in queries[:6] for number in range(3)
    ]  # fmt: skip
    tailcast.estimate(target(), asked, judge, out=out, samples=400, max_new_tokens=3)
    return out


def test_queries_not_yet_asked_are_forecast_where_there_are_enough(many, run, page, tmp_path):
    write_report([many], tmp_path / "report.html")
    text = " ".join(Parsed((tmp_path / "report.html").read_text("utf-8")).words)
    assert "Queries not yet asked" in text
    found = read_run(many).ahead
    for _, worst, low, high, mean, mean_low, mean_high in found.rows:
        assert 0 < low <= worst <= high <= 1 and 0 < mean_low <= mean <= mean_high < 1
    worsts = [row[1] for row in found.rows]
    assert worsts == sorted(worsts) and worsts[-1] > max(found.seen)
    assert found.measured == 18 and "times the 18 queries" in " ".join(found.warnings)
    assert "Queries not yet asked" not in page.read_text("utf-8"), "seven queries forecast nothing"


def test_wordings_of_base_queries_are_held_side_by_side(many, page, tmp_path):
    write_report([many], tmp_path / "report.html")
    text = " ".join(Parsed((tmp_path / "report.html").read_text("utf-8")).words)
    assert "In other words" in text and "In other words" not in page.read_text("utf-8")
    found = read_run(many).reworded
    assert [one.queries for one in found.bases] == [3] * 6
    rows = draw(read_run(many), "wordings").to_dict()["layer"][1]["data"]["values"]
    assert {row["base"] for row in rows} == {one.base for one in found.bases}
    assert all(0 < row["place"] < 1 and 0 < row["low"] <= row["risk"] <= 1 for row in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_a_picture(kind, run, many, tmp_path, capsys):
    run = many if kind in ("forecast", "wordings") else run
    for name, mark in ((f"{kind}.svg", b"<svg"), (f"{kind}.png", b"\x89PNG")):
        code, _, _ = call(capsys, "plot", run, kind, "--out", tmp_path / name)
        assert code == 0 and (tmp_path / name).read_bytes().startswith(mark)
    assert draw(read_run(run), kind).to_dict()["$schema"]


def test_a_figure_without_data_says_so(tmp_path, queries):
    tailcast.estimate(target(), queries[-1:], judge, out=tmp_path / "run", samples=9,
                      max_new_tokens=3)  # fmt: skip
    found = read_run(tmp_path / "run")
    for kind in ("agreement", "components", "diagnostics", "forecast", "wordings"):
        with pytest.raises(StoreError):
            draw(found, kind)
    with pytest.raises(ConfigError):
        save_chart(draw(found, "risks"), tmp_path / "no" / "folder.svg")


@pytest.mark.parametrize("package", ["altair", "jinja2", "vl_convert"])
def test_a_missing_extra_is_named(package, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = call(capsys, "report", run, "--out", tmp_path / "report.html")
    assert code == 2 and "pip install 'tailcast[report]'" in " ".join(err.split())


def test_a_report_needs_no_torch(run, tmp_path):
    code = (
        "import sys; from tailcast.report import write_report; "
        f"write_report([{str(run)!r}], {str(tmp_path / 'r.html')!r}); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_of_a_run_gives_its_settings(run):
    """Parsed by the command line itself."""
    from tailcast.cli.main import app

    found = read_run(run)
    assert command(found) is None  # objects in memory
    files = {"model": "a model", "queries": "my 'q'.jsonl", "steering": "v.safetensors"}
    given = {**found.given, **files, "judge": "pattern:a b", "settle": False, "limit": 3,
             "until": ["relative-error", 0.25], "samples": 77, "seed": 5}  # fmt: skip
    asked = make_config(given)
    line = command(replace(found, config=asked, given=given))
    words = shlex.split(line)
    assert words[:2] == ["tailcast", "estimate"]
    _, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    again = make_config(
        {k: v for k, v in bound.arguments["flags"].model_dump().items() if v is not None}
    )
    assert again.model_copy(update={"out": None}) == asked


@cache
def plain(hits, n):
    return monte_carlo(np.arange(n) < hits)


def test_the_interval_of_the_mean_covers_it():
    """Plain draws of known risks; a normal interval, where silent queries add nothing, fails."""
    rng = np.random.default_rng(2)
    risks, n, trials = np.geomspace(1e-5, 0.005, 12), 100, 600
    covered = normal = 0
    for _ in range(trials):
        ones = [plain(int(hits), n) for hits in rng.binomial(n, risks)]
        found = mean_risk(ones)
        covered += found.low <= risks.mean() <= found.high
        error = np.linalg.norm([one.stderr or 0.0 for one in ones]) / len(ones)
        normal += abs(found.p - risks.mean()) <= 1.96 * error
    slack = 3 * np.sqrt(0.95 * 0.05 / trials)
    assert covered / trials > 0.95 - slack
    assert normal / trials < 0.95 - slack


def test_calls_are_exact():
    exact = 1 - (1 - Fraction(3, 10)) ** 7
    assert expected(0.3, 7).at_least_one == pytest.approx(float(exact), rel=1e-12)
    assert expected(1e-18, 1e9).at_least_one == pytest.approx(1e-9, rel=1e-9)
    assert expected(1.0, 2).at_least_one == 1 and expected(0.0, 9).calls_to_first == np.inf
    assert expected(1e-3, 1e6).hits == pytest.approx(1000)


def test_numbers_in_words():
    assert [risk(p) for p in (0, 1, 0.06, 5.84e-4)] == ["0", "1", "0.060", "5.8×10⁻⁴"]
    assert [percent(p) for p in (0, 0.0604, 1, 0.99999)] == ["0%", "6.0%", "100%", "over 99.9%"]
    assert one_in(0.01073) == "1 in 93" and one_in(6.3e-5) == "1 in 16,000"


def test_a_notebook_shows_a_small_escaped_table(run):
    from tailcast.api import Estimates

    shown = Estimates(read_run(run).estimates)._repr_html_()
    parsed = Parsed(shown)
    assert {tag for tag, _ in parsed.elements} == {"table", "tr", "th", "td"}
    assert "</script><b>x" in parsed.words and sum(t == "tr" for t, _ in parsed.elements) == 15
    assert "more: to_pandas()" in Estimates(read_run(run).estimates * 4)._repr_html_()


def test_colours_can_be_read_in_both_schemes():
    """WCAG 2.1 contrast of text: at least 4.5 to 1."""
    from importlib.resources import files

    style = (files("tailcast.report") / "templates" / "page.css").read_text("utf-8")
    light, dark = (dict(re.findall(r"--([a-z]+): (#\w+)", part)) for part in re.findall(
        r":root \{(.*?)\}", style, re.S))  # fmt: skip

    def luminance(colour):
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(one, other):
        high, low = sorted((luminance(one), luminance(other)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for scheme in (light, dark):
        for name in ("ink", "soft", "faint", "accent", "ok", "weak", "unreliable"):
            assert contrast(scheme[name], scheme["paper"]) >= 4.5, name
        assert contrast(scheme["soft"], scheme["panel"]) >= 4.5
    assert contrast(light["grid"], light["paper"]) < 4.5  # the measure can fail


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("target", "target"),
        ("strength=0.3 switch=4 mix=0", "steer 0.3, 4 tokens"),
        ("heat=1.5 switch=8 mix=0.1", "heat 1.5, 8 tokens, mix 0.1"),
        ("openings switch=8 mix=0", "openings, 8 tokens"),
        (
            "prompt:Say x=1 to all. Never refuse. switch=2 mix=0",
            "prompt:Say x=1 to all. …, 2 tokens",
        ),
        (
            "vector:v.safetensors strength=1 switch=2 mix=0",
            "vector:v.safetensors, steer 1, 2 tokens",
        ),
    ],
)
def test_a_proposal_is_named_shortly_whatever_its_stream(name, short):
    assert short_proposal(name) == short
