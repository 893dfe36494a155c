"""What laws of the risk are possible, when every measured risk is itself uncertain?

A Bayesian fit that never looks at a point estimate. A query enters by its likelihood, that of so
many hits in so many draws, on a grid of log odds p; one without hits is a bound from above and
nothing else. The law of the log odds is a body below a threshold and a generalised Pareto tail
above it:

    body        the non-parametric maximum likelihood law (Laird 1978), by expectation and
                maximisation, cut at the threshold;
    tail        share, shape and scale on a grid, each weighted by its posterior;
    threshold   several, weighted by what they make of all the data.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailcast.stats.extremes import SHAPE_PRIOR, log_survival, survival_level
from tailcast.stats.risk_laws import EDGES, RiskLaws

__all__ = ["NoisyTail", "fit_noisy_tail"]

SHARES = (0.25, 0.12, 0.06, 0.03)
"""Shares of the queries that the thresholds leave in the tail."""

_FEWEST = 10
_STEPS = 60  # of expectation and maximisation
_SHAPES = np.linspace(-0.5, 0.4, 13)
_SPREAD = np.linspace(-1.2, 1.2, 15)  # of the log scale around its moment estimate
_SHARE_STEPS = np.linspace(-3.0, 3.0, 7)  # standard errors of the log odds of the share
_BODIES = 64
_FORGOTTEN = 1e-4  # laws of less weight than this part of the heaviest are left out


@dataclass(frozen=True)
class NoisyTail:
    """The posterior.

    Attributes:
        laws: Possible laws of a query's risk, with weights.
        shapes: Shape of each law's tail, [K].
        thresholds: Threshold of each law, log odds, [K].
    """

    laws: RiskLaws
    shapes: NDArray[np.float64]
    thresholds: NDArray[np.float64]


@dataclass(frozen=True)
class _Tails:
    """Tails above one threshold, with unnormalised log posterior weights, each [K]."""

    start: int  # edge that is the threshold
    log_weights: NDArray[np.float64]
    shares: NDArray[np.float64]
    shapes: NDArray[np.float64]
    scales: NDArray[np.float64]


def fit_noisy_tail(
    hits: NDArray[np.float64], draws: NDArray[np.float64], *, worth: float = 1.0
) -> NoisyTail:
    """The posterior from hits in draws.

    Args:
        hits: Hits of each query, [m]; of an importance-sampling estimate the effective ones.
        draws: Draws, or what plain draws they are worth, [m]; 0 where nothing is known.
        worth: Queries drawn one by one that each of these is worth, in (0, 1]: the likelihood is
            taken to this power, so that dependent queries do not count as so many witnesses
            (Ribatet et al. 2012, the adjusted magnitude of a composite likelihood).
    """
    pairs, numbers = np.unique(np.column_stack([hits, draws]), axis=0, return_counts=True)
    counts = np.asarray(worth * numbers, dtype=np.float64)
    likelihood = _likelihood(pairs[:, 0], pairs[:, 1])
    law = _population(likelihood, counts)
    above = np.append(np.cumsum(law[::-1])[::-1], 0.0)  # at EDGES
    least = _FEWEST / len(hits)
    starts = {int(np.argmax(above <= max(share, least))) for share in SHARES}
    every = [_tails(likelihood, counts, law, start) for start in sorted(starts)]
    top = max(one.log_weights.max() for one in every)
    every = [_heaviest(one, top + np.log(_FORGOTTEN)) for one in every]
    weights = np.concatenate([np.exp(one.log_weights - top) for one in every])
    bodies = _bodies(likelihood, counts, law)
    survival = np.concatenate([_survival(bodies, one) for one in every])
    thresholds = [np.full(len(one.shapes), EDGES[one.start]) for one in every]
    return NoisyTail(
        laws=RiskLaws(EDGES, survival, weights / weights.sum()),
        shapes=np.concatenate([one.shapes for one in every]),
        thresholds=np.concatenate(thresholds),
    )


def _likelihood(hits: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each query in each cell, its largest value 1, [m, cells]."""
    from scipy.special import log_expit

    middles = (EDGES[:-1] + EDGES[1:]) / 2
    missed = np.maximum(draws - hits, 0.0)
    logs = hits[:, None] * log_expit(middles) + missed[:, None] * log_expit(-middles)
    return np.asarray(np.exp(logs - logs.max(axis=1, keepdims=True)))


