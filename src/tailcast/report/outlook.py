"""What follows from the queries' risks: for a call at random, for many tries, for a deployment?

Each query counts alike; one without a hit counts as 0 in the middle and as what its draws allow
at the upper end. The queries are those that were measured; nothing here speaks of others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailcast.stats import Estimate

__all__ = ["Expected", "Overall", "expected", "mean_risk", "share_within", "upper_end"]


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


def share_within(
    estimates: Sequence[Estimate], tries: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Expected share of queries with at least one hit in n tries, mean of 1 - (1 - p)^n.

    Args:
        estimates: One for each query.
        tries: Numbers of tries n, [k].

    Returns:
        By the estimates, by the lower and by the upper ends of all intervals, each [k]. The
        latter two hold together wherever every interval does: they are wider than needed.
    """
    middle, low, high = (_at_least_one(one, tries).mean(axis=1) for one in _ends(estimates))
    return middle, low, high


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
    chance = float(_at_least_one(np.array([p]), np.array([calls]))[0, 0])
    return Expected(p * calls, chance, 1 / p if p > 0 else float("inf"))


def _at_least_one(p: NDArray[np.float64], calls: NDArray[np.floating]) -> NDArray[np.float64]:
    """1 - (1 - p)^n without loss for small p, [calls, p]."""
    with np.errstate(divide="ignore"):
        chance: NDArray[np.float64] = -np.expm1(np.outer(calls, np.log1p(-np.clip(p, 0.0, 1.0))))
    return chance


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
