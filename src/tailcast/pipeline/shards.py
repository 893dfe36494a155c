"""Drawing and judging the missing part of a stage's draws, block after block.

A block is a few consecutive queries; a shard is a range of draws of one query. The shards of
a block that have the same range run together, alone in their batch, on a schedule that depends
on nothing but the block and the range, and every draw is seeded by its name (seed, stage,
query, number): what is on disk never depends on restarts or on when a block was drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tailcast.config import RunConfig
from tailcast.errors import ModelError
from tailcast.judges import is_refusal, judge_texts, screened
from tailcast.models import is_out_of_memory
from tailcast.progress import Progress
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, Stops, StreamKind, Streams, draw, draw_with_engine
from tailcast.store import RunStore
from tailcast.types import (
    Engine,
    Judge,
    Query,
    SampleBatch,
    SteeringVector,
    Target,
)

__all__ = [
    "BLOCK_QUERIES",
    "SHARD_DRAWS",
    "Bench",
    "Rows",
    "Todo",
    "covered",
    "draw_stage",
    "in_memory",
    "judge_shard",
    "next_shards",
    "stops_of",
]

BLOCK_QUERIES = 16
SHARD_DRAWS = 512

Drawn = TypeVar("Drawn")
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
    target: Target
    judge: Judge
    config: RunConfig
    rows: Rows
    steering: SteeringVector | None = None
    engine: Engine | None = None
    kinds: Mapping[str, StreamKind] = field(default_factory=dict)

    @property
    def streams(self) -> Streams:
        """All that its laws are made of."""
        return Streams(self.target, self.steering, self.kinds)


def stops_of(judge: Judge, queries: Sequence[Query], config: RunConfig) -> Stops:
    """What ends completions of these queries early."""
    by_id = {query.id: query for query in queries}

    def settled(query_id: str, text: str) -> int | None:
        try:
            return judge.settled and judge.settled(by_id[query_id], text)
        except Exception:  # the judge is asked again, and heard, about the whole text
            return None

    asks = config.settle and judge.settled is not None
    return Stops(settled if asks else None, is_refusal, config.roulette)


def draw_stage(
    bench: Bench, stage: str, queries: Sequence[Query], draws: Mapping[str, int], *, law: Law,
    progress: Progress,
) -> None:  # fmt: skip
    """Draw and judge what is missing of a stage.

    Args:
        bench: What to draw and judge with.
        stage: Name of the stage: "mc", "is", "pilot", "round-0" ...
        queries: The queries.
        draws: How many draws each is to have, by id.
        law: The proposal of each draw.
        progress: Told of every shard.
    """
    store = bench.store
    there = sum(min(draws[query.id], covered(store, stage, query.id)) for query in queries)
    progress.start(stage, sum(draws[query.id] for query in queries), there)
    for first in range(0, len(queries), BLOCK_QUERIES):
        block = queries[first : first + BLOCK_QUERIES]
        for query in block:
            for shard in store.shards(stage, query.id):
                judge_shard(bench, stage, query, shard, progress)
        while todo := next_shards(store, stage, block, draws):
            _draw(bench, stage, todo, law)
            for query, shard in todo:
                judge_shard(bench, stage, query, shard, progress)


Todo = Sequence[tuple[Query, tuple[int, int]]]
"""Queries with the range of draws that each is to get, all from the same first one."""


def next_shards(
    store: RunStore, stage: str, block: Sequence[Query], draws: Mapping[str, int], *,
    size: int = SHARD_DRAWS,
) -> Todo:  # fmt: skip
    """What to draw next: ranges that were cut short by a kill, or new ones; none when done."""
    there = {one.id: covered(store, stage, one.id) for one in block}
    missing = [there[one.id] for one in block if there[one.id] < draws[one.id]]
    if not missing:
        return ()
    start = min(missing)
    begun = [
        shard[1]
        for one in block
        for shard in store.shards(stage, one.id)
        if shard[0] == start and shard[1] < draws[one.id]
    ]
    end = min(begun, default=start + size)
    return [(one, (start, min(end, draws[one.id]))) for one in block if draws[one.id] > start]


def covered(store: RunStore, stage: str, query_id: str) -> int:
    """Number of first draws that are there without a gap."""
    end = 0
    for start, stop in store.shards(stage, query_id):
        if start != end:
            break
        end = stop
    return end


def _draw(bench: Bench, stage: str, todo: Todo, law: Law) -> None:
    """Draw ranges of the queries of a block; keep what is not there yet."""
    several = bench.config.continuations if stage.startswith(("is", "round")) else 1
    requests = []
    for query, shard in todo:
        prompt, name = bench.target.encode(query), f"{bench.config.seed}/{stage}/{query.id}"
        for number in range(*shard):
            first = number // several
            shared = f"{name}/prefix/{first}" if several > 1 else ""
            proposal = law(query.id, first)
            requests.append(
                DrawRequest(query.id, prompt, proposal, number, f"{name}/{number}", shared)
            )
    block = [query for query, _ in todo]
    start, end = todo[0][1][0], max(shard[1] for _, shard in todo)
    name = f"{stage} of {block[0].id} to {block[-1].id}, draws {start} to {end - 1},"
    found = in_memory(bench, lambda: _drawn(bench, block, requests), name)
    for batch, (query, shard) in zip(found, todo, strict=True):
        if shard not in bench.store.shards(stage, query.id):
            bench.store.write_batch(stage, shard, batch)


def _drawn(
    bench: Bench, block: Sequence[Query], requests: Sequence[DrawRequest]
) -> list[SampleBatch]:
    """Draw requests by our loop, or with an engine past the switches."""
    settings, vector, rows = bench.config.sampling_settings, bench.steering, bench.rows.number
    if bench.engine is not None:
        longest = max(one.steered_tokens for one in bench.config.components)
        return draw_with_engine(
            bench.target, requests, settings, bench.engine,
            steering=vector, kinds=bench.kinds, slots=rows, own_tokens=longest,
        )  # fmt: skip
    stops = stops_of(bench.judge, block, bench.config)
    return draw(
        bench.target, requests, settings,
        steering=vector, kinds=bench.kinds, slots=rows, stops=stops,
    )  # fmt: skip


def in_memory(bench: Bench, draw_all: Callable[[], Drawn], name: str) -> Drawn:
    """What a function draws with the bench's rows; half as many of them when memory runs out.

    The law of the draws is the same, their bytes may not be: the manifest says which.

    Args:
        bench: Whose rows they are.
        draw_all: Draws; called again with fewer rows.
        name: Of what is drawn, for the manifest.

    Raises:
        ModelError: If memory runs out with few rows too.
    """
    before = bench.rows.number
    while True:
        try:
            drawn = draw_all()
            break
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
        if bench.rows.number < 4:
            raise ModelError(
                f"memory ran out with {bench.rows.number} rows in a batch ({reason}): lower "
                "max_new_tokens, or load the model with --bits 4 or on a larger device."
            )
        bench.rows.number //= 2
    if bench.rows.number < before:
        bench.store.note("out_of_memory", f"{name} was drawn with {bench.rows.number} rows")
    return drawn


def judge_shard(
    bench: Bench, stage: str, query: Query, shard: tuple[int, int], progress: Progress
) -> None:
    """Judge a shard, unless that was done."""
    if bench.store.has_verdicts(stage, query.id, shard):
        return
    batch = bench.store.read_batch(stage, query.id, shard)
    ended = [finish == "roulette" for finish in batch.finish]
    shares = None
    if bench.config.screen:
        name = f"{bench.config.seed}/{stage}/{query.id}/{shard[0]}/screen"
        shares = screened(batch.texts, bench.config.screen_share, name)
    verdicts = judge_texts(bench.judge, query, batch.texts, ended=ended, shares=shares)
    bench.store.write_verdicts(stage, query.id, shard, verdicts)
    progress.advance(len(batch), int(verdicts.hits.sum()))