def _population(
    likelihood: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Probabilities of the cells that make the data likeliest, nearly, [cells]."""
    law = np.full(likelihood.shape[1], 1 / likelihood.shape[1])
    for _ in range(_STEPS):
        law = law * ((counts / (likelihood @ law)) @ likelihood) / counts.sum()
    return law


def _tails(
    likelihood: NDArray[np.float64],
    counts: NDArray[np.float64],
    law: NDArray[np.float64],
    start: int,
) -> _Tails:
    """All tails of the grid above an edge, weighted by likelihood times prior."""
    edge, total = EDGES[start], counts.sum()
    body = likelihood[:, :start] @ (law[:start] / law[:start].sum())
    middles = (EDGES[start:-1] + EDGES[start + 1 :]) / 2 - edge
    share = float(law[start:].sum())
    centre = max(float(law[start:] @ middles) / share, 0.05)
    shapes, reach = (one.ravel() for one in np.meshgrid(_SHAPES, np.exp(_SPREAD), indexing="ij"))
    scales = centre * reach / survival_level(1.0, shapes, 1.0)
    error = np.sqrt(1 / (share * total + 0.5) + 1 / ((1 - share) * total + 0.5))
    odds = (share * total + 0.5) / ((1 - share) * total + 0.5) * np.exp(error * _SHARE_STEPS)
    shares = odds / (1 + odds)
    inside = np.exp(log_survival((EDGES[start:] - edge)[:, None], shapes, scales))
    tail = likelihood[:, start:] @ (inside[:-1] - inside[1:])  # [m, tails]
    near = likelihood[:, start:].max(axis=1) > 1e-7 * body
    log_prior = -0.5 * ((shapes - SHAPE_PRIOR[0]) / SHAPE_PRIOR[1]) ** 2 + np.log(error)
    log_weights = np.empty((len(shares), len(shapes)))
    for row, one in zip(log_weights, shares, strict=True):
        far = counts[~near] @ np.log(np.maximum((1 - one) * body[~near], 1e-300))
        mixed = (1 - one) * body[near, None] + one * tail[near]
        row[:] = log_prior + far + counts[near] @ np.log(np.maximum(mixed, 1e-300))
        row += 0.5 * np.log(one * (1 - one))  # Jeffreys' prior of a share
    return _Tails(
        start,
        log_weights.ravel(),
        np.repeat(shares, len(shapes)),
        np.tile(shapes, len(shares)),
        np.tile(scales, len(shares)),
    )


def _heaviest(tails: _Tails, least: float) -> _Tails:
    keep = tails.log_weights > least
    columns = (tails.log_weights, tails.shares, tails.shapes, tails.scales)
    return _Tails(tails.start, *(one[keep] for one in columns))


def _bodies(
    likelihood: NDArray[np.float64], counts: NDArray[np.float64], law: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Laws that the choice of queries might as well have led to, [_BODIES, cells].

    The Bayesian bootstrap (Rubin 1981) of one more step of expectation and maximisation; a
    fixed set, so that equal input gives equal output.
    """
    rng = np.random.default_rng(20_250_224)
    repeated = rng.gamma(counts, size=(_BODIES, len(counts)))
    laws = law * ((repeated / (likelihood @ law)) @ likelihood)
    return np.asarray(laws / laws.sum(axis=1, keepdims=True))


def _survival(bodies: NDArray[np.float64], tails: _Tails) -> NDArray[np.float64]:
    """P(log odds > edge) under each tail with one of the bodies below it, [K, edges]."""
    start = tails.start
    bodies = np.cumsum(bodies[:, :start][:, ::-1], axis=1)[:, ::-1]
    body = (bodies / bodies[:, :1])[np.arange(len(tails.shapes)) % _BODIES]
    tail = np.exp(log_survival(EDGES[start:] - EDGES[start], tails.shapes[:, None],
                               tails.scales[:, None]))  # fmt: skip
    below = tails.shares[:, None] + (1 - tails.shares[:, None]) * body
    return np.concatenate([below, tails.shares[:, None] * tail], axis=1)
