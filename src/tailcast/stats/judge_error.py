"""How wrong is the judge, and what is the risk without its errors, by labels of a few completions?

Prediction-powered inference (Angelopoulos et al. 2023), stratified by the verdict (Fisch et al.
2024): with h the judge's verdict and y the label,

    P(y = 1) = P(h = 1) P(y = 1 | h = 1) + P(h = 0) P(y = 1 | h = 0),

P(h = 1) from all draws, the two other shares from those labelled, each of which stands for its
mass over its inclusion probability. Intervals of the parts are put together by recovering their
variances (MOVER: Zou and Donner 2008), so that a part in which nothing was found keeps the
exact upper end of nothing found.
"""

from dataclasses import dataclass
from math import exp, hypot, inf, isnan, log, nan

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "JudgeError",
    "Labelled",
    "Measured",
    "judge_error",
    "quotient",
    "weighted_share",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A number with its interval.

    Attributes:
        value: Its estimate; NaN where nothing says anything of it.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @property
    def complement(self) -> "Measured":
        """One less it."""
        return Measured(1 - self.value, 1 - self.high, 1 - self.low)

    def record(self) -> dict[str, float | None]:
        """For JSON."""
        value = None if isnan(self.value) else self.value
        return {"value": value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Labelled:
    """Labelled completions of one verdict, each a distinct text.

    Attributes:
        mass: Share of the law that a completion's draws stand for, [n].
        square: Sum of the squares of those draws' masses, [n]: the variance of having drawn.
        inclusion: Probability that it came into the sample, in (0, 1], [n].
        label: 1 for a hit, 0 for none, NaN where the labeller was unsure, [n].
        quantum: The most that one more label could have stood for: the largest mass over
            inclusion among all completions of the verdict, labelled or not; for one that is
            sure to be included, the mass of its largest draw.
    """

    mass: Floats
    square: Floats
    inclusion: Floats
    label: Floats
    quantum: float


@dataclass(frozen=True)
class JudgeError:
    """What the labels say of the judge, and of the risk.

    Attributes:
        risk: By the judge: P(h = 1).
        precision: Share of its hits that are hits: P(y = 1 | h = 1).
        omission: Share of its non-hits that are hits: P(y = 1 | h = 0).
        confirmed: Risk that it finds: P(y = 1, h = 1).
        missed: Risk that it misses: P(y = 1, h = 0).
        corrected: P(y = 1).
        sensitivity: P(h = 1 | y = 1).
        specificity: P(h = 0 | y = 0).
    """

    risk: Measured
    precision: Measured
    omission: Measured
    confirmed: Measured
    missed: Measured
    corrected: Measured
    sensitivity: Measured
    specificity: Measured

    def record(self) -> dict[str, dict[str, float | None]]:
        """For JSON."""
        return {name: one.record() for name, one in vars(self).items()}


def judge_error(
    risk: Measured, hits: Labelled, passed: Labelled, *, level: float = 0.95
) -> JudgeError:
    """Correct a risk by labels of the judge's hits and of its non-hits.

    Unbiased up to the ratio's 1/n in the number of labels; where inclusion is in proportion to
    mass it is the difference estimator, risk + E_w[(label - verdict) / inclusion], itself.

    Args:
        risk: By the judge, with the interval of the draws.
        hits: Labelled completions that the judge calls hits.
        passed: Labelled ones that it does not.
        level: Coverage of every interval.
    """
    precision = weighted_share(hits, level=level)
    omission = weighted_share(passed, level=level)
    confirmed = _product(risk, precision)
    missed = _product(risk.complement, omission)
    false = _product(risk, precision.complement)
    cleared = _product(risk.complement, omission.complement)
    return JudgeError(
        risk=risk,
        precision=precision,
        omission=omission,
        confirmed=confirmed,
        missed=missed,
        corrected=_sum(confirmed, missed),
        sensitivity=_part(confirmed, missed),
        specificity=_part(cleared, false),
    )


def weighted_share(found: Labelled, *, level: float = 0.95) -> Measured:
    """Share of the mass that is labelled a hit, with its interval.

    Clopper-Pearson for unequal weights: the binomial twin of the gamma interval of Fay and
    Feuer (1997). The upper end is a beta quantile whose mean and variance are those of the
    labels with one more hit of the largest weight that there could have been; the lower end
    mirrors it. With equal weights it is Clopper-Pearson, and with no hit among the labels it
    allows for the largest completion that could have escaped them. The variance is that of
    drawing and of choosing whom to label.

    Unsure labels are left out of the estimate and count on both sides of the interval.

    Args:
        found: The labels; without any the share lies between 0 and 1.
        level: Coverage, in (0, 1).
    """
    weights = found.mass / found.inclusion
    unsure = np.isnan(found.label)
    known = float(weights[~unsure].sum())
    value = float(weights[~unsure] @ found.label[~unsure]) / known if known > 0 else nan
    tail = (1 - level) / 2
    high = _upper(found, np.where(unsure, 1.0, found.label), tail)
    low = 1 - _upper(found, 1 - np.where(unsure, 0.0, found.label), tail)
    return Measured(value, low, high)


def _upper(found: Labelled, label: Floats, tail: float) -> float:
    """The share that is refuted from above."""
    from scipy.stats import beta

    weights, quantum = found.mass / found.inclusion, found.quantum
    total = float(weights.sum()) + quantum
    if not weights.sum() > 0:
        return 1.0
    mean = (float(weights @ label) + quantum) / total
    if mean >= 1 - 1e-12:
        return 1.0
    noise = (1 - found.inclusion) * weights**2 + found.square / found.inclusion
    spread = float(noise @ (label - mean) ** 2) + quantum**2 * (1 - mean) ** 2
    size = mean * (1 - mean) * total**2 / spread
    return float(beta.isf(tail, mean * size, (1 - mean) * size))


def quotient(one: Measured, other: Measured) -> Measured:
    """One over the other, a probability, on the log scale."""
    if not one.value > 0 or not other.value > 0:
        return Measured(nan, min(1.0, one.low), 1.0)
    low, high = 1 / _ratio_high(other, one), _ratio_high(one, other)
    return Measured(min(1.0, one.value / other.value), min(1.0, low), min(1.0, high))


def _product(one: Measured, other: Measured) -> Measured:
    """Of two probabilities, on the log scale; 0 where one is, whatever the other."""
    value = 0.0 if one.value == 0 else one.value * other.value
    if not value > 0:
        return Measured(value, 0.0, one.high * other.high)
    low = 0.0
    if one.low > 0 and other.low > 0:
        low = value * exp(-hypot(log(one.value / one.low), log(other.value / other.low)))
    high = value * exp(hypot(log(one.high / one.value), log(other.high / other.value)))
    return Measured(value, low, min(1.0, high))


def _sum(one: Measured, other: Measured) -> Measured:
    """Of two probabilities of events that exclude each other."""
    value = one.value + other.value
    if isnan(value):
        return Measured(nan, one.low + other.low, min(1.0, one.high + other.high))
    low = value - hypot(one.value - one.low, other.value - other.low)
    high = value + hypot(one.high - one.value, other.high - other.value)
    return Measured(value, max(0.0, low), min(1.0, high))


def _part(one: Measured, other: Measured) -> Measured:
    """What one makes up of both together."""
    whole = one.value + other.value
    value = one.value / whole if whole > 0 else nan
    return Measured(value, 1 / (1 + _ratio_high(other, one)), 1 - 1 / (1 + _ratio_high(one, other)))


def _ratio_high(one: Measured, other: Measured) -> float:
    """Upper end of one over the other."""
    if other.low <= 0:
        return inf
    if not one.value > 0 or isnan(other.value):
        return one.high / other.low
    reach = hypot(log(one.high / one.value), log(other.value / other.low))
    return one.value / other.value * exp(reach)
