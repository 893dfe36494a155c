"""From which threshold on are excesses generalised Pareto?

Two answers. The automatic rule of Bader, Yan and Zhang (2018): an Anderson-Darling test at every
candidate threshold, and ForwardStop (G'Sell et al. 2016), which bounds the share of good
thresholds among those thrown away. And stability: the lowest threshold whose shape agrees with
the shapes at all higher ones, as one reads off a parameter stability plot (Coles 2001, 4.3.4).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tailcast.stats.extremes import TailFit, fit_tail, log_survival

__all__ = [
    "anderson_darling",
    "candidate_fits",
    "forward_stop",
    "goodness_of_fit",
    "stable_from",
]

FEWEST = 10
"""Excesses that a fit must have."""

_MOST_SHARE = 0.3
_CANDIDATES = 8
_TAILS = np.array([0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.025, 0.01])
_TABLE_SHAPES = np.array([-0.5, -0.25, 0.0, 0.25, 0.5])
_TABLE = np.array(
    [
        [0.272, 0.378, 0.569, 0.893, 1.328, 1.663, 2.117, 2.566],
        [0.223, 0.293, 0.419, 0.607, 0.855, 1.075, 1.348, 1.644],
        [0.209, 0.277, 0.389, 0.570, 0.793, 0.975, 1.205, 1.536],
        [0.201, 0.263, 0.368, 0.529, 0.723, 0.895, 1.051, 1.384],
        [0.195, 0.251, 0.354, 0.502, 0.683, 0.819, 1.013, 1.215],
    ]
)
"""Upper quantiles of the statistic with both parameters fitted by :func:`fit_tail`: 1,500 samples
of 60 excesses at each shape (tests/test_forecast.py draws them anew)."""


def candidate_fits(values: ArrayLike, *, usable: int | None = None) -> list[TailFit]:
    """Fits at thresholds that leave from 30% of the values down to ten of them, lowest first.

    Args:
        values: [m].
        usable: How many of the largest are values proper; the others are bounds, and no
            threshold is laid among them.
    """
    values = np.sort(np.asarray(values, dtype=float))[::-1]
    most = min(int(_MOST_SHARE * len(values)), (usable or len(values)) - 1)
    most = max(most, min(FEWEST, len(values) - 1))
    numbers = np.unique(np.geomspace(min(FEWEST, most), most, _CANDIDATES).astype(int))[::-1]
    thresholds = dict.fromkeys(float(values[number]) for number in numbers)
    found = []
    for threshold in thresholds:
        above = np.unique(values[values > threshold])
        if len(above) >= FEWEST // 2:
            found.append(fit_tail(values, threshold))
    return found


def anderson_darling(values: ArrayLike, fit: TailFit) -> float:
    """A^2 of the values above a fit's threshold against its law (Choulakian and Stephens 2001)."""
    values = np.sort(np.asarray(values, dtype=float))
    excess = values[values > fit.threshold] - fit.threshold
    above = np.clip(log_survival(excess, fit.shape, fit.scale), -700.0, -1e-15)
    below = np.log(-np.expm1(above))
    odd = 2 * np.arange(1, len(excess) + 1) - 1
    return float(-len(excess) - np.mean(odd * (below + above[::-1])))


def goodness_of_fit(values: ArrayLike, fit: TailFit) -> float:
    """The probability of a larger A^2 if the law is right, log-linear between table entries."""
    row = np.array(
        [np.interp(fit.shape, _TABLE_SHAPES, column) for column in _TABLE.T]
    )  # fmt: skip
    statistic, logs = anderson_darling(values, fit), np.log(_TAILS)
    if statistic > row[-1]:
        slope = (logs[-1] - logs[-4]) / (row[-1] - row[-4])
        return float(np.exp(logs[-1] + slope * (statistic - row[-1])))
    return float(np.exp(np.interp(statistic, np.append(0.0, row), np.append(0.0, logs))))


def forward_stop(p_values: Sequence[float], *, rate: float = 0.1) -> int:
    """How many of the first hypotheses to reject: the largest k with mean -log(1 - p_i) <= rate.

    Args:
        p_values: In their order, [candidates].
        rate: Bound of the false discovery rate.
    """
    costs = -np.log1p(-np.minimum(p_values, 1 - 1e-12))
    running = np.cumsum(costs) / np.arange(1, len(costs) + 1)
    passed = np.flatnonzero(running <= rate)
    return int(passed[-1]) + 1 if len(passed) else 0


def stable_from(fits: Sequence[TailFit]) -> int:
    """Index of the lowest threshold whose shape all higher ones agree with.

    They agree within two standard errors of the difference of nested fits,
    sqrt((1 + shape)^2 (1 / k_high - 1 / k_low)); (1 + shape)^2 / k is a shape's variance
    (Smith 1987).
    """
    counts: NDArray[np.float64] = np.array([one.excesses for one in fits], dtype=float)
    shapes = np.array([one.shape for one in fits])
    for at in range(len(fits)):
        spread = np.sqrt(np.maximum(1 / counts[at:] - 1 / counts[at], 0.0)) * (1 + shapes[at])
        if np.all(np.abs(shapes[at:] - shapes[at]) <= 2 * spread + 1e-12):
            return at
    return len(fits) - 1
