"""Does a run on a cluster bring the bytes of one process, whatever dies, and what does it cost?

    pip install 'tailcast[ray]'
    python benchmarks/cluster.py --out /tmp/cluster

makes a cluster of a head and two nodes on this machine with Ray's own utilities, runs 200 shards
of the embedded model on it while a worker, a node, the driver and a node that is not replaced
are killed, compares every file with a run in one process, measures what Ray costs, and writes
benchmarks/results/cluster.md.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from tailcast.models.embedded import asset

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "cluster.md"
SHARDS, BLOCK, DRAWS, TOKENS = 200, 4, 16, 8
PATIENCE = 60.0


def queries(folder: Path) -> Path:
    """As many queries as shards: those of the demo with numbers."""
    lines = asset("demo_queries.jsonl").read_text("utf-8").splitlines()
    known = [json.loads(line)["prompt"] for line in lines]
    rows = [{"id": f"q{k:03d}", "prompt": f"{known[k % len(known)]} ({k})"} for k in range(SHARDS)]
    path = folder / "queries.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def drive(out: Path, asked: Path, ray: str | None, workers: int | None) -> None:
    """One run; what was said and when draws came goes beside its directory."""
    from tailcast.config import RunConfig
    from tailcast.pipeline import run, shards
    from tailcast.progress import Progress
    from tailcast.workers import ray as by_ray

    shards.BLOCK_QUERIES, by_ray.PATIENCE = BLOCK, PATIENCE
    log = out.with_suffix(".log").open("a", buffering=1)

    class Logged(Progress):
        def say(self, message: str) -> None:
            log.write(json.dumps([time.time(), message]) + "\n")

        def advance(self, draws: int, hits: int) -> None:
            log.write(json.dumps([time.time(), draws]) + "\n")

    config = RunConfig(
        model="embedded", dtype="float32", queries=str(asked), judge="refusal", samples=DRAWS,
        max_new_tokens=TOKENS, batch=64, ray=ray, workers=workers, out=str(out),
    )  # fmt: skip
    run(config, progress=Logged())


def started(out: Path, address: str | None = None, ray: str | None = None, workers: int = 0) -> Any:
    """A driver in a process of its own."""
    words = [sys.executable, __file__, "--drive", str(out)]
    words += ["--ray", ray, "--workers", str(workers)] if ray else []
    env = os.environ | ({"RAY_ADDRESS": address} if address else {})
    return subprocess.Popen(words, env=env)


def finished(driver: Any) -> None:
    if driver.wait(timeout=3600) != 0:
        raise SystemExit(f"a driver ended with {driver.returncode}")


def logged(out: Path) -> list[tuple[float, Any]]:
    lines = out.with_suffix(".log").read_text("utf-8").splitlines()
    return [tuple(json.loads(line)) for line in lines]


def steady_seconds(out: Path) -> float:
    """From the first judged shard to the last: without starts and loading."""
    times = [at for at, what in logged(out) if isinstance(what, int)]
    return times[-1] - times[0]


def content(out: Path) -> dict[str, bytes]:
    files = {str(p.relative_to(out)): p for p in out.rglob("*") if p.is_file()}
    return {n: p.read_bytes() for n, p in files.items() if n not in ("manifest.json", ".lock")}


def when(out: Path, shards: int, driver: Any, do: Callable[[], Any]) -> None:
    """Do something once so many shards are written."""
    while len(list(out.glob("samples/*/*/*.parquet"))) < shards:
        if driver.poll() is not None:
            raise SystemExit(f"the driver ended with {driver.returncode} before {shards} shards")
        time.sleep(0.1)
    do()


def kill_a_worker() -> None:
    own = psutil.Process().children(recursive=True)
    pids = [one.pid for one in own if one.name().startswith("ray::Worker")]
    os.kill(pids[0], signal.SIGKILL)


def with_deaths(out: Path) -> dict[str, int]:
    """The run on two nodes, with four deaths."""
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112, as the run in one process has
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    driver = started(out, cluster.address, "auto", 2)
    when(out, 40, driver, kill_a_worker)
    when(out, 80, driver, lambda: cluster.remove_node(nodes[0], allow_graceful=False))
    cluster.add_node(num_cpus=1)
    when(out, 120, driver, driver.kill)
    driver.wait()
    kept = len(list(out.glob("samples/*/*/*.parquet")))
    driver = started(out, cluster.address, "auto", 2)
    when(out, 140, driver, lambda: cluster.remove_node(nodes[1], allow_graceful=False))
    finished(driver)
    cluster.shutdown()
    return {"kept": kept}


def costs(folder: Path, times: int) -> dict[str, list[float]]:
    """Seconds in this process and by one worker, in turn."""
    found: dict[str, list[float]] = {"alone": [], "one worker": []}
    for turn in range(times):
        for name, ray in (("alone", None), ("one worker", "local")):
            out = folder / f"{name.replace(' ', '-')}-{turn}"
            finished(started(out, ray=ray, workers=1))
            found[name].append(steady_seconds(out))
    return found


def report(folder: Path, deaths: dict[str, int], seconds: dict[str, list[float]]) -> str:
    alone, shared = content(folder / "alone-0"), content(folder / "deaths")
    same = {"with the deaths": alone == shared}
    if seconds["one worker"]:
        same["by one worker"] = alone == content(folder / "one-worker-0")
    drawn = sum(isinstance(what, int) for _, what in logged(folder / "deaths"))
    said = [what for _, what in logged(folder / "deaths") if str(what).startswith("Worker ")]
    lines = [
        f"# {SHARDS} shards on a cluster of two nodes, with four deaths",
        "",
        f"Made by `python benchmarks/cluster.py` on {platform.machine()}, {os.cpu_count()} cores, "
        f"load average {os.getloadavg()[2]:.1f}: other jobs ran beside it. Head and nodes are "
        "processes of one machine (`ray.cluster_utils.Cluster`). The embedded model in float32, "
        f"{SHARDS} queries with {DRAWS} draws of {TOKENS} tokens; {BLOCK} queries to a task, where "
        "a run has 16 queries with 512 draws: tasks are far smaller than a real one's.",
        "",
        "| killed | at shard |",
        "|---|---:|",
        "| a worker, SIGKILL | 40 |",
        "| a node, another one added | 80 |",
        f"| the driver, SIGKILL; {deaths['kept']} shards were on disk when it ended | 120 |",
        "| a node, none added, after the driver was started again | 140 |",
        "",
        "| | |",
        "|---|---:|",
        f"| files of the run | {len(shared)} |",
        *(f"| identical to the run in one process, {n} | {'yes' if s else 'NO'} |"
          for n, s in same.items()),
        f"| shards that a driver reported (one kill may fall between writing and that) | {drawn} |",
        *cost_lines(seconds),
        "",
        "What was said of the workers:",
        "",
        *(f"- {one}" for one in said),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def cost_lines(seconds: dict[str, list[float]]) -> list[str]:
    """What Ray costs; the pairs were run in turn."""
    pairs = list(zip(seconds["alone"], seconds["one worker"]))
    if not pairs:
        return ["| what Ray costs against one process | not measured |"]
    return [
        f"| seconds in one process, first to last shard | {numbers(seconds['alone'])} |",
        f"| by one worker, in turn with it | {numbers(seconds['one worker'])} |",
        f"| pair by pair | {', '.join(f'{b / a - 1:+.0%}' for a, b in pairs)} |",
        f"| the middle one | {median(b / a - 1 for a, b in pairs):+.0%} |",
    ]


def numbers(some: list[float]) -> str:
    return ", ".join(f"{one:.0f}" for one in some)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("/tmp/cluster"))
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--drive", type=Path)
    parser.add_argument("--ray")
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    if given.drive:
        drive(given.drive, given.drive.parent / "queries.jsonl", given.ray, given.workers)
        return
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    queries(given.out)
    deaths = with_deaths(given.out / "deaths")
    print(deaths, flush=True)
    seconds = costs(given.out, given.times)
    text = report(given.out, deaths, seconds)
    RESULT.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
