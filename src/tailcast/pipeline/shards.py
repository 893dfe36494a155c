"""Drawing and judging the missing part of a query's draws, shard after shard.

A shard is a range of draws of one query in one stage. It runs alone in its batch, on a
schedule that depends on nothing but the shard, and its draws are seeded by their name
(seed, stage, query, number): what is on disk never depends on the order of the work, on
restarts, or on the other queries of the set.
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

__all__ = ["SHARD_DRAWS", "Bench", "Draws", "draw_stage", "read_draws"]

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
    for query in queries:
        for shard in store.shards(stage, query.id):
            if not store.has_verdicts(stage, query.id, shard):
                _judge(bench, stage, query, shard, progress)
        for start in range(_covered(store, stage, query.id), draws, SHARD_DRAWS):
            shard = (start, min(start + SHARD_DRAWS, draws))
            _draw(bench, stage, query, shard, law)
            _judge(bench, stage, query, shard, progress)


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


def _draw(bench: Bench, stage: str, query: Query, shard: tuple[int, int], law: Law) -> None:
    prompt = bench.target.encode(query)
    requests = [
        DrawRequest(
            query.id, prompt, law(query.id, number), number,
            f"{bench.seed}/{stage}/{query.id}/{number}",
        )
        for number in range(*shard)
    ]  # fmt: skip
    [batch] = draw(
        bench.target, requests, bench.settings, steering=bench.steering, slots=bench.batch
    )
    bench.store.write_batch(stage, shard, batch)


def _judge(
    bench: Bench, stage: str, query: Query, shard: tuple[int, int], progress: Progress
) -> None:
    texts = bench.store.read_batch(stage, query.id, shard).texts
    verdicts = judge_texts(bench.judge, query, texts)
    bench.store.write_verdicts(stage, query.id, shard, verdicts)
    progress.advance(len(texts), int(verdicts.hits.sum()))
