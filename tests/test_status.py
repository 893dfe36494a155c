"""Status tells what a run has done, from outside, and changes nothing."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from tailcast.analysis.status import status_of
from tailcast.analysis.tally import Tally
from tailcast.config import RunConfig
from tailcast.errors import JudgeAway
from tailcast.pipeline import Inputs, run, shards
from tailcast.progress import Progress
from tailcast.store import RunStore
from tailcast.types import Judge, Query
from tiny import call

QUERIES = [Query.user(f"q/{number}", f"hello {number}") for number in range(5)]
PLAIN = {
    "model": "a table", "queries": "here", "judge": "pattern:4.*4", "max_new_tokens": 6,
    "samples": 16, "batch": 64,
}  # fmt: skip
MIXTURE = PLAIN | {
    "method": "mixture", "steering": "a table's own", "strengths": (0.5, 1.0), "switches": (2, 4),
    "monte_carlo": 8,
}  # fmt: skip
SPLITTING = PLAIN | {"method": "splitting", "score": "usual", "particles": 4}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_DRAWS", 4)
    monkeypatch.setattr(shards, "LARGEST", 1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tabular, unit):
    """A plain run, four batches of four draws of each query."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_DRAWS", 4)
        patch.setattr(shards, "LARGEST", 1)
        out = tmp_path_factory.mktemp("finished") / "run"
        measured(out, tabular, unit, PLAIN)
        yield out


def measured(out, tabular, unit, values, **more):
    inputs = Inputs(target=tabular, queries=QUERIES, steering=unit)
    return run(RunConfig(**values, out=str(out)), inputs=replace(inputs, **more))


def state(out):
    return status_of(Tally(RunStore(str(out))))


def content(out):
    files = [path for path in out.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("url", [False, True])
def test_a_finished_run_counts_as_its_estimates_do(tmp_path, tabular, unit, url):
    out = f"memory://{tmp_path.name}/run" if url else tmp_path / "run"
    found = measured(out, tabular, unit, MIXTURE)
    status = state(out)
    assert status.state == "finished" and status.seconds_left == 0
    assert status.counts.drawn == status.counts.judged == sum(one.n for one in found)
    assert status.counts.hits == sum(one.n_hits for one in found)
    for name in ("token_forwards", "judge_calls"):
        assert getattr(status.counts, name) == sum(one.cost[name] for one in found)
    mixture = [one.p or 0.0 for one in found if one.method == "mixture"]
    assert status.mean_risk == pytest.approx(sum(mixture) / 5)
    assert all(one.drawn == one.planned and not one.behind for one in status.stages)
    assert status.planned == 5 * (8 + 16) and 0 < status.minutes < 1


class Stop(Progress):
    """Looks at the run after some shards, or ends it."""

    def __init__(self, at, then):
        self.left, self.then = at, then

    def advance(self, draws, hits):
        self.left -= 1
        if self.left == 0:
            self.then()


def test_a_run_that_goes_on_is_seen_and_not_touched(tmp_path, tabular, unit, capsys):
    seen, out = [], tmp_path / "run"

    def look():
        before = content(out)
        seen.append(state(out))
        assert content(out) == before

    inputs = Inputs(target=tabular, queries=QUERIES)
    run(RunConfig(**PLAIN, out=str(out)), inputs=inputs, progress=Stop(7, look))
    [one] = seen
    assert one.state == "running" and one.session["pid"] == os.getpid()
    assert one.counts.drawn == 40 and one.counts.judged == 4 * 7 and one.planned == 80
    [stage] = one.stages
    assert one.mean_risk == stage.hits / stage.judged and one.mean_from == "plain draws"
    code, text, _ = call(capsys, "status", out)
    assert code == 0 and "finished" in text and "80" in text
    code, text, _ = call(capsys, "status", out, "--json")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["record"] for row in rows] == ["stage", "run"] and rows[1]["counts"]["drawn"] == 80


