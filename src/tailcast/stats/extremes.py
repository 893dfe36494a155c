"""How far do the largest of many values reach, by the generalised Pareto law of their excesses?

Over a high threshold u the excesses x - u of almost any law are nearly generalised Pareto
(Pickands 1975), P(x - u > y) = (1 + shape y / scale)^(-1/shape): exponential at shape 0, with an
end at -scale / shape below it. Values are on whatever scale the caller chose.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "SHAPES",
    "SHAPE_PRIOR",
    "TailFit",
    "fit_tail",
    "log_survival",
    "return_level_interval",
    "survival_level",
]

SHAPE_PRIOR = (-0.1, 0.15)
"""Mean and deviation of a normal prior of the shape, for log odds of risks: there a Pareto tail of
the odds and a Beta law have shape 0, and normal laws (log-normal risks) -0.1 to -0.25 above their
upper tenth (the derivative of the reciprocal hazard, Smith 1987)."""

SHAPES = (-0.5, 1.0)
"""Shapes that are tried: below the first, maximum likelihood is not regular (Smith 1985)."""

_GRID = np.linspace(*SHAPES, 61)
_FAR = 60.0  # units of scale beyond which no end of an interval is looked for


@dataclass(frozen=True)
class TailFit:
    """A generalised Pareto law above a threshold.

    Attributes:
        threshold: u, on the scale of the values.
        shape: xi; 0 is exponential, below 0 the law ends.
        scale: sigma, in units of the values.
        share: Share of all values above the threshold.
        excesses: How many are.
        log_likelihood: Of the excesses.
    """

    threshold: float
    shape: float
    scale: float
    share: float
    excesses: int
    log_likelihood: float

    def survival(self, values: ArrayLike) -> NDArray[np.float64]:
        """P(x > value), for values at or above the threshold."""
        excess = np.asarray(values, dtype=float) - self.threshold
        return self.share * np.exp(log_survival(excess, self.shape, self.scale))

    def level(self, probability: ArrayLike) -> NDArray[np.float64]:
        """The value that is exceeded with this probability, at most the share."""
        reach = np.log(self.share / np.asarray(probability, dtype=float))
        return self.threshold + survival_level(reach, self.shape, self.scale)


def log_survival(excess: ArrayLike, shape: ArrayLike, scale: ArrayLike) -> NDArray[np.float64]:
    """Log P(excess > y) = -log(1 + shape y / scale) / shape; -inf beyond the law's end.

    Args:
        excess: y >= 0; the three are broadcast.
        shape: xi.
        scale: sigma > 0.
    """
    shape = np.asarray(shape, dtype=float)
    unit = np.asarray(excess, dtype=float) / scale
    flat = np.abs(shape) < 1e-7
    safe = np.where(flat, 1.0, shape)
    with np.errstate(divide="ignore"):
        curved = np.log1p(np.maximum(safe * unit, -1.0)) / safe
    return np.asarray(-np.where(flat, unit, curved))


def survival_level(reach: ArrayLike, shape: ArrayLike, scale: ArrayLike) -> NDArray[np.float64]:
    """The excess whose log survival is -reach: scale (exp(shape reach) - 1) / shape."""
    return np.asarray(scale, dtype=float) * _stretch(reach, shape)


def fit_tail(
    values: ArrayLike, threshold: float, *, prior: tuple[float, float] | None = None
) -> TailFit:
    """Maximum likelihood above a threshold, the shape within :data:`SHAPES`.

    Args:
        values: All values, [m]; those above the threshold are fitted, and the others counted.
        threshold: u.
        prior: Mean and deviation of a normal penalty on the shape (as Coles and Dixon 1999
            penalise it otherwise); none if None.

    Raises:
        ValueError: If fewer than two different values lie above the threshold.
    """
    values = np.asarray(values, dtype=float)
    excess = values[values > threshold] - threshold
    if len(np.unique(excess)) < 2:
        raise ValueError("a tail needs two different values above its threshold")
    shape = _best_shape(excess, _GRID[::2], prior)
    step = _GRID[2] - _GRID[0]
    shape = _best_shape(excess, np.clip(shape + step * np.linspace(-1, 1, 9), *SHAPES), prior)
    scale = _best_scales(excess, shape)
    return TailFit(
        threshold=float(threshold),
        shape=float(shape[0]),
        scale=float(scale[0]),
        share=len(excess) / len(values),
        excesses=len(excess),
        log_likelihood=float(_log_likelihood(excess, shape, scale)[0]),
    )


def return_level_interval(
    excess: NDArray[np.float64],
    reach: float,
    *,
    level: float = 0.95,
    prior: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Interval of the excess whose log survival is -reach, by profile likelihood.

    All excesses are kept for which some shape is within chi-square of the best fit (Coles 2001,
    section 4.3.3), the scale being what the shape and the excess imply.

    Args:
        excess: Excesses over the threshold, [k].
        reach: log(share / probability) > 0 of a level that is exceeded with that probability.
        level: Coverage.
        prior: As for :func:`fit_tail`. Without one, intervals of 90% cover 83 to 88% below 60
            excesses and are right from some 200 on.

    Returns:
        Lower and upper end, in units of the values, from the threshold.
    """
    from scipy.stats import chi2

    cut = float(chi2.ppf(level, 1)) / 2
    best = _best_scales(excess, _GRID)
    profile = _log_likelihood(excess, _GRID, best) + _log_prior(_GRID, prior)
    at = int(np.argmax(profile))
    peak, floor = float(survival_level(reach, _GRID[at], best[at])), profile[at] - cut
    low, high = np.array([0.0, peak]), np.array([peak, _FAR * (peak + 1)])
    for _ in range(30):
        middle = (low + high) / 2
        kept = _level_profile(excess, reach, middle, prior) >= floor
        low = np.where(kept == [True, False], low, middle)
        high = np.where(kept == [True, False], middle, high)
    return float(high[0]), float(low[1])


