"""What do a round's hits weigh, and what did its draws cost?

Only hits need a weight. Each is scored once under every stream of the mixture; all
log-probabilities of one weight come from one such scoring (method.md section 5).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailcast.analysis.draws import Draws
from tailcast.mixtures import LEARNING, Mixture, streams_of
from tailcast.pipeline.shards import BLOCK_QUERIES, Bench
from tailcast.pipeline.tasks import ScoreTask, Todo, score_completions
from tailcast.proposals import Proposal
from tailcast.types import Query, Scores

__all__ = ["Work", "own_passes", "score_hits", "work_of"]

# What else costs, in forwards of a token of the target:
_HANDLING = 0.05  # a token of a draw, for its place in the batch, its law and its row on disk
_READING = 1.0  # a token of a distinct text, for a judge that reads whole texts


def score_hits(
    bench: Bench, stage: str, queries: Sequence[Query], components: Sequence[Proposal]
) -> None:
    """Score a stage's hits, block after block, unless that was done.

    A block that a kill cut short is scored whole: what a row is rounded to, and what it
    costs, depends on the rest of its batch.
    """
    tasks = (_task(bench, stage, block, components) for block in _unscored(bench, stage, queries))
    for task, (logp, logs, forwards) in bench.workers.map(score_completions, tasks):
        at = 0
        for number, (query, shard, draws, lengths) in enumerate(task.of):
            mine = slice(at, at + len(draws))
            at += len(draws)
            own = forwards // len(task.of) + (number < forwards % len(task.of))
            found = Scores(draws, logp[mine], logs[mine], lengths, tuple(task.streams), own)
            if not bench.store.has_scores(stage, query.id, shard):
                bench.store.write_scores(stage, query.id, shard, found)


def _unscored(bench: Bench, stage: str, queries: Sequence[Query]) -> Iterator[Todo]:
    """Shards of the blocks that have some without scores."""
    for first in range(0, len(queries), BLOCK_QUERIES):
        block = [
            (query, shard)
            for query in queries[first : first + BLOCK_QUERIES]
            for shard in bench.store.shards(stage, query.id)
        ]
        if not all(bench.store.has_scores(stage, query.id, shard) for query, shard in block):
            yield block


@dataclass(frozen=True)
class _HitsTask(ScoreTask):
    """The hits of some shards; ``of`` says for each which query, shard, draws and lengths."""

    of: Sequence[tuple[Query, tuple[int, int], NDArray[np.int64], NDArray[np.int64]]] = ()


def _task(bench: Bench, stage: str, block: Todo, components: Sequence[Proposal]) -> _HitsTask:
    """What a worker must know to score the hits of some shards in one batch."""
    prompts, completions, rows = [], [], []
    for query, shard in block:
        batch = bench.store.read_batch(stage, query.id, shard)
        verdicts = bench.store.read_verdicts(stage, query.id, shard)
        hits = np.flatnonzero(verdicts.hits | verdicts.failed)
        rows.append((query, shard, batch.draws[hits], batch.lengths[hits]))
        prompts += [query] * len(hits)
        completions += [batch.tokens[row, : batch.lengths[row]].tolist() for row in hits]
    return _HitsTask(
        f"scoring {stage} of {block[0][0].id} to {block[-1][0].id}", prompts, completions,
        streams_of(components), max(one.steered_tokens for one in components),
        bench.rows.number, bench.steering, bench.kinds, rows,
    )  # fmt: skip


def own_passes(bench: Bench, query: Query, components: Sequence[Proposal]) -> list[int]:
    """How many passes besides the target's the draws of each component take."""
    if set(bench.kinds) <= {LEARNING}:  # the model need not be in this process
        return [int(bool(one.strength) and not one.is_target) for one in components]
    streams, prompt = bench.streams, bench.kit.target.encode(query)
    return [streams.own_passes(one, prompt) for one in components]


@dataclass(frozen=True)
class Work:
    """What a query's draws of each component cost in a round.

    Attributes:
        draws: Draws, [J].
        cost: Forwards of distinct prefixes, the handling of every token, the judge's reading, [J].
    """

    draws: NDArray[np.float64]
    cost: NDArray[np.float64]


def work_of(
    draws: Draws, mixture: Mixture, continuations: int, passes: Sequence[int], *, read: bool
) -> Work:
    """What the draws of each component cost, equal prefixes counted once within it.

    Args:
        draws: The draws.
        mixture: What they were drawn from.
        continuations: Of each prefix.
        passes: How many passes beside the target's each component's stream reads, J of them.
        read: Whether a judge read every text to its end.
    """
    number = np.concatenate([batch.draws for batch in draws.batches]) // continuations
    component = mixture.index(number)
    count = np.bincount(component, minlength=len(mixture.counts)).astype(float)
    cost = np.zeros(len(count))
    tokens = np.concatenate([batch.tokens for batch in draws.batches])
    lengths = np.concatenate([batch.lengths for batch in draws.batches])
    for j in map(int, np.flatnonzero(count)):
        mine = component == j
        some, long = tokens[mine], lengths[mine]
        cost[j] = _distinct(some, long) + _HANDLING * float(long.sum())
        if passes[j]:
            before = np.minimum(long, mixture.components[j].steered_tokens)
            cost[j] += passes[j] * _distinct(some, before)
        if read:
            whole = np.unique(np.where(np.arange(some.shape[1]) < long[:, None], some, -1), axis=0)
            cost[j] += _READING * float((whole >= 0).sum())
    return Work(count, cost)


def _distinct(tokens: NDArray[np.int32], lengths: NDArray[np.int64]) -> int:
    """Number of distinct prefixes, the empty one included and the whole rows not."""
    if not len(tokens) or not lengths.any():
        return 0
    kept = np.where(np.arange(tokens.shape[1]) < lengths[:, None] - 1, tokens, -1)
    kept = kept[np.lexsort(kept.T[::-1])]
    own = (kept >= 0).sum(axis=1) + 1
    same = (kept[1:] == kept[:-1]) & (kept[1:] >= 0)
    shared = np.cumprod(same, axis=1).sum(axis=1) + 1
    return int(own.sum() - shared.sum())