def test_a_killed_run_has_stopped_and_says_what_is_missing(tmp_path, finished, capsys):
    out = shutil.copytree(finished, tmp_path / "run")
    for name in ("estimates.jsonl", "finished.json"):
        (out / name).unlink()
    for kind in ("samples", "verdicts"):
        [*_, last] = sorted((out / kind / "mc").glob("q_3.*/*"))
        last.unlink()
    manifest = json.loads((out / "manifest.json").read_text())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    session = manifest["sessions"][0]
    del session["ended"]
    for change, expected in (
        ({"pid": dead.pid}, "stopped"),
        ({"pid": os.getpid()}, "running"),  # alive, and older than the session
        ({"pid": os.getpid(), "began": 1.0}, "stopped"),  # another process has its number by now
        ({"host": "elsewhere"}, "unknown"),
    ):
        one = {**session, **change}
        (out / "manifest.json").write_text(json.dumps({**manifest, "sessions": [one]}))
        assert state(out).state == expected, change
    [stage] = state(out).stages
    assert stage.behind == {"q/3": 12} and (stage.drawn, stage.planned) == (76, 80)
    code, text, _ = call(capsys, "status", out)
    assert code == 0 and "q/3 (12)" in text and "cannot be asked from here" in text
    assert socket.gethostname() not in text.splitlines()[0]


def test_a_rate_is_from_the_times_of_the_shards(tmp_path, finished):
    """Four batches of 20 draws, ten seconds apart; the pause of a stop is no time of work."""
    out = shutil.copytree(finished, tmp_path / "run")
    manifest = json.loads((out / "manifest.json").read_text())
    grown = {"samples": 16, "monte_carlo": 4, "budget": None}
    manifest["sessions"] = [
        {**manifest["sessions"][0], "began": 1e9, "ended": 1e9 + 15},
        {**manifest["sessions"][0], "began": 1e9 + 5000, "ended": 1e9 + 5030, "size": grown},
    ]
    (out / "manifest.json").write_text(json.dumps(manifest))
    for path in (out / "samples").rglob("*.parquet"):
        when = (10, 5010, 5020, 5030)[int(path.name[:8]) // 4]
        os.utime(path, (1e9 + when, 1e9 + when))
        if when == 5030 and "q_3" in str(path):
            path.unlink()
    found = state(out)
    assert found.state == "stopped"  # finished.json is not of this size
    assert found.draws_a_second == pytest.approx((20 + 16) / 20)
    assert found.seconds_left == pytest.approx(4 / 1.8)
    assert found.minutes == pytest.approx(45 / 60)


def test_what_a_dead_judge_left_waits(tmp_path, tabular, unit, capsys):
    def away(query, texts):
        raise JudgeAway("the judge's server does not answer.")

    def moody(query, text):
        raise ValueError("[red]no\x1b[0m")

    dead = Judge("dead", lambda query, text: 0.0, many=away)
    with pytest.raises(JudgeAway):
        measured(tmp_path / "run", tabular, unit, PLAIN, judge=dead)
    found = state(tmp_path / "run")
    assert found.state == "stopped" and found.session["ended"]
    assert (found.counts.drawn, found.counts.judged) == (20, 0)
    assert "20 draws wait for it" in call(capsys, "status", tmp_path / "run")[1]
    measured(tmp_path / "moody", tabular, unit, PLAIN, judge=Judge("moody", moody))
    text = call(capsys, "status", tmp_path / "moody")[1]
    assert "failed on 80 draws, the last time by: ValueError: [red]no" in text


def test_splitting_and_rules_are_not_promised_an_end(tmp_path, tabular, unit, capsys):
    measured(tmp_path / "split", tabular, unit, SPLITTING)
    found = state(tmp_path / "split")
    assert found.state == "finished" and found.stages[0].planned > 5 * 16
    assert not found.stages[0].behind
    rule = MIXTURE | {"until": ("relative-error", 0.5)}
    measured(tmp_path / "rule", tabular, unit, rule)
    (tmp_path / "rule" / "finished.json").unlink()
    found = state(tmp_path / "rule")
    assert found.planned is None and found.seconds_left is None
    assert "it ends by until relative-error 0.5" in call(capsys, "status", tmp_path / "rule")[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "holds no manifest.json"),
        (lambda path: path.write_text("x"), "does not exist"),
    ],
)
def test_what_is_no_run_is_said(tmp_path, capsys, make, message):
    make(tmp_path / "run")
    code, out, err = call(capsys, "status", tmp_path / "run")
    assert code == 2 and out == "" and message in err and len(err.splitlines()) == 1
