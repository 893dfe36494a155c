"""Drawing and judging the missing part of a stage's draws, block after block.

A block is a few consecutive queries; a shard is a range of draws of one query. The shards of
a block that have the same range run together, alone in their batch, on a schedule that depends
on nothing but the block and the range, and every draw is seeded by its name (seed, stage,
query, number): what is on disk never depends on restarts or on when a block was drawn.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tailcast.config import RunConfig
from tailcast.pipeline.judging import JudgeFacts, JudgeTask, judge_draws
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
    "judge_shards",
    "next_shards",
    "unjudged",
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

    number: int = 0


@dataclass(frozen=True)
class Bench:
    """All that is needed to draw and judge, the same for every stage."""

    store: RunStore
    workers: Workers
    judges: Workers
    kit: Kit
    facts: JudgeFacts
    rows: Rows = field(default_factory=Rows)
    steering: SteeringVector | None = None
    kinds: Mapping[str, StreamKind] = field(default_factory=dict)
    used: Counter[str] = field(default_factory=Counter)

    @property
    def config(self) -> RunConfig:
        """The run's settings."""
        return self.kit.config

    @property
    def judge(self) -> Judge:
        """The run's judge; built in this process."""
        return self.kit.judge

    @property
    def settles(self) -> bool:
        """Whether draws end as soon as their verdict is certain."""
        return self.config.settle and self.facts.settles

    @property
    def streams(self) -> Streams:
        """All that its laws are made of; loads the model into this process."""
        return Streams(self.kit.target, self.steering, self.kinds)


def draw_stage(
    bench: Bench, stage: str, queries: Sequence[Query], draws: Mapping[str, int], *, law: Law,
    progress: Progress,
) -> None:  # fmt: skip
    """Draw and judge what is missing of a stage.

    Workers draw; this process alone writes, so that a task done twice is kept once. Whoever
    judges is given the next shard when he is free, and only then is the next one that is drawn
    taken from the workers: those wait while judges are behind, and what waits is bounded.

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
    todos = _todos(queries, shards, draws, LARGEST if bench.settles else 1)
    tasks = (_task(bench, stage, todo, law) for todo in todos)

    def waiting() -> Iterator[JudgeTask]:
        known = ((query, shard) for query in queries for shard in shards[query.id])
        yield from unjudged(bench, stage, known)
        for task, drawn in bench.workers.map(draw_ranges, tasks):
            _keep(bench, task, drawn)
            for batch, (query, shard) in zip(drawn.batches, task.todo, strict=True):
                if not bench.store.has_verdicts(stage, query.id, shard):
                    yield _judge_task(stage, query, shard, batch)

    judge_shards(bench, waiting(), progress)


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
        largest: A new range has three times the draws of all before it, up to so many times
            ``size``, and leaves more than ``size`` behind: where most draws end within a few
            tokens, only many together fill a batch.
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
    size, most = size or SHARD_DRAWS, max(draws[one.id] for one in block)
    new = start + max(size, min(3 * start, largest * size))
    if largest > 1 and most - new <= size:
        new = most
    end = min(begun, default=new)
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
        stage, todo, proposals, several, bench.rows.number, bench.steering, bench.settles,
        bench.kinds,
    )  # fmt: skip


def _keep(bench: Bench, task: DrawTask, drawn: Drawn) -> None:
    """Write what is not there yet."""
    if drawn.rows < bench.rows.number:
        bench.rows.number = drawn.rows
    if drawn.rows < task.rows:
        bench.store.note("out_of_memory", f"{task.name}: drawn with {drawn.rows} rows")
    for batch, (query, shard) in zip(drawn.batches, task.todo, strict=True):
        if shard not in bench.store.shards(task.stage, query.id):
            bench.store.write_batch(task.stage, shard, batch)


def unjudged(
    bench: Bench, stage: str, shards: Iterable[tuple[Query, tuple[int, int]]]
) -> Iterator[JudgeTask]:
    """Those of a stage's shards on disk that have no verdicts, each read when it is asked for."""
    for query, shard in shards:
        if not bench.store.has_verdicts(stage, query.id, shard):
            yield _judge_task(stage, query, shard, bench.store.read_batch(stage, query.id, shard))


def judge_shards(bench: Bench, tasks: Iterable[JudgeTask], progress: Progress) -> None:
    """Judge shards and write their verdicts."""
    for task, judged in bench.judges.map(judge_draws, tasks):
        bench.used.update(judged.used)
        bench.store.write_verdicts(task.stage, task.query.id, task.shard, judged.verdicts)
        hits = int(judged.verdicts.hits.sum())
        bench.workers.count(len(task.texts), hits)
        progress.advance(len(task.texts), hits)


def _judge_task(stage: str, query: Query, shard: tuple[int, int], batch: SampleBatch) -> JudgeTask:
    ended = [finish == "roulette" for finish in batch.finish]
    return JudgeTask(stage, query, shard, batch.texts, ended)
