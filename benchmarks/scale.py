"""What do 10^5 queries with 10^4 draws each ask of the one process that drives 256 workers?

    python benchmarks/scale.py --rows 1e8 --recorded /tmp/run313

No model. Some queries are drawn by the real driver over workers that exist in code only, which
says what the driver needs for a shard. Their files, copied to as many queries as --rows asks
for, are then put together to estimates by the same pipeline in a process of its own, whose time
and peak memory are measured. Last, a clock plays 10^9 draws on 256 workers: the driver needs what
was measured here, a worker what the file times of a recorded run say (--recorded, else a small
run of the embedded model). Writes benchmarks/results/scale.md.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simulated import HIT_SHARE, TOKENS, Cluster, Simulated, config, measured, queries
from tailcast.data import queries_digest
from tailcast.pipeline.allocation import round_size
from tailcast.pipeline.shards import BLOCK_QUERIES, SHARD_DRAWS
from tailcast.store import RunStore

RESULT = Path(__file__).resolve().parent / "results" / "scale.md"
DRAWS, WORKERS, QUERIES = 10_000, 256, 100_000
SPEEDS = 1, 3, 10, 100  # of workers, in those of the recorded run
KINDS = ("samples", "verdicts", "scores")
ALIKE = ("p", "stderr", "ci_low", "ci_high", "p_low", "n", "n_hits", "ess_hits", "khat", "cost")


@dataclass(frozen=True)
class Driver:
    """What the driver of a simulated run needed.

    Attributes:
        rows: Draws.
        shards: Files of draws.
        drawing: Processor seconds a shard: making tasks, writing draws, judging by a pattern.
        scoring: The same for the scoring of hits.
        reading: The same for reading back, estimating and planning.
        waiting: Seconds a shard on the clock that the processor did not work: the disk's.
    """

    rows: int
    shards: int
    drawing: float
    scoring: float
    reading: float
    waiting: float


def drawn(folder: Path, number: int, draws: int) -> tuple[Driver, list[dict[str, Any]]]:
    """The template: a run of a few queries."""
    measured(folder / "warm", 1, 130, Simulated())
    workers, clock, processor = Simulated(), time.perf_counter(), time.process_time()
    found = measured(folder / "template", number, draws, workers)
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    shards = len(list((folder / "template").glob("samples/*/*/*.parquet")))
    drawing, scoring = workers.spent["DrawTask"], workers.spent["HitsTask"]
    reading = processor - workers.made_up - drawing - scoring
    each = (one / shards for one in (drawing, scoring, reading, max(0.0, clock - processor)))
    return Driver(sum(one.n for one in found), shards, *each), [asdict(one) for one in found]


def spread(template: Path, out: Path, number: int, draws: int) -> None:
    """A run directory of many queries, each with the files of a query of the template."""
    store = RunStore(out)
    facts = {"queries": queries_digest(queries(number)), "model": "simulated", "revision": ""}
    store.check(config(out, draws).model_dump(mode="json"), {**facts, "rows": "512"})
    known = len(list(template.glob("samples/round-0/*")))
    for plan in sorted(template.glob("rounds/*.json")):
        content = json.loads(plan.read_text("utf-8"))
        counts = content["counts"]
        content["counts"] = {f"q{k}": counts[f"q{k % known}"] for k in range(number)}
        store.write_json(f"rounds/{plan.name}", content)
    for folder in (one for kind in KINDS for one in sorted((template / kind).iterdir())):
        to = out / folder.relative_to(template)
        for k in range(number):
            shutil.copytree(folder / f"q{k % known}", to / f"q{k}")


def aggregate(out: Path, number: int, draws: int) -> dict[str, float]:
    """In this process: estimates from a directory that holds all draws."""
    clock, processor = time.perf_counter(), time.process_time()
    measured(out, number, draws, Simulated(drawing=False))
    return {
        "clock": time.perf_counter() - clock,
        "processor": time.process_time() - processor,
        "peak": peak(),
    }


def peak() -> float:
    """Most memory that this process has had at one time, bytes; Linux counts it from its start."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def apart(out: Path, number: int, draws: int) -> dict[str, float]:
    """The same in a process of its own."""
    words = [sys.executable, __file__, "--aggregate", str(out), str(number), str(draws)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def same(out: Path, template: list[dict[str, Any]]) -> int:
    """How many queries have an estimate that is not that of the query they are a copy of."""
    lines = (out / "estimates.jsonl").read_text("utf-8").splitlines()
    rows, wrong = [json.loads(line) for line in lines], 0
    for k, row in enumerate(rows):
        truth = template[k % len(template)]
        wrong += any(row[name] != truth[name] for name in ALIKE)
    return wrong


def sizes(out: Path) -> dict[str, tuple[int, int, int]]:
    """Files of each kind, their bytes, and the bytes that the disk gives them."""
    found = {}
    for kind in KINDS:
        facts = [one.stat() for one in out.glob(f"{kind}/*/*/*.parquet")]
        found[kind] = (
            len(facts), sum(one.st_size for one in facts), sum(one.st_blocks * 512 for one in facts)
        )  # fmt: skip
    return found


def recorded(run: Path) -> tuple[float, float]:
    """Seconds of a draw, and of scoring a hit, by when the files of a run's last round came."""
    store = RunStore(run)

    def hits(stage: str, query_id: str, shard: tuple[int, int]) -> int:
        return len(store.read_scores(stage, query_id, shard).draws)

    return (
        _pace(run, "samples", lambda stage, query_id, shard: shard[1] - shard[0]),
        _pace(run, "scores", hits),
    )


def _pace(run: Path, kind: str, units: Callable[[str, str, tuple[int, int]], int]) -> float:
    """Seconds of a unit from the first block's end on: before it the model was loaded."""
    stage = sorted((run / kind).glob("round-*"))[-1]
    files = sorted(stage.glob("*/*.parquet"), key=lambda one: one.stat().st_mtime)
    counted, begun = files[BLOCK_QUERIES:], files[min(len(files), BLOCK_QUERIES) - 1]
    seconds = files[-1].stat().st_mtime - begun.stat().st_mtime
    number = sum(units(stage.name, one.parent.name, _shard(one)) for one in counted)
    return seconds / max(number, 1)


def _shard(file: Path) -> tuple[int, int]:
    start, end = file.stem.split("-")
    return int(start), int(end)


def small_run(out: Path) -> Path:
    """A run of the embedded model whose times say what a task takes."""
    import tailcast
    from tailcast.models.embedded import asset

    tailcast.estimate(
        "embedded", asset("demo_queries.jsonl"), "refusal", out=out, samples=128,
        pairs=str(asset("demo_pairs.jsonl")), max_new_tokens=32, dtype="bfloat16",
    )  # fmt: skip
    return out


def played(driver: Driver, draw: float, hit: float, *, more: float = 1.0) -> dict[str, float]:
    """10^5 queries with 10^4 draws on 256 workers that are ``more`` times as fast.

    Args:
        driver: What it needs for a shard.
        draw: A worker's seconds of a draw.
        hit: Its seconds of scoring a hit.
        more: By how much workers are faster.
    """
    cluster, done, own = Cluster(WORKERS), 0, 0.0
    blocks = -(-QUERIES // BLOCK_QUERIES)
    while left := DRAWS - done:
        size = round_size(done, left)
        parts = [min(SHARD_DRAWS, size - at) for at in range(0, size, SHARD_DRAWS)]

        def draws(parts: list[int] = parts) -> Iterator[tuple[float, float]]:
            for _ in range(blocks):
                for part in parts:
                    yield driver.drawing * BLOCK_QUERIES, part * BLOCK_QUERIES * draw / more

        cluster.work(draws())
        hits = size * BLOCK_QUERIES * HIT_SHARE
        each = driver.scoring * BLOCK_QUERIES * len(parts), hits * hit / more
        cluster.work(each for _ in range(blocks))
        cluster.now += driver.reading * len(parts) * QUERIES
        own += (driver.drawing + driver.scoring + driver.reading) * len(parts) * QUERIES
        done += size
    return {
        "task": SHARD_DRAWS * BLOCK_QUERIES * draw / more,
        "hours": cluster.now / 3600,
        "busy": cluster.busy / (cluster.now * WORKERS),
        "driver": own / 3600,
    }


def measure(out: Path, rows: int, draws: int) -> dict[str, Any]:
    """A directory of so many rows, and what it took to make and to read it."""
    templates = min(max(rows // draws, 1), max(2, 16 * rows // 10**7), 16)
    shutil.rmtree(out, ignore_errors=True)
    driver, truth = drawn(out, templates, draws)
    number = max(rows * templates // driver.rows, templates)  # cheap draws are drawn the more of
    spread(out / "template", out / "run", number, draws)
    size = sizes(out / "run")
    found = apart(out / "run", number, draws)
    wrong = same(out / "run", truth)
    shutil.rmtree(out)
    rows = sum(truth[k % templates]["n"] for k in range(number))
    shape = {"queries": number, "rows": rows, "templates": templates}
    return {**shape, "driver": driver, "sizes": size, "wrong": wrong, **found}


def page(found: list[dict[str, Any]], source: str, run: Path) -> str:
    """What was measured, in words."""
    big, (draw, hit) = found[0], recorded(run)
    files, bytes_, disk = (sum(one[k] for one in big["sizes"].values()) for k in range(3))
    ten = 10**9 / big["rows"]
    lines = [
        "# 10^9 draws in one run directory",
        "",
        f"Made by `python benchmarks/scale.py` on {platform.machine()}, {os.cpu_count()} cores, "
        f"load average {os.getloadavg()[2]:.1f}: other jobs ran beside it, so seconds are the "
        "processor's unless the clock is named.",
        "",
        "## From draws to estimates",
        "",
        "A run directory that holds all draws, verdicts and scores, and no estimates; then the "
        "pipeline of a run, in a process of its own, which reads round after round, a query at a "
        f"time. Completions of up to {TOKENS} tokens, {HIT_SHARE:.0%} hits, 25 components. The "
        f"files are those of {big['templates']} queries, copied, so each estimate must be that of "
        "the query it is a copy of, as the run that drew it had it.",
        "",
        "| queries | draws | files | GB | rows/s | seconds | on the clock | peak memory | wrong |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        *map(aggregated, found),
        "",
        "| of a draw | bytes |",
        "|---|---:|",
        *(f"| {kind} | {one[1] / big['rows']:.0f} |" for kind, one in big["sizes"].items()),
        f"| all, as the disk counts them | {disk / big['rows']:.0f} |",
        f"| the same in {source}, up to 32 tokens | {bytes_a_draw(run):.0f} |",
        "",
        f"So 10^9 draws are {bytes_ * ten / 1e9:.0f} GB ({disk * ten / 1e9:.0f} GB as the disk "
        f"counts them) in {files * ten / 1e6:.0f} million files, and estimates of them take "
        f"{big['processor'] * ten / 3600:.1f} hours of one core.",
        "",
        *driver_lines(big["driver"]),
        f"## {QUERIES:,} queries with {DRAWS:,} draws on {WORKERS} workers, played",
        "",
        f"A worker takes {draw * 1e3:.1f} ms for a draw and {hit * 1e3:.0f} ms to score a hit: by "
        f"the file times of {source}, the embedded model on one core. The driver takes what the "
        "table above says, but for the disk. Workers wait for it at the end of every round.",
        "",
        "| workers | seconds of a task | hours | workers busy | hours of the driver |",
        "|---|---:|---:|---:|---:|",
        *(played_line(played(big["driver"], draw, hit, more=more), more) for more in SPEEDS),
    ]
    return "\n".join([*lines, ""])


def aggregated(one: dict[str, Any]) -> str:
    files, size = (sum(each[k] for each in one["sizes"].values()) for k in (0, 1))
    return (
        f"| {one['queries']:,} | {one['rows']:,} | {files:,} | {size / 1e9:.2f} | "
        f"{one['rows'] / one['processor']:,.0f} | {one['processor']:,.0f} | "
        f"{one['clock']:,.0f} | {one['peak'] / 2**30:.2f} GiB | {one['wrong']} |"
    )


def bytes_a_draw(run: Path) -> float:
    """As the disk counts them."""
    whole = sum(one[2] for one in sizes(run).values())
    return whole / sum(end - start for start, end in map(_shard, run.glob("samples/*/*/*.parquet")))


def driver_lines(one: Driver) -> list[str]:
    parts = {
        "making its task, writing draws and verdicts, judging by a pattern": one.drawing,
        "having its hits scored": one.scoring,
        "reading it, estimating, planning": one.reading,
        "all": one.drawing + one.scoring + one.reading,
        "on the clock besides: the disk, and other jobs": one.waiting,
    }
    return [
        "## What the driver needs",
        "",
        f"{one.rows:,} draws in {one.shards:,} shards, {one.rows / one.shards:.0f} each, by the "
        "real driver over workers that exist in code only.",
        "",
        "| of a shard | milliseconds |",
        "|---|---:|",
        *(f"| {name} | {seconds * 1e3:.1f} |" for name, seconds in parts.items()),
        "",
    ]


def played_line(one: dict[str, float], more: float) -> str:
    name = "as recorded" if more == 1 else f"{more:,} times as fast"
    return (
        f"| {name} | {one['task']:.2f} | {one['hours']:,.1f} | {one['busy']:.0%} | "
        f"{one['driver']:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda text: int(float(text)), default=10**8)
    parser.add_argument("--recorded", type=Path, help="run directory whose times are taken")
    parser.add_argument("--out", type=Path, default=Path("/tmp/scale"))
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--aggregate", nargs=3)
    given = parser.parse_args()
    if given.aggregate:
        out, number, draws = given.aggregate
        print(json.dumps(aggregate(Path(out), int(number), int(draws))))
        return
    deep = measure(given.out, given.rows, min(DRAWS, max(given.rows // 80, 1)))
    wide = measure(given.out, given.rows // 10, 100)
    run = given.recorded or small_run(given.out / "small")
    source = f"`{run}`" if given.recorded else "a small run"
    given.result.write_text(page([deep, wide], source, run), "utf-8")
    print(given.result.read_text("utf-8"))


if __name__ == "__main__":
    main()
