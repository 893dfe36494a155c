"""Which shares of the budget should the components of a mixture get next?

Those that bring the mixture closest to the optimal law, p*h / QRISK: weighted expectation and
maximisation over the hits so far (method.md section 5; Cappe et al. 2008), with each
component's law divided by what a draw of it costs. Maximised is sum_i w_i h_i log sum_j b_j
q_j(x_i) / c_j, which is concave in the shares b of the budget: one optimum.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tailcast.stats.diagnostics import effective_sample_size
from tailcast.stats.rounds import Round

__all__ = ["draw_shares", "evenly_chosen", "pooled_shares", "query_shares"]

Floats = NDArray[np.float64]

_STEPS = 200
_PRIOR_HITS = 10.0  # effective hits that the shares of all queries together are worth
_EXPLORED = 0.1  # share of the budget that stays spread over all components
_EXPLORED_BLIND = 0.5  # the same for a query that has no hit yet
_DROPPED = 0.01  # smaller shares are not worth a component
_POOLED = 1_000_000  # hits of all queries that the pooled shares are found from, about


def pooled_shares(queries: Sequence[Sequence[Round]], costs: Floats) -> Floats:
    """Shares for all queries together, each query counting the same, [J]; equal without hits.

    Of very many hits a part is taken of each query, so that memory does not grow with them.

    Args:
        queries: The rounds of each query.
        costs: Cost of a draw of each component, in any unit; inf for those out of use, [J].
    """
    ratios, weights, own = [np.zeros((0, len(costs)))], [np.zeros(0)], []
    for rounds in queries:
        own_ratios, own_weights = _hits(rounds)
        if len(own_weights):
            own.append(effective_sample_size(np.log(own_weights)))
            own_ratios, own_weights = _fewer(own_ratios, own_weights, _POOLED // len(queries) + 1)
            ratios.append(own_ratios)
            weights.append(own_weights)
    usable = np.isfinite(costs)
    believed = _PRIOR_HITS * len(own) / max(sum(own), 1.0)
    prior = believed * usable / usable.sum()
    return _expectation_maximisation(np.concatenate(ratios), np.concatenate(weights), costs, prior)


def query_shares(rounds: Sequence[Round], pooled: Floats, costs: Floats) -> Floats:
    """Shares for one query, shrunk towards the pooled ones and spread a little, [J].

    Args:
        rounds: Its rounds so far.
        pooled: From :func:`pooled_shares`.
        costs: As there.
    """
    ratios, weights = _hits(rounds)
    usable = np.isfinite(costs)
    uniform = usable / usable.sum()
    if not len(weights):
        return np.asarray((1 - _EXPLORED_BLIND) * pooled + _EXPLORED_BLIND * uniform)
    own = effective_sample_size(np.log(weights))
    shares = _expectation_maximisation(ratios, own * weights, costs, _PRIOR_HITS * pooled)
    shares = np.where(shares < _DROPPED, 0.0, shares)
    return np.asarray((1 - _EXPLORED) * shares / shares.sum() + _EXPLORED * uniform)


def draw_shares(budget_shares: Floats, costs: Floats) -> Floats:
    """Shares of the draws that shares of the budget come to, [J]."""
    draws = np.where(np.isfinite(costs), budget_shares / costs, 0.0)
    return np.asarray(draws / draws.sum())


def _hits(rounds: Sequence[Round]) -> tuple[Floats, Floats]:
    """Log-ratios [hits, J] and weights of sum 1 [hits] of all hits of a query."""
    log_weighted = np.concatenate([one.log_weighted for one in rounds])
    kept = np.isfinite(log_weighted)
    ratios = np.concatenate([one.log_ratios for one in rounds])[kept]
    if not kept.any():
        return ratios, np.zeros(0)
    return ratios, np.exp(log_weighted[kept] - np.logaddexp.reduce(log_weighted[kept]))


def _fewer(ratios: Floats, weights: Floats, most: int) -> tuple[Floats, Floats]:
    """The hits, or so many in proportion to their weights, evenly, and of equal weights."""
    if len(weights) <= most:
        return ratios, weights
    return ratios[evenly_chosen(weights, most)], np.full(most, 1 / most)


def evenly_chosen(weights: Floats, number: int) -> NDArray[np.int64]:
    """Indices of so many, each as often as its weight asks, without randomness, [number].

    Args:
        weights: Of sum 1, [n].
        number: How many.
    """
    evenly = (np.arange(number) + 0.5) / number
    return np.minimum(np.cumsum(weights).searchsorted(evenly), len(weights) - 1)


def _expectation_maximisation(
    log_ratios: Floats, weights: Floats, costs: Floats, prior: Floats
) -> Floats:
    """Shares b that maximise sum_i w_i log sum_j b_j r_ij / c_j + sum_j prior_j log b_j."""
    usable = np.isfinite(costs)
    shares = usable / usable.sum()
    if not len(weights):
        return np.asarray(shares)
    with np.errstate(divide="ignore"):
        log_rates = log_ratios[:, usable] - np.log(costs[usable])
    rates = np.exp(log_rates - log_rates.max(axis=1, keepdims=True))
    found, known = shares[usable], prior[usable]
    for _ in range(_STEPS):
        belongs = rates * found
        belongs /= belongs.sum(axis=1, keepdims=True)
        found = weights @ belongs + known
        found /= found.sum()
    shares = np.zeros(len(costs))
    shares[usable] = found
    return shares
