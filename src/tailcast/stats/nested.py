"""How much do log risks vary within groups and between them, when each is known but roughly?

The model is a random-effects one on y = log10 of the risk,

    y = mean + b + e,   b ~ N(0, between^2) of each group,   e ~ N(0, within^2) of each member,

and what is known of a member is a likelihood over y, of any shape: narrow after many hits,
one-sided without a hit. Nothing is dropped and no noise is taken for spread. Risks above 1 are 1.
All integrals are sums over one grid of y, in which both effects are matrices; the mean is
integrated out with a flat prior, which makes the likelihood of the two variances the restricted
one (Patterson and Thompson 1971).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["NestedFit", "NestedPart", "draw_nested", "fit_nested", "nested_grid"]

Floats = NDArray[np.float64]

STEP = 0.04
"""Width of a cell of the grid, in decades."""
SPREADS = np.geomspace(0.04, 6.0, 20)
"""Standard deviations tried, in decades; the least stands for 0, the largest for any more."""
_ABOVE = 2.0  # decades beyond a risk of 1, where the law of y has its room and every risk is 1
_FINE = 300  # points of an axis of the interpolated likelihood
_TINY = 1e-300


@dataclass(frozen=True)
class NestedPart:
    """A standard deviation, in decades, or a share of the variance.

    Attributes:
        value: Where the restricted likelihood is largest.
        low: Lower end of the profile-likelihood interval; 0 where it reaches the least.
        high: Upper end; infinite where it reaches the largest.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class NestedFit:
    """A fitted population of groups.

    Attributes:
        within: Standard deviation of members around their group.
        between: Standard deviation of groups around the mean.
        share_within: Within's share of the variance of a member.
        mean: Of log10 risk: posterior median and equal-tailed interval.
        grid: Cells of log10 risk, [X].
        members: Likelihood of each member, largest value 1, [members, X].
        groups: Group of each, from 0, [members].
        weights: Posterior of (within, between, mean), [20, 20, X].
    """

    within: NestedPart
    between: NestedPart
    share_within: NestedPart
    mean: NestedPart
    grid: Floats
    members: Floats
    groups: NDArray[np.int64]
    weights: Floats


def nested_grid(lowest: float) -> Floats:
    """Cells of log10 risk from below the lowest that matters to above 1, [X].

    Args:
        lowest: log10 of the smallest risk that anything is known of; likelihoods are taken for
            constant below the grid, four decades lower.
    """
    return np.arange(np.floor(lowest) - 4.0, _ABOVE + STEP / 2, STEP)


def fit_nested(
    members: Floats, groups: NDArray[np.int64], grid: Floats, *, level: float = 0.95
) -> NestedFit:
    """Fit the model.

    Intervals of the variances are where the profile of the restricted likelihood is within half
    a chi-square quantile of its largest, times Bartlett's 1 + 1 / (3 df) (Bartlett 1937).

    Args:
        members: Likelihood of each member in each cell, largest value 1, [members, X].
        groups: Group of each, from 0 without gaps.
        grid: Of :func:`nested_grid`.
        level: Coverage that the intervals aim at.
    """
    table = _log_likelihood(members, groups, _kernels(len(grid)))
    peak = table.max(axis=2, keepdims=True)
    surface = np.log(np.exp(table - peak).sum(axis=2)) + peak[:, :, 0]
    # flat priors: of log within, of between (Gelman 2006), of the mean
    weights = np.exp(table - table.max()) * SPREADS[None, :, None]
    weights /= weights.sum()
    within, between, share = _parts(surface, len(groups), int(groups.max()) + 1, level)
    tail = (1 - level) / 2
    order = np.cumsum(weights.sum(axis=(0, 1)))
    places = [int(np.searchsorted(order, one)) for one in (0.5, tail, 1 - tail)]
    mean = NestedPart(*(float(grid[min(one, len(grid) - 1)]) for one in places))
    return NestedFit(within, between, share, mean, grid, members, groups, weights)


