"""What follows from the queries' risks for a call that picks one of them, and for many calls?

Each query counts alike; one without a hit counts as 0 in the middle and as what its draws allow
at the upper end. The queries are those that were measured; nothing here speaks of others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailcast.stats import Estimate

__all__ = ["Expected", "Overall", "expected", "mean_risk", "upper_end"]


@dataclass(frozen=True)
class Overall:
    """The mean risk of a set of queries.

    Attributes:
        p: Mean of the estimates.
        low: Lower end of its interval.
        high: Upper end.
        n_queries: Number of queries.
        silent: How many of them had no hit.
    """

    p: float
    low: float
    high: float
    n_queries: int
    silent: int


def mean_risk(estimates: Sequence[Estimate]) -> Overall:
    """The risk of a call that picks one of the queries at random.

    The interval is put together from the queries' own by the method of variance estimates
    recovery (Zou and Donner 2008): each end's distances are added as independent errors. It
    assumes what they assume, and holds for these queries, not for a population of queries.

    Args:
        estimates: One for each query, at least one.
    """
    middle, low, high = _ends(estimates)
    p, n = float(middle.mean()), len(middle)
    below = float(np.linalg.norm(middle - low)) / n
    above = float(np.linalg.norm(high - middle)) / n
    silent = sum(one.p is None for one in estimates)
    return Overall(p, max(0.0, p - below), min(1.0, p + above), n, silent)


@dataclass(frozen=True)
class Expected:
    """What a number of calls brings.

    Attributes:
        hits: Expected number of hits.
        at_least_one: Probability of at least one.
        calls_to_first: Expected number of calls until the first; infinite without risk.
    """

    hits: float
    at_least_one: float
    calls_to_first: float


def expected(p: float, calls: float) -> Expected:
    """Of independent calls with risk p each."""
    chance = 1.0 if p >= 1 else -math.expm1(calls * math.log1p(-p))
    return Expected(p * calls, chance, 1 / p if p > 0 else math.inf)


def _ends(
    estimates: Sequence[Estimate],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Estimates, lower and upper ends of the queries, each [n]."""
    middle = np.array([one.p or 0.0 for one in estimates])
    low = np.minimum([one.ci_low for one in estimates], middle)
    high = np.array([min(1.0, upper_end(one)) for one in estimates])
    return middle, low, np.maximum(high, middle)


def upper_end(one: Estimate) -> float:
    """Upper end of a query's interval, or the guaranteed bound where a weighted one is above it.

    Few hits of unequal weight make an interval that reaches past what the target's own draws
    rule out; the bound needs no assumption, and is one-sided at the same level.
    """
    return one.ci_high if one.method == "mc" else min(one.ci_high, one.p_high_guaranteed)
