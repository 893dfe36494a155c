"""Drawing and judging the missing part of a stage's draws, block after block.

A block is a few consecutive queries; a shard is a range of draws of one query. The shards of
a block that have the same range run together, alone in their batch, on a schedule that depends
on nothing but the block and the range, and every draw is seeded by its name (seed, stage,
query, number): what is on disk never depends on restarts or on when a block was drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailcast.judges import judge_texts
from tailcast.progress import Progress
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, draw
from tailcast.store import RunStore
from tailcast.types import (
    Judge,
    Query,
    SampleBatch,
    SamplingSettings,
    SteeringVector,
    Target,
    Verdicts,
)

__all__ = ["BLOCK_QUERIES", "SHARD_DRAWS", "Bench", "Draws", "draw_stage", "read_draws"]

BLOCK_QUERIES = 8
SHARD_DRAWS = 1024

Law = Callable[[str, int], Proposal]
"""The proposal of a draw, from its query's id and its number."""


@dataclass(frozen=True)
class Bench:
    """All that is needed to draw and judge, the same for every stage."""

    store: RunStore
    target: Target
    judge: Judge
    settings: SamplingSettings
    seed: int
    batch: int
    steering: SteeringVector | None = None


@dataclass(frozen=True)
class Draws:
    """The draws of a query in a stage with their verdicts, shards put together.

    Attributes:
        batches: The shards' samples, in order.
        log_weights: log p - log q of each draw, [n].
        verdicts: The shards' verdicts, in order.
    """

    batches: tuple[SampleBatch, ...]
    log_weights: NDArray[np.float64]
    verdicts: tuple[Verdicts, ...]

    @property
    def hits(self) -> NDArray[np.bool_]:
        """H of each draw, [n]; False where the judge failed."""
        return np.concatenate([one.hits for one in self.verdicts])

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Where the judge failed, [n]."""
        return np.concatenate([one.failed for one in self.verdicts])

    @property
    def cost(self) -> dict[str, int]:
        """Token forwards of the draws, and distinct completions that were judged."""
        return {
            "token_forwards": sum(batch.token_forwards for batch in self.batches),
            "judge_calls": sum(len(set(batch.texts)) for batch in self.batches),
        }


def draw_stage(
    bench: Bench, stage: str, queries: Sequence[Query], draws: int, *, law: Law, progress: Progress
) -> None:
    """Draw and judge what is missing of ``draws`` draws of every query.

    Args:
        bench: What to draw and judge with.
        stage: Name of the stage: "mc", "is" or "pilot".
        queries: The queries.
        draws: How many draws each is to have.
        law: The proposal of each draw.
        progress: Told of every shard.
    """
    store = bench.store
    there = sum(min(draws, _covered(store, stage, query.id)) for query in queries)
    progress.start(stage, draws * len(queries), there)
    for first in range(0, len(queries), BLOCK_QUERIES):
        block = queries[first : first + BLOCK_QUERIES]
        for query in block:
            for shard in store.shards(stage, query.id):
                _judge(bench, stage, query, shard, progress)
        while (start := min(_covered(store, stage, query.id) for query in block)) < draws:
            shard = _next_shard(store, stage, block, start, draws)
            _draw(bench, stage, block, shard, law)
            for query in block:
                _judge(bench, stage, query, shard, progress)


def _next_shard(
    store: RunStore, stage: str, block: Sequence[Query], start: int, draws: int
) -> tuple[int, int]:
    """The range to draw next: one that was cut short by a kill, or a new one."""
    begun = [shard for query in block for shard in store.shards(stage, query.id)]
    return next(
        (shard for shard in begun if shard[0] == start), (start, min(start + SHARD_DRAWS, draws))
    )


def read_draws(store: RunStore, stage: str, query_id: str) -> Draws | None:
    """All draws of a query in a stage from disk; None when there are none."""
    shards = store.shards(stage, query_id)
    if not shards:
        return None
    batches = tuple(store.read_batch(stage, query_id, shard) for shard in shards)
    verdicts = tuple(store.read_verdicts(stage, query_id, shard) for shard in shards)
    return Draws(batches, np.concatenate([batch.log_weights for batch in batches]), verdicts)


def _covered(store: RunStore, stage: str, query_id: str) -> int:
    """Number of first draws that are there without a gap."""
    end = 0
    for start, stop in store.shards(stage, query_id):
        if start != end:
            break
        end = stop
    return end


def _draw(
    bench: Bench, stage: str, block: Sequence[Query], shard: tuple[int, int], law: Law
) -> None:
    """Draw a range of every query of a block; keep what is not there yet."""
    prompts = [(query.id, bench.target.encode(query)) for query in block]
    requests = [
        DrawRequest(id, prompt, law(id, number), number, f"{bench.seed}/{stage}/{id}/{number}")
        for id, prompt in prompts
        for number in range(*shard)
    ]
    batches = draw(
        bench.target, requests, bench.settings, steering=bench.steering, slots=bench.batch
    )
    for batch in batches:
        if shard not in bench.store.shards(stage, batch.query_id):
            bench.store.write_batch(stage, shard, batch)


def _judge(
    bench: Bench, stage: str, query: Query, shard: tuple[int, int], progress: Progress
) -> None:
    """Judge a shard, unless that was done."""
    if bench.store.has_verdicts(stage, query.id, shard):
        return
    texts = bench.store.read_batch(stage, query.id, shard).texts
    verdicts = judge_texts(bench.judge, query, texts)
    bench.store.write_verdicts(stage, query.id, shard, verdicts)
    progress.advance(len(texts), int(verdicts.hits.sum()))