def draw_nested(fit: NestedFit, worlds: int, *, seed: int = 0) -> Floats:
    """log10 risks of all members in worlds drawn from the posterior, [worlds, members].

    Args:
        fit: The fitted model.
        worlds: How many.
        seed: Of the random numbers.
    """
    rng = np.random.default_rng([20_260_426, seed])
    kernels = _kernels(len(fit.grid))
    cells = rng.choice(fit.weights.size, worlds, p=fit.weights.ravel())
    within, between, mean = np.unravel_index(cells, fit.weights.shape)
    found = np.empty((worlds, len(fit.groups)))
    for spread in np.unique(within):
        mine = np.flatnonzero(within == spread)
        centres = _group_logs(fit.members, fit.groups, kernels[spread])
        laws = np.log(kernels[between[mine], mean[mine]] + _TINY)[:, None] + centres
        group = _choose(np.exp(laws - laws.max(axis=2, keepdims=True)), rng)
        for number, one in enumerate(fit.members):
            rows = kernels[spread][group[:, fit.groups[number]]] * one
            found[mine, number] = fit.grid[_choose(rows, rng)]
    jitter: Floats = found + STEP * (rng.random(found.shape) - 0.5)
    return np.minimum(jitter, 0.0)


@lru_cache(2)
def _kernels(cells: int) -> Floats:
    """Chance of each cell around each centre for each spread, [spreads, X, X]; rows sum to 1."""
    from scipy.special import ndtr

    distance = np.arange(cells)[None, :] - np.arange(cells)[:, None]
    edges = STEP * (np.arange(-cells, cells + 1) - 0.5)
    found = np.empty((len(SPREADS), cells, cells))
    for number, spread in enumerate(SPREADS):
        below = ndtr(edges / spread)
        lower, upper = below[distance + cells], below[distance + cells + 1]
        lower[:, 0], upper[:, -1] = 0.0, 1.0
        found[number] = upper - lower
    return found


def _group_logs(members: Floats, groups: NDArray[np.int64], kernel: Floats) -> Floats:
    """Log-likelihood of each group at each centre, [groups, X]."""
    logs = np.log(members @ kernel.T + _TINY)
    found = np.zeros((int(groups.max()) + 1, logs.shape[1]))
    np.add.at(found, groups, logs)
    return found


def _log_likelihood(members: Floats, groups: NDArray[np.int64], kernels: Floats) -> Floats:
    """Log-likelihood of (within, between, mean), [spreads, spreads, X]."""
    logs = np.stack([_group_logs(members, groups, one) for one in kernels])
    peaks = logs.max(axis=2, keepdims=True)
    flat = np.exp(logs - peaks).reshape(-1, logs.shape[2])
    found = np.empty((len(kernels), len(kernels), logs.shape[2]))
    for number, kernel in enumerate(kernels):
        smooth = np.log(flat @ kernel.T + _TINY).reshape(logs.shape) + peaks
        found[:, number] = smooth.sum(axis=1)
    return found


def _parts(
    surface: Floats, members: int, groups: int, level: float
) -> tuple[NestedPart, NestedPart, NestedPart]:
    """Within, between and within's share, from the restricted log-likelihood of both."""
    from scipy.interpolate import RectBivariateSpline
    from scipy.stats import chi2

    axis = np.log(SPREADS)
    fine = np.linspace(axis[0], axis[-1], _FINE)
    heights = RectBivariateSpline(axis, axis, surface)(fine, fine)
    best = np.unravel_index(int(heights.argmax()), heights.shape)
    sizes = np.exp(fine)
    sizes[0] = 0.0
    total = sizes[:, None] ** 2 + sizes[None, :] ** 2
    total[0, 0] = np.inf  # no spread has no shares
    share = sizes[:, None] ** 2 / total
    values = (
        (np.broadcast_to(sizes[:, None], heights.shape), members - groups, sizes[-1]),
        (np.broadcast_to(sizes[None, :], heights.shape), groups - 1, sizes[-1]),
        (share, groups - 1, np.inf),
    )
    found = []
    for value, df, most in values:
        cut = chi2.ppf(level, 1) * (1 + 1 / (3 * df)) / 2 if df else np.inf
        inside = value[heights >= heights[best] - cut]
        high = float(inside.max())
        found.append(
            NestedPart(float(value[best]), float(inside.min()), high if high < most else np.inf)
        )
    return found[0], found[1], found[2]


def _choose(rows: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """A cell for each row, as likely as its weight, [...] of [..., X]."""
    order = np.cumsum(rows, axis=-1)
    below = order < rng.random((*rows.shape[:-1], 1)) * order[..., -1:]
    found: NDArray[np.int64] = below[..., :-1].sum(axis=-1)
    return found
