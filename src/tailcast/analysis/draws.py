"""What did a run draw of a query, what did the judge say of it, and what do its hits weigh?

Read from a run directory alone: no model is loaded, nothing is drawn.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailcast.errors import StoreError
from tailcast.mixtures import Mixture, log_ratios
from tailcast.proposals import Proposal
from tailcast.stats import Round
from tailcast.store import RunStore
from tailcast.types import SampleBatch, Scores, Verdicts

__all__ = [
    "Draws",
    "first_tokens",
    "mixture_of",
    "mixtures_of",
    "read_draws",
    "read_round",
]


@dataclass(frozen=True)
class Draws:
    """The draws of a query in a stage with their verdicts, shards put together.

    Attributes:
        batches: The shards' samples, in order.
        verdicts: The shards' verdicts, in order.
        scoring: Token forwards that the scoring of the hits took; 0 where none was.
    """

    batches: tuple[SampleBatch, ...]
    verdicts: tuple[Verdicts, ...]
    scoring: int = 0

    @cached_property
    def log_weights(self) -> NDArray[np.float64]:
        """Log p - log q of each draw, [n]."""
        return np.concatenate([batch.log_weights for batch in self.batches])

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
        """Token forwards of the draws, and distinct completions that the judge had to score."""
        scored = [
            {
                text
                for text, finish, share in zip(batch.texts, batch.finish, one.shares, strict=True)
                if share and finish not in ("settled", "roulette")
            }
            for batch, one in zip(self.batches, self.verdicts, strict=True)
        ]
        return {
            "token_forwards": self.scoring + sum(batch.token_forwards for batch in self.batches),
            "judge_calls": sum(map(len, scored)),
        }


def read_draws(store: RunStore, stage: str, query_id: str) -> Draws:
    """All draws of a query in a stage from disk.

    Raises:
        StoreError: If there are none, or a file is damaged.
    """
    shards = store.shards(stage, query_id)
    if not shards:
        raise StoreError(f"{store.path} holds no draws of {query_id} in {stage}: run it again.")
    verdicts = tuple(store.read_verdicts(stage, query_id, shard) for shard in shards)
    batches = tuple(
        _weighted(store.read_batch(stage, query_id, shard), one.shares)
        for shard, one in zip(shards, verdicts, strict=True)
    )
    return Draws(batches, verdicts)


def _weighted(batch: SampleBatch, shares: NDArray[np.float64]) -> SampleBatch:
    """The batch with draws that a screen let through to the judge counting for the others."""
    added = -np.log(np.where(shares > 0, shares, 1.0))
    return replace(batch, log_roulette=batch.log_roulette + added)


def mixtures_of(store: RunStore, query_id: str) -> Iterator[tuple[str, Mixture]]:
    """Stage and mixture of every round that a query had draws in, in order."""
    for stage, plan in store.rounds():
        mixture = mixture_of(plan, query_id)
        if mixture is not None:
            yield stage, mixture


def mixture_of(plan: Mapping[str, Any], query_id: str) -> Mixture | None:
    """What a round's plan let a query be drawn from; None if it had no draws in it."""
    counts = plan["counts"].get(query_id)
    if counts is None:
        return None
    return Mixture(tuple(Proposal(*one) for one in plan["components"]), tuple(counts))


def read_round(
    store: RunStore, stage: str, query_id: str, mixture: Mixture, *, continuations: int = 1,
    failed_hit: bool = False,
) -> tuple[Round, Draws]:  # fmt: skip
    """A round of one query, with the draws that it is made of.

    Args:
        store: Where it lies.
        stage: Name of the round's stage.
        query_id: Which query.
        mixture: Its components and their draws (prefixes, where each has several continuations).
        continuations: Of each prefix.
        failed_hit: Whether completions that the judge failed on count as hits.
    """
    draws = read_draws(store, stage, query_id)
    scored = [store.read_scores(stage, query_id, one) for one in store.shards(stage, query_id)]
    ratios = np.concatenate([_ratios(mixture.components, one) for one in scored])
    numbers = np.concatenate([one.draws for one in scored])
    counted = (draws.hits | draws.failed)[numbers] if failed_hit else draws.hits[numbers]
    numbers, ratios = numbers[counted], ratios[counted]
    prefixes, first, member = np.unique(
        numbers // continuations, return_index=True, return_inverse=True
    )
    extra = np.concatenate([batch.log_roulette for batch in draws.batches])[numbers]
    values = np.full(len(prefixes), -np.inf)
    np.logaddexp.at(values, member, extra)
    found = Round(
        counts=np.array(mixture.counts),
        component=mixture.index(prefixes),
        log_ratios=ratios[first],
        log_values=values - np.log(continuations),
        draws=numbers[first],
    )
    return found, replace(draws, scoring=sum(one.token_forwards for one in scored))


def first_tokens(
    store: RunStore, stage: str, query_id: str, numbers: NDArray[np.int64]
) -> Iterator[tuple[tuple[int, ...], NDArray[np.float64]]]:
    """First tokens of scored draws, and their log-probabilities under the target.

    Args:
        store: Where they lie.
        stage: Name of their stage.
        query_id: Which query.
        numbers: Which draws; their hits are scored to the longest switch.
    """
    known = {}
    for shard in store.shards(stage, query_id):
        scores, batch = (
            store.read_scores(stage, query_id, shard),
            store.read_batch(stage, query_id, shard),
        )
        for number, logp in zip(scores.draws.tolist(), scores.token_logp, strict=True):
            row = number - shard[0]
            length = min(len(logp), int(batch.lengths[row]))
            known[number] = tuple(batch.tokens[row, :length].tolist()), logp[:length]
    for number in numbers.tolist():
        yield known[number]


def _ratios(components: Sequence[Proposal], scores: Scores) -> NDArray[np.float64]:
    """Log q_j - log p of scored hits; NaN for components of streams that were not scored."""
    known = [
        at for at, one in enumerate(components) if one.is_target or one.stream in scores.streams
    ]
    table = np.full((len(scores.draws), len(components)), np.nan)
    table[:, known] = log_ratios(
        [components[at] for at in known],
        scores.token_logp, scores.token_logs, scores.streams, scores.lengths,
    )  # fmt: skip
    return table
