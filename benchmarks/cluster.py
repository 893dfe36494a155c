"""Does a run on a cluster bring the bytes of one process, whatever dies, and what does it cost?

    pip install 'tailcast[ray]'
    python benchmarks/cluster.py --out /tmp/cluster
    python benchmarks/cluster.py --out /tmp/cluster --part costs

makes a cluster of a head and two nodes on this machine with Ray's own utilities, runs 200 shards
of the embedded model on it while a worker, a node, the driver and a node that is not replaced
are killed, and compares every file with a run in one process. Then it runs tasks of a longer run
in one process and by one worker in turn, each with one thread, compares time and processor
seconds of all processes of each, and the files of one, two and four workers. A part that is not
asked for is kept in benchmarks/results/cluster.md.
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
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from tailcast.models.embedded import asset

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "cluster.md"
SHARDS, BLOCK, DRAWS, TOKENS = 200, 4, 16, 8
LONGER = 48, 4, 64, 16  # the same of the run whose cost is compared
PATIENCE = 60.0
COSTS = "## What Ray costs"


def queries(folder: Path, number: int) -> Path:
    """As many queries as there are to be shards: those of the demo with numbers."""
    lines = asset("demo_queries.jsonl").read_text("utf-8").splitlines()
    known = [json.loads(line)["prompt"] for line in lines]
    rows = [{"id": f"q{k:03d}", "prompt": f"{known[k % len(known)]} ({k})"} for k in range(number)]
    path = folder / "queries.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def drive(out: Path, asked: Path, ray: str | None, workers: int | None, longer: bool) -> None:
    """One run; what was said and when draws came goes beside its directory."""
    from tailcast.config import RunConfig
    from tailcast.pipeline import run, shards
    from tailcast.progress import Progress
    from tailcast.workers import ray as by_ray

    _, block, draws, tokens = LONGER if longer else (SHARDS, BLOCK, DRAWS, TOKENS)
    shards.BLOCK_QUERIES, by_ray.PATIENCE = block, PATIENCE
    log = out.with_suffix(".log").open("a", buffering=1)

    class Logged(Progress):
        def say(self, message: str) -> None:
            log.write(json.dumps([time.time(), message, processor()]) + "\n")

        def advance(self, draws: int, hits: int) -> None:
            log.write(json.dumps([time.time(), draws, processor()]) + "\n")

    config = RunConfig(
        model="embedded", dtype="float32", queries=str(asked), judge="refusal", samples=draws,
        max_new_tokens=tokens, batch=64, ray=ray, workers=workers, out=str(out),
    )  # fmt: skip
    run(config, progress=Logged())
    log.write(json.dumps([time.time(), "end", processor()]) + "\n")


def processor() -> float:
    """Processor seconds of this process and all that it started: Ray's are among them."""
    total, own = 0.0, psutil.Process()
    for one in (own, *own.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def started(
    out: Path, address: str | None = None, ray: str | None = None, workers: int = 0, *,
    longer: bool = False,
) -> Any:  # fmt: skip
    """A driver in a process of its own."""
    words = [sys.executable, __file__, "--drive", str(out)]
    words += ["--ray", ray, "--workers", str(workers)] if ray else []
    words += ["--longer"] if longer else []
    env = os.environ | ({"RAY_ADDRESS": address} if address else {})
    return subprocess.Popen(words, env=env)


def finished(driver: Any) -> None:
    if driver.wait(timeout=3600) != 0:
        raise SystemExit(f"a driver ended with {driver.returncode}")


def logged(out: Path) -> list[tuple[float, Any, float]]:
    lines = out.with_suffix(".log").read_text("utf-8").splitlines()
    return [tuple(json.loads(line)) for line in lines]


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


@dataclass(frozen=True)
class Cost:
    """Seconds of a run on the clock and of all its processors.

    Attributes:
        whole: Clock, from the start of the process.
        steady: Clock, from the first judged shard to the last: without starts and loading.
        processors: Of the whole.
        working: Of the steady part.
    """

    whole: float
    steady: float
    processors: float
    working: float


def cost(out: Path, ray: str | None = None, workers: int = 0) -> Cost:
    begun = time.time()
    finished(started(out, ray=ray, workers=workers, longer=True))
    lines = logged(out)
    shards = [line for line in lines if isinstance(line[1], int)]
    (first, _, before), (last, _, after), end = shards[0], shards[-1], lines[-1]
    return Cost(end[0] - begun, last - first, max(line[2] for line in lines), after - before)


def costs(folder: Path, times: int) -> str:
    """What Ray costs, and whether the number of workers changes anything."""
    queries(folder, LONGER[0])
    found: dict[str, list[Cost]] = {"alone": [], "one": []}
    for turn in range(times):
        found["alone"].append(cost(folder / f"alone-{turn}"))
        found["one"].append(cost(folder / f"one-{turn}", "local", 1))
        print(turn, found["alone"][-1], found["one"][-1], flush=True)
    alone, same = content(folder / "alone-0"), {}
    for number, out in ((1, "one-0"), (2, "two"), (4, "four")):
        if number > 1:
            cost(folder / out, "local", number)
        same[number] = content(folder / out) == alone
    return "\n".join(cost_lines(found, same, len(alone)))


def report(folder: Path, deaths: dict[str, int]) -> str:
    alone, shared = content(folder / "plain"), content(folder / "deaths")
    whats = [what for _, what, _ in logged(folder / "deaths")]
    drawn = sum(isinstance(what, int) for what in whats)
    said = [what for what in whats if str(what).startswith("Worker ")]
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
        f"| identical to the run in one process | {'yes' if alone == shared else 'NO'} |",
        f"| shards that a driver reported (one kill may fall between writing and that) | {drawn} |",
        "",
        "What was said of the workers:",
        "",
        *(f"- {one}" for one in said),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def cost_lines(found: dict[str, list[Cost]], same: dict[int, bool], files: int) -> list[str]:
    """The pairs were run in turn."""
    queries_, block, draws, tokens = LONGER
    rows = {
        "processor seconds, first to last shard": "working",
        "processor seconds, all": "processors",
        "on the clock, first to last shard": "steady",
        "on the clock, all": "whole",
    }
    return [
        COSTS,
        "",
        f"Made by `python benchmarks/cluster.py --part costs` on {platform.machine()}, "
        f"{os.cpu_count()} cores, load average {os.getloadavg()[2]:.1f}: other jobs took the "
        "cores too, so the clock says less than the processor's seconds, which are those of all "
        f"processes, Ray's among them. The embedded model, {queries_} queries with {draws} draws "
        f"of {tokens} tokens, {block} queries to a task, one thread, `--ray local --workers 1`.",
        "",
        "| | in one process | by one worker | pair by pair | the middle one |",
        "|---|---:|---:|---:|---:|",
        *(cost_line(name, found, field) for name, field in rows.items()),
        "",
        f"Files of a run, {files} of them, identical to those of one process: "
        + ", ".join(f"{n} workers {'yes' if s else 'NO'}" for n, s in same.items()) + ".",
        "",
    ]  # fmt: skip


def cost_line(name: str, found: dict[str, list[Cost]], field: str) -> str:
    alone, one = ([getattr(cost, field) for cost in found[who]] for who in ("alone", "one"))
    more = [b / a - 1 for a, b in zip(alone, one, strict=True)]
    return (
        f"| {name} | {numbers(alone)} | {numbers(one)} | "
        f"{', '.join(f'{each:+.0%}' for each in more)} | {median(more):+.0%} |"
    )


def numbers(some: list[float]) -> str:
    return ", ".join(f"{one:.0f}" for one in some)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("/tmp/cluster"))
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--part", choices=("deaths", "costs", "both"), default="both")
    parser.add_argument("--drive", type=Path)
    parser.add_argument("--longer", action="store_true")
    parser.add_argument("--ray")
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    if given.drive:
        asked = given.drive.parent / "queries.jsonl"
        drive(given.drive, asked, given.ray, given.workers, given.longer)
        return
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    first, _, second = RESULT.read_text("utf-8").partition(COSTS)
    second = COSTS + second
    if given.part != "costs":
        queries(given.out, SHARDS)
        deaths = with_deaths(given.out / "deaths")
        print(deaths, flush=True)
        finished(started(given.out / "plain"))
        first = report(given.out, deaths)
    if given.part != "deaths":
        second = costs(given.out, given.times)
    RESULT.write_text(f"{first.rstrip()}\n\n{second}", "utf-8")
    print(RESULT.read_text("utf-8"))


if __name__ == "__main__":
    main()