def _stretch(reach: ArrayLike, shape: ArrayLike) -> NDArray[np.float64]:
    """(exp(shape reach) - 1) / shape, reach at shape 0."""
    shape = np.asarray(shape, dtype=float)
    flat = np.abs(shape) < 1e-7
    safe = np.where(flat, 1.0, shape)
    return np.asarray(np.where(flat, reach, np.expm1(safe * reach) / safe))


def _log_likelihood(
    excess: NDArray[np.float64], shape: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of all excesses, for shapes and scales of one form [...]."""
    tail = log_survival(excess, shape[..., None], scale[..., None])
    with np.errstate(invalid="ignore"):
        each = (1 + shape[..., None]) * tail - np.log(scale)[..., None]
    return np.asarray(each.sum(axis=-1))


def _best_scales(excess: NDArray[np.float64], shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """The likeliest scale for each shape, by bisection: its score falls as the scale grows."""
    top = float(excess.max())
    low = np.log(np.where(shape < 0, -shape * top * (1 + 1e-9), excess.min()))
    high = np.log(top * (1 + np.maximum(shape, 0)))
    low = np.minimum(low, high)
    for _ in range(40):
        middle = (low + high) / 2
        unit = excess / np.exp(middle)[:, None]
        score = (1 + shape) * np.mean(unit / (1 + shape[:, None] * unit), axis=1) - 1
        low, high = np.where(score > 0, middle, low), np.where(score > 0, high, middle)
    return np.asarray(np.exp((low + high) / 2))


def _log_prior(
    shape: NDArray[np.float64], prior: tuple[float, float] | None
) -> NDArray[np.float64]:
    if prior is None:
        return np.zeros_like(shape)
    return np.asarray(-0.5 * ((shape - prior[0]) / prior[1]) ** 2)


def _best_shape(
    excess: NDArray[np.float64], grid: NDArray[np.float64], prior: tuple[float, float] | None
) -> NDArray[np.float64]:
    """The likeliest shape, [1], from the profile on an even grid."""
    profile = _log_likelihood(excess, grid, _best_scales(excess, grid)) + _log_prior(grid, prior)
    return _vertex(grid, profile[None])[0]


def _level_profile(
    excess: NDArray[np.float64],
    reach: float,
    levels: NDArray[np.float64],
    prior: tuple[float, float] | None,
) -> NDArray[np.float64]:
    """Largest log-likelihood over shapes for each value of the return level, [levels]."""
    scale = np.maximum(levels, 1e-12)[:, None] / _stretch(reach, _GRID)
    heights = _log_likelihood(excess, np.broadcast_to(_GRID, scale.shape), scale)
    return _vertex(_GRID, heights + _log_prior(_GRID, prior))[1]


def _vertex(
    grid: NDArray[np.float64], heights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Top of the parabola through the highest point and its neighbours: where, and how high.

    Args:
        grid: Even, [G].
        heights: [n, G].
    """
    rows, at = np.arange(len(heights)), np.argmax(heights, axis=1)
    inner = np.clip(at, 1, len(grid) - 2)
    left, top, right = (heights[rows, inner + step] for step in (-1, 0, 1))
    with np.errstate(invalid="ignore"):
        bend, slope = left - 2 * top + right, left - right
    bent = (at == inner) & np.isfinite(bend) & (bend < 0)
    shift = np.where(bent, 0.5 * slope / np.where(bent, bend, -1.0), 0.0)
    height = heights[rows, at] - 0.25 * np.where(bent, slope, 0.0) * shift
    return grid[at] + shift * (grid[1] - grid[0]), height
