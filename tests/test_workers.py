"""Ray's workers bring the bytes that this process brings, however many they are and die."""

import gc
import os
import signal
import time
from pathlib import Path
from typing import ClassVar

import pytest

from tailcast.config import RunConfig
from tailcast.errors import WorkersError
from tailcast.pipeline import Inputs, run, shards
from tailcast.progress import Progress
from tailcast.store import RunStore
from tailcast.types import Query, SteeringVector
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
    yield module
    module.shutdown()
    gc.collect()  # what it leaves warns when it is collected: here, not in another test


def workers_of(ray) -> list[int]:
    """Process ids of the actors on this machine."""
    import psutil

    mine = psutil.Process().children(recursive=True)
    return [one.pid for one in mine if "ray::Worker" in " ".join(one.cmdline())[:40]]


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
    ]:
        code, _, err = call(capsys, *words, tmp_path / "run", *more)
        assert code == 2 and says in " ".join(err.split())


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
