"""Drawing and judging the missing part of a stage's draws, block after block.

A block is a few consecutive queries; a shard is a range of draws of one query. The shards of
a block that have the same range run together, alone in their batch, on a schedule that depends
on nothing but the block and the range, and every draw is seeded by its name (seed, stage,
query, number): what is on disk never depends on restarts or on when a block was drawn.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tailcast.config import RunConfig
from tailcast.judges import judge_texts, screened
from tailcast.pipeline.tasks import Drawn, DrawTask, Todo, draw_ranges
from tailcast.progress import Progress
from tailcast.proposals import Proposal
from tailcast.sampling import StreamKind, Streams
from tailcast.store import RunStore
from tailcast.types import Judge, Query, SampleBatch, SteeringVector
from tailcast.workers import Kit, Workers

__all__ = [
    "BLOCK_QUERIES",
    "SHARD_DRAWS",
    "Bench",
    "Rows",
    "covered",
    "draw_stage",
    "judge_shard",
    "next_shards",
    "settles",
]

BLOCK_QUERIES = 16
SHARD_DRAWS = 512
LARGEST = 8
"""Shards of draws that end early grow with what there is, up to so many times the usual."""

Law = Callable[[str, int], Proposal]
"""The proposal of a draw, from its query's id and its number."""


@dataclass
class Rows:
    """Rows of a forward pass: planned, and halved when memory runs out."""

    number: int


@dataclass(frozen=True)
class Bench:
    """All that is needed to draw and judge, the same for every stage."""

    store: RunStore
    workers: Workers
    kit: Kit
    rows: Rows
    steering: SteeringVector | None = None
    kinds: Mapping[str, StreamKind] = field(default_factory=dict)

    @property
    def config(self) -> RunConfig:
        """The run's settings."""
        return self.kit.config

    @property
    def judge(self) -> Judge:
        """The run's judge."""
        return self.kit.judge

    @property
    def streams(self) -> Streams:
        """All that its laws are made of; loads the model into this process."""
        return Streams(self.kit.target, self.steering, self.kinds)


def draw_stage(
    bench: Bench, stage: str, queries: Sequence[Query], draws: Mapping[str, int], *, law: Law,
    progress: Progress,
) -> None:  # fmt: skip
    """Draw and judge what is missing of a stage.

    Workers draw; this process alone writes, so that a task done twice is kept once, and asks
    the judge, so that its calls are counted in one place.

    Args:
        bench: What to draw and judge with.
        stage: Name of the stage: "mc", "is", "pilot", "round-0" ...
        queries: The queries.
        draws: How many draws each is to have, by id.
        law: The proposal of each draw.
        progress: Told of every shard.
    """
    shards = {query.id: bench.store.shards(stage, query.id) for query in queries}
    there = sum(min(draws[id], covered(some)) for id, some in shards.items())
    progress.start(stage, sum(draws[query.id] for query in queries), there)
    for query in queries:
        for shard in shards[query.id]:
            judge_shard(bench, stage, query, shard, progress)
    largest = LARGEST if settles(bench) else 1
    todos = _todos(queries, shards, draws, largest)
    tasks = (_task(bench, stage, todo, law) for todo in todos)
    for task, drawn in bench.workers.map(draw_ranges, tasks):
        _keep(bench, task, drawn)
        for batch, (query, shard) in zip(drawn.batches, task.todo, strict=True):
            judge_shard(bench, stage, query, shard, progress, batch=batch)


Shards = dict[str, list[tuple[int, int]]]


def _todos(
    queries: Sequence[Query], there: Shards, draws: Mapping[str, int], largest: int
) -> Iterator[Todo]:
    """What is to be drawn, batch after batch: it follows from what is there alone."""
    shards = {id: sorted(some) for id, some in there.items()}
    for first in range(0, len(queries), BLOCK_QUERIES):
        block = queries[first : first + BLOCK_QUERIES]
        while todo := next_shards(shards, block, draws, largest=largest):
            yield todo
            for query, shard in todo:
                shards[query.id] = sorted({*shards[query.id], shard})


def next_shards(
    shards: Shards, block: Sequence[Query], draws: Mapping[str, int], *, size: int | None = None,
    largest: int = 1,
) -> Todo:  # fmt: skip
    """What to draw next: ranges that were cut short by a kill, or new ones; none when done.

    Args:
        shards: Ranges that are there, by query.
        block: The queries.
        draws: How many each is to have.
        size: Draws of a new range at first.
        largest: A new range is as large as all before it, up to so many times ``size``: where
            most draws end within a few tokens, only many together fill a batch.
    """
    there = {one.id: covered(shards[one.id]) for one in block}
    missing = [there[one.id] for one in block if there[one.id] < draws[one.id]]
    if not missing:
        return ()
    start = min(missing)
    begun = [
        shard[1]
        for one in block
        for shard in shards[one.id]
        if shard[0] == start and shard[1] < draws[one.id]
    ]
    size = size or SHARD_DRAWS
    end = min(begun, default=start + max(size, min(start, largest * size)))
    return [(one, (start, min(end, draws[one.id]))) for one in block if draws[one.id] > start]


def covered(shards: Sequence[tuple[int, int]]) -> int:
    """Number of first draws that are there without a gap."""
    end = 0
    for start, stop in shards:
        if start != end:
            break
        end = stop
    return end


def _task(bench: Bench, stage: str, todo: Todo, law: Law) -> DrawTask:
    """What a worker must know to draw some ranges."""
    config = bench.config
    several = config.continuations if stage.startswith(("is", "round")) else 1
    proposals = [
        [law(query.id, prefix) for prefix in range(start // several, (end - 1) // several + 1)]
        for query, (start, end) in todo
    ]
    return DrawTask(
        stage, todo, proposals, several, bench.rows.number, bench.steering, settles(bench),
        bench.kinds,
    )  # fmt: skip


def settles(bench: Bench) -> bool:
    """Whether draws end as soon as their verdict is certain."""
    return bench.config.settle and bench.judge.settled is not None


def _keep(bench: Bench, task: DrawTask, drawn: Drawn) -> None:
    """Write what is not there yet."""
    if drawn.rows < bench.rows.number:
        bench.rows.number = drawn.rows
    if drawn.rows < task.rows:
        bench.store.note("out_of_memory", f"{task.name}: drawn with {drawn.rows} rows")
    for batch, (query, shard) in zip(drawn.batches, task.todo, strict=True):
        if shard not in bench.store.shards(task.stage, query.id):
            bench.store.write_batch(task.stage, shard, batch)


def judge_shard(
    bench: Bench, stage: str, query: Query, shard: tuple[int, int], progress: Progress,
    *, batch: SampleBatch | None = None,
) -> None:  # fmt: skip
    """Judge a shard, unless that was done; it is read unless it is given."""
    if bench.store.has_verdicts(stage, query.id, shard):
        return
    batch = batch or bench.store.read_batch(stage, query.id, shard)
    ended = [finish == "roulette" for finish in batch.finish]
    shares = None
    if bench.config.screen:
        name = f"{bench.config.seed}/{stage}/{query.id}/{shard[0]}/screen"
        shares = screened(batch.texts, bench.config.screen_share, name)
    draws = f"draws {shard[0]} to {shard[0] + len(batch) - 1} of {stage}"
    verdicts = judge_texts(bench.judge, query, batch.texts, ended=ended, shares=shares, draws=draws)
    bench.store.write_verdicts(stage, query.id, shard, verdicts)
    hits = int(verdicts.hits.sum())
    bench.workers.count(len(batch), hits)
    progress.advance(len(batch), hits)
