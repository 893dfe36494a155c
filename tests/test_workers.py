"""Ray's workers and judges bring the bytes that this process brings, however many die."""

import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest

from tailcast.config import RunConfig
from tailcast.errors import WorkersError
from tailcast.pipeline import Inputs, run, shards
from tailcast.progress import Progress
from tailcast.store import RunStore
from tailcast.types import Judge, Query, SteeringVector
from tiny import call, save_model

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
RAY = "ray is not installed: pip install 'tailcast[ray]'"
QUERIES = [Query.user(f"q{number}", f"hello {number}") for number in range(17)]  # two blocks
MEASURE = {
    "model": "a table", "queries": "here", "judge": "pattern:4.*4", "max_new_tokens": 6,
    "method": "mixture", "steering": "a table's own", "strengths": (0.5, 1.0), "switches": (2, 4),
    "samples": 96, "monte_carlo": 32, "batch": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tabular, unit):
    """A run in this process; its shards are small, so that there are many tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_DRAWS", 16)
        yield measured(tmp_path_factory.mktemp("alone") / "run", tabular, unit)


def measured(out: Path, target, steering: SteeringVector, progress=None, **more) -> Path:
    config = RunConfig(**{**MEASURE, "out": str(out), **more})
    inputs = Inputs(target=target, queries=QUERIES, steering=steering)
    run(config, inputs=inputs, progress=progress)
    return out


def content(out: Path) -> dict[str, bytes]:
    """Every file of a run but its manifest, which tells of workers, and its lock."""
    kept = (path for path in out.rglob("*") if path.is_file())
    names = {str(path.relative_to(out)): path for path in kept}
    return {n: p.read_bytes() for n, p in names.items() if n not in ("manifest.json", ".lock")}


class Seen(Progress):
    """Keeps what is said, and can do something once some draws are made."""

    def __init__(self, then=None, at=1):
        self.said, self.left, self.then = [], at, then

    def say(self, message):
        self.said.append(message)

    def advance(self, draws, hits):
        self.left -= 1
        if self.left == 0 and self.then:
            self.then()


@pytest.fixture
def ray():
    """Ray, stopped in the end; its own warnings are not ours."""
    module = pytest.importorskip("ray", reason=RAY)
    module.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import it
    yield module
    module.shutdown()
    gc.collect()  # what it leaves warns when it is collected: here, not in another test


def workers_of(ray, word="Worker") -> list[int]:
    """Process ids of the actors on this machine."""
    import psutil

    mine = psutil.Process().children(recursive=True)
    return [one.pid for one in mine if f"ray::{word}" in " ".join(one.cmdline())[:40]]


@pytest.mark.parametrize("number", [1, 2])
def test_workers_bring_the_bytes_of_one_process(number, ray, alone, tabular, unit, tmp_path):
    seen = Seen()
    out = measured(tmp_path / "run", tabular, unit, seen, ray="local", workers=number)
    assert content(out) == content(alone)
    assert f"{number} workers by Ray (local), one core each." in seen.said


def test_a_killed_worker_loses_and_doubles_nothing(ray, alone, tabular, unit, tmp_path):
    killed = []

    def kill():
        killed.append(workers_of(ray)[0])
        os.kill(killed[0], signal.SIGKILL)

    out = measured(tmp_path / "run", tabular, unit, Seen(kill, at=3), ray="local", workers=2)
    assert killed and content(out) == content(alone)


def test_a_killed_judge_and_a_run_that_was_cut_short_change_nothing(
    ray, alone, tabular, unit, tmp_path
):
    """What one process drew and did not judge is judged, also where a judge is killed."""

    def cut():
        raise KeyboardInterrupt

    killed = []

    def kill():
        killed.append(workers_of(ray, "Judge")[0])
        os.kill(killed[0], signal.SIGKILL)

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        measured(out, tabular, unit, Seen(cut, at=5))
    names = [
        {one.relative_to(out / kind) for one in (out / kind).rglob("*.parquet")}
        for kind in ("samples", "verdicts")
    ]
    assert names[1] < names[0]
    seen = Seen(kill, at=3)
    measured(out, tabular, unit, seen, ray="local", workers=1, judges=2)
    assert killed and content(out) == content(alone)
    assert "2 judges by Ray (local), one core each." in seen.said


class Handed:
    """A table that begins its second task only once somebody judges; it marks every task."""

    def __init__(self, table, folder):
        self.table, self.folder = table, folder

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.table, name)

    def stream(self, *args, **more):
        if number := len(list(self.folder.glob("drawn-*"))):
            awaited(self.folder, "judging-*", 1)
        (self.folder / f"drawn-{number}").touch()
        return self.table.stream(*args, **more)


class Stuck:
    """A judge that answers its first text once two judge at once and a second task is drawn."""

    def __init__(self, folder):
        self.folder, self.calls = folder, 0

    def __call__(self, query, text):
        self.calls += 1
        if self.calls == 1:
            (self.folder / f"judging-{os.getpid()}").touch()
            awaited(self.folder, "judging-*", 2)
            awaited(self.folder, "drawn-*", 2)
            time.sleep(1.0)  # for what must not come
            drawn = len(list(self.folder.glob("drawn-*")))
            (self.folder / f"waited-{os.getpid()}").write_text(str(drawn))
        with (self.folder / f"asked-{os.getpid()}").open("a") as file:
            file.write(f"{query.id}\n")
        return float(text.count("4") > 1)

    def usage(self):
        return {"calls": self.calls}


def awaited(folder, pattern, number):
    end = time.monotonic() + 60
    while len(list(folder.glob(pattern))) < number:
        assert time.monotonic() < end, f"{pattern} came less than {number} times"
        time.sleep(0.01)


def test_sampling_goes_on_beside_judges_and_waits_for_those_that_are_behind(
    ray, tabular, tmp_path, monkeypatch
):
    """Twelve tasks of one worker: while both judges are stuck in the first one's draws, the
    second is drawn, and no third."""
    monkeypatch.setattr(shards, "SHARD_DRAWS", 16)
    config = RunConfig(
        **{**MEASURE, "method": "mc", "steering": None, "monte_carlo": 0},
        ray="local", workers=1, judges=2, out=str(tmp_path / "run"),
    )  # fmt: skip
    stuck, marks = Stuck(tmp_path), Handed(tabular, tmp_path)
    judge = Judge("two fours", stuck, usage=stuck.usage)
    found = run(config, inputs=Inputs(target=marks, judge=judge, queries=QUERIES))
    assert not any("the judge failed" in reason for one in found for reason in one.reasons)
    assert [path.read_text() for path in tmp_path.glob("waited-*")] == ["2", "2"]
    assert len(list(tmp_path.glob("drawn-*"))) == 12
    asked = [path.read_text().splitlines() for path in tmp_path.glob("asked-*")]
    assert len(asked) == 2 and not stuck.calls  # by the judges alone
    kept = json.loads((tmp_path / "run/judge.json").read_text())
    assert kept == {"calls": len(asked[0]) + len(asked[1])}


def test_draws_and_hits_are_counted_among_rays_metrics(ray, tabular, unit, tmp_path, monkeypatch):
    import ray.util.metrics as metrics

    class Metric(list):
        made: ClassVar[dict] = {}

        def __init__(self, name, description, tag_keys):
            self.made[name] = self

        def set_default_tags(self, tags):
            assert tags == {"run": str(tmp_path / "run")}

        inc = list.append

    monkeypatch.setattr(metrics, "Counter", Metric)
    out = measured(tmp_path / "run", tabular, unit, ray="local", workers=1)
    rows = RunStore(out).read_lines("estimates.jsonl")
    for name, field in (("tailcast_draws", "n"), ("tailcast_hits", "n_hits")):
        assert sum(Metric.made[name]) == sum(row[field] for row in rows) > 0


class Deadly:
    """A table whose reading ends its worker."""

    def __init__(self, table, driver):
        self.table, self.driver = table, driver

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.table, name)

    def stream(self, *args, **more):
        if os.getpid() != self.driver:
            os.kill(os.getpid(), signal.SIGKILL)


def test_what_ends_every_worker_is_said_and_not_tried_for_ever(ray, tabular, unit, tmp_path):
    deadly = Deadly(tabular, os.getpid())
    with pytest.raises(WorkersError, match=r"none of 1 workers is left|no worker lived"):
        measured(tmp_path / "run", deadly, unit, ray="local", workers=1)


def test_no_room_for_a_worker_is_said_and_not_waited_for(ray, tabular, monkeypatch):
    from tailcast.pipeline.tasks import ReadTask, read_model
    from tailcast.workers.kit import Kit
    from tailcast.workers.ray import RayWorkers

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    said, kit = [], Kit(RunConfig(**MEASURE), target=tabular)
    workers = RayWorkers(kit, "auto", number=2, say=said.append, patience=2)
    tasks = [ReadTask(f"task {number}") for number in range(20)]
    found = []
    for task, _ in workers.map(read_model, tasks):
        found.append(task.name)
        time.sleep(1.0)
    assert sorted(found) == sorted(task.name for task in tasks)
    assert any("has not started" in one and "1 others are left" in one for one in said)
    workers.close()
    with pytest.raises(WorkersError, match="none of 2 workers is left"):
        list(workers.map(read_model, tasks))
    with pytest.raises(WorkersError, match="no Ray cluster answers at 'ray://127"):
        ray.shutdown()
        RayWorkers(kit, "ray://127.0.0.1:1", number=1, say=said.append)


def test_an_error_in_a_worker_is_the_sentence_that_it_would_be_here(ray, tmp_path, capsys):
    (tmp_path / "queries.jsonl").write_text('{"prompt": "tell me"}\n')
    words = ["estimate", "--model", tmp_path / "none", "--queries", tmp_path / "queries.jsonl"]
    code, _, err = call(capsys, *words, "--out", tmp_path / "run", "--ray", "local")
    assert code == 2 and "is neither a directory nor a gguf file" in " ".join(err.split())


def test_ray_that_is_missing_or_mistyped_is_said(tmp_path, capsys, monkeypatch):
    words = ["estimate", "--model", "m", "--queries", tmp_path / "queries.jsonl", "--out"]
    (tmp_path / "queries.jsonl").write_text('{"prompt": "tell me"}\n')
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    for more, says in [
        (["--ray", "local"], "pip install 'tailcast[ray]'"),
        (["--ray", "here"], "none of local, auto and a ray:// address"),
        (["--workers", "2"], "give ray too"),
        (["--judges", "2"], "judges is for Ray: give ray too"),
        (["--ray", "local", "--judge-gpus", "0.5"], "give judges too"),
        (["--ray", "local", "--judges", "2", "--judge-calls", "9"], "counted in one process"),
    ]:
        code, _, err = call(capsys, *words, tmp_path / "run", *more)
        assert code == 2 and says in " ".join(err.split())


@pytest.mark.parametrize(
    ("resources", "more", "share", "room"),
    [
        ({"GPU": 8, "CPU": 64}, {}, "one GPU", 8),
        ({"GPU": 8, "CPU": 64}, {"device_map": "auto", "gpus_per_worker": 3}, "3 GPUs", 2),
        ({"GPU": 8, "CPU": 64}, {"judges": 3, "judge_gpus": 0.5}, "one GPU", 6),
        (
            {"GPU": 8}, {"judges": 4, "judge_gpus": 1, "device_map": "auto", "gpus_per_worker": 2},
            "2 GPUs", 2,
        ),
        ({"GPU": 8, "CPU": 64}, {"judges": 4, "device": "cpu"}, "one core", 60),
        ({"CPU": 8}, {"judges": 3}, "one core", 5),
        ({"CPU": 8}, {"device_map": "auto", "gpus_per_worker": 2}, "2 GPUs", 0),
    ],
)  # fmt: skip
def test_workers_share_what_judges_leave(resources, more, share, room):
    from tailcast.workers.ray import _share, _words

    found, number = _share(resources, RunConfig(**MEASURE, ray="auto", **more))
    assert (_words(found), number, found["num_cpus"]) == (share, room, 1)


def test_a_model_from_disk_is_loaded_by_the_workers_alone(ray, tmp_path, capsys):
    """Threads of a product do not change its bytes, and the pilot is scored by workers too."""
    model = save_model(tmp_path / "model")
    (tmp_path / "queries.jsonl").write_text('{"prompt": "tell me"}\n{"prompt": "no two"}\n')
    words = ["estimate", "--model", model, "--queries", tmp_path / "queries.jsonl", "--judge"]
    words += ["pattern:two.*two", "--max-new-tokens", 4, "--batch", 32, "--quiet", "--seed", 1]
    words += ["--pairs", pairs(tmp_path), "--layer", 0, "--method", "paper"]
    words += ["--samples", 60, "--pilot-samples", 40]
    assert call(capsys, *words, "--out", tmp_path / "here")[0] == 0
    ray_words = ["--ray", "local", "--workers", 2]
    assert call(capsys, *words, "--out", tmp_path / "there", *ray_words)[0] == 0
    here, there = content(tmp_path / "here"), content(tmp_path / "there")
    for one in (here, there):
        assert one.pop("steering.safetensors")  # its header's fields have no order
    assert here == there


def pairs(folder: Path) -> Path:
    one = '{"prompt": "tell me", "unsafe": "two two two", "safe": "no no no"}\n'
    (folder / "pairs.jsonl").write_text(one * 8)
    return folder / "pairs.jsonl"
