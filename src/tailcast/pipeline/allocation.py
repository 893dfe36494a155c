"""How many draws of which component does every query get in the next round?

The budget of a round is what its size in draws of the first round would have cost. Cheap
components, the target above all where its answers are alike, are drawn the more of.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailcast.mixtures import LEARNING, allocate, streams_of
from tailcast.pipeline.weigh import Work
from tailcast.proposals import Proposal
from tailcast.stats import Estimate, Round, draw_shares, pooled_shares, query_shares

__all__ = ["Spent", "first_round", "next_round"]

_FIRST = 128  # draws of a query in a round, at least
_GROWTH = 0.5  # a round is at least this share of all draws before it
_MOST, _LEAST = 32, 1 / 8  # draws of a query in a round, in sizes of the round
_SPREAD = (0.25, 4.0)  # budget of a query in a round, in mean budgets
_DROPPED = 0.02  # share of the budget below which a stream is no longer worth its forwards


@dataclass(frozen=True)
class Spent:
    """What is known of a query: its rounds, what they cost, its estimate so far."""

    rounds: Sequence[Round]
    works: Sequence[Work]
    estimate: Estimate | None


def round_size(done: int, left: int) -> int:
    """Draws of a query in the next round: more, the more there were before."""
    return min(left, max(_FIRST, int(_GROWTH * done)))


def first_round(
    ids: Iterable[str], components: Sequence[Proposal], done: int, left: int, least: float
) -> dict[str, Any]:
    """Even draws of every component, but at least a share ``least`` of the target.

    A stream that learns from hits has nothing to go by yet and gets none.
    """
    size = round_size(done, left)
    shares = np.array([one.kind != LEARNING for one in components], dtype=float)
    counts = allocate(shares / shares.sum(), size, least=least)
    streams = list(range(len(components)))
    return {"size": size, "streams": streams, "counts": dict.fromkeys(ids, counts)}


def next_round(
    spent: Mapping[str, Spent], ids: Sequence[str], components: Sequence[Proposal],
    usable: Sequence[int], done: int, left: int, least: float,
) -> dict[str, Any]:  # fmt: skip
    """Draws by the hits so far, the costs, and the errors.

    Args:
        spent: What is known of every query.
        ids: Those that go on.
        components: J of them.
        usable: Indices of those that every round so far scored its hits under.
        done: Draws of a query before, in sizes of the rounds.
        left: Draws that it may still have.
        least: Least share of the target's draws.
    """
    size, rounds = round_size(done, left), [one.rounds for one in spent.values()]
    paid = _costs([one.works for one in spent.values()])
    costs = np.where(np.isin(np.arange(len(components)), usable), paid, np.inf)
    kept = _worth_it(components, pooled_shares(rounds, costs))
    costs = np.where(kept, costs, np.inf)
    pooled = pooled_shares(rounds, costs)
    budget = size * _first_cost([one.works[0] for one in spent.values()])
    counts = {}
    for id, boost in _boosts({id: spent[id].estimate for id in ids}).items():
        shares = draw_shares(query_shares(spent[id].rounds, pooled, costs), costs)
        wanted = boost * budget / float(shares @ paid)
        n = int(np.clip(wanted, max(1.0, _LEAST * size), _MOST * size))
        counts[id] = allocate(shares, n, least=least)
    streams = [int(one) for one in np.flatnonzero(np.isfinite(costs))]
    shown = {str(one): round(float(b), 4) for one, b in zip(components, pooled) if b >= 5e-4}
    return {"size": size, "streams": streams, "counts": counts, "budget_shares": shown}


def _costs(works: Sequence[Sequence[Work]]) -> NDArray[np.float64]:
    """Cost of a draw of each component, in the last round that drew it, [J].

    One that no round drew, as a stream that learns at first, is taken to cost what all do in
    the mean.
    """
    costs = np.full(len(works[0][0].draws), _first_cost([one[0] for one in works]))
    for number in range(max(map(len, works))):
        some = [one[number] for one in works if len(one) > number]
        draws, cost = sum(one.draws for one in some), sum(one.cost for one in some)
        costs = np.where(draws > 0, cost / np.maximum(draws, 1), costs)
    return costs


def _first_cost(works: Sequence[Work]) -> float:
    """Mean cost of a draw of the first round."""
    return float(sum(one.cost.sum() for one in works) / sum(one.draws.sum() for one in works))


def _worth_it(components: Sequence[Proposal], pooled: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The target, and the components whose stream has a share of the budget worth having."""
    kept = np.array([one.is_target for one in components])
    for stream in streams_of(components):
        mine = np.array([not one.is_target and one.stream == stream for one in components])
        if pooled[mine].sum() >= _DROPPED:
            kept |= mine
    return np.asarray(kept)


def _boosts(estimates: Mapping[str, Estimate | None]) -> dict[str, float]:
    """Budget of each query in mean ones: by its relative error, which is 1 without hits."""
    errors = {
        id: min(1.0, one.stderr / one.p) if one and one.p and one.stderr else 1.0
        for id, one in estimates.items()
    }
    mean = float(np.mean(list(errors.values())))
    return {id: float(np.clip(error / mean, *_SPREAD)) for id, error in errors.items()}
