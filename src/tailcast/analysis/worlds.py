"""What could a mean over queries be, given that queries and estimates are both uncertain?

A world gives every query a weight and a risk that are in keeping with what was seen.

Weights are those of the Bayesian bootstrap (Rubin 1981: standard exponentials, divided by their
sum), with one query more than were seen: at the upper end of a band it is as bad as the worst
one seen, at the lower end it has no risk. For shares of yes and no the band is then the
exact one of Clopper and Pearson; for bounded values and the bound itself in place of the worst,
it is Gaffke's (2005; Phan, Thomas and Learned-Miller 2021).

Risks: a query without a hit lies between 0 and what its upper end allows, not at 0. Hits of
plain draws give a pair of risks, Beta(h, n-h+1) below and Beta(h+1, n-h) above, whose quantiles
are the exact interval (a confidence box, Balch 2012). A weighted estimate is unbiased and taken
for log-normal, with the width of its interval. The spread of the estimates over queries holds
their own errors already; risks drawn around the estimates would hold them twice. So estimates
are drawn towards each other first by as much as their errors ask for (DerSimonian and Laird
1986 for the variance between queries), and a band is the hull of two: estimates as they are,
and risks drawn so. Errors of different estimates are taken for independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailcast.analysis.risks import QueryRisk
from tailcast.errors import ConfigError
from tailcast.stats import clopper_pearson

__all__ = [
    "Case",
    "RiskWorlds",
    "band",
    "bands_of_ratio",
    "chance_larger",
    "draw_risks",
    "draw_weights",
    "draws_without_hit",
    "share_hit",
]

Floats = NDArray[np.float64]

WORLDS = 2000
_CELLS = 5_000_000  # worlds times queries that are held at once
_BELOW_ONE = 1 - 2.0**-53


@dataclass(frozen=True)
class Case:
    """Values of the queries in all worlds, each between two ends.

    Attributes:
        low: Lower ends, [queries] or [worlds, queries].
        high: Upper ends, likewise.
        worst: Of the query that was not seen, at its worst, a number or [worlds].
    """

    low: Floats
    high: Floats
    worst: Floats | float


@dataclass(frozen=True)
class RiskWorlds:
    """Risks of a run's queries.

    Attributes:
        given: The estimates, 0 without a hit, [queries].
        hit: Which have a hit, [queries].
        exact: Which are of plain draws, [queries].
        low: Risks at their lower ends, [worlds, queries].
        high: At their upper ends, likewise.
    """

    given: Floats
    hit: NDArray[np.bool_]
    exact: NDArray[np.bool_]
    low: Floats
    high: Floats

    def after(self, tries: int) -> tuple[Case, ...]:
        """Cases of 1 - (1 - risk)^tries; a query without a hit is anywhere up to its end."""
        given = np.where(self.hit, self.given, self.high)
        ends = [(self.given, given), (self.low, self.high)]
        values = [(share_hit(low, tries), share_hit(high, tries)) for low, high in ends]
        return tuple(Case(low, high, high.max(axis=1)) for low, high in values)

    def mean(self) -> tuple[Case, ...]:
        """Cases of the risk itself, whose unbiased estimate is 0 where there is no hit."""
        worst = self.high[:, np.lexsort((self.high.mean(axis=0), self.given))[-1]]
        drawn = np.where(self.exact | ~self.hit, self.given, self.low)
        return Case(self.given, self.given, worst), Case(drawn, drawn, worst)


def share_hit(risk: Floats, tries: int) -> Floats:
    """1 - (1 - risk)^tries, elementwise, to full precision for small risks."""
    found: Floats = -np.expm1(tries * np.log1p(-np.minimum(risk, _BELOW_ONE)))
    return found


def draw_weights(queries: int, *, base: Floats | None = None, seed: int = 0) -> Floats:
    """Weights of the queries, and of one not seen, in many worlds, [worlds, queries + 1].

    Args:
        queries: How many were seen.
        base: What each counts for, [queries]; equally if None.
        seed: Of the random numbers; the same weights for the same seed and number.
    """
    worlds = int(np.clip(_CELLS // queries, 400, WORLDS))
    rng = np.random.default_rng([20_260_424, seed])
    weights = rng.standard_exponential((worlds, queries + 1))
    if base is not None:
        weights *= np.append(base, base.mean())
    found: Floats = weights / weights.sum(axis=1, keepdims=True)
    return found


def draw_risks(risks: Sequence[QueryRisk], worlds: int, *, seed: int = 0) -> RiskWorlds:
    """Risks of a run's queries in many worlds; see the module for the laws.

    Args:
        risks: What is known of each.
        worlds: How many worlds.
        seed: Of the random numbers; two runs that are compared take different ones.
    """
    rng = np.random.default_rng([20_260_425, seed])
    low, high = np.zeros((2, worlds, len(risks)))
    weighted = [number for number, one in enumerate(risks) if one.p and one.method != "mc"]
    for number, one in enumerate(risks):
        if one.p is None:
            draws = max(draws_without_hit(one), 1e-12)
            high[:, number] = -np.expm1(-rng.standard_exponential(worlds) / draws)
        elif one.method == "mc":
            low[:, number], high[:, number] = _of_hits(one, rng, worlds)
    if weighted:
        drawn = _of_weights([risks[number] for number in weighted], rng, worlds)
        low[:, weighted] = high[:, weighted] = drawn
    return RiskWorlds(
        given=np.array([one.p or 0.0 for one in risks]),
        hit=np.array([one.p is not None for one in risks]),
        exact=np.array([one.method == "mc" for one in risks]),
        low=low,
        high=high,
    )


def draws_without_hit(one: QueryRisk) -> float:
    """As many plain draws without a hit as would give the tighter upper end; 0 if there is none."""
    ends = ((one.ci_high, (1 - one.level) / 2), (one.p_high_guaranteed, 1 - one.level))
    return max(float(np.log(tail) / np.log1p(-end)) if end < 1 else 0.0 for end, tail in ends)


def _of_hits(one: QueryRisk, rng: np.random.Generator, worlds: int) -> tuple[Floats, Floats]:
    """Both ends by order statistics of n uniforms, stretched to the interval of the record.

    It is wider than hits and draws alone make it where the judge failed or a rule looked often.
    """
    first = rng.standard_gamma(one.n_hits, worlds)
    middle = rng.standard_exponential(worlds)
    total = first + middle + rng.standard_gamma(one.n - one.n_hits, worlds)
    least, most = clopper_pearson(one.n_hits, one.n, level=one.level)
    low = first / total * min(1.0, one.ci_low / least)
    return low, np.minimum((first + middle) / total * max(1.0, one.ci_high / most), 1.0)


def _of_weights(risks: Sequence[QueryRisk], rng: np.random.Generator, worlds: int) -> Floats:
    """Risks around estimates that were drawn towards each other, [worlds, risks]."""
    from scipy.stats import norm

    log_p = np.log(np.array([one.p for one in risks], dtype=float))
    reach = 2 * norm.ppf([(1 + one.level) / 2 for one in risks])
    ends = np.array([(one.ci_low or (one.p or 1) ** 2 / one.ci_high, one.ci_high) for one in risks])
    variance = np.maximum((np.log(ends[:, 1] / ends[:, 0]) / reach) ** 2, 1e-12)
    centre = log_p + variance / 2  # the mean of a log-normal estimate is the risk, not its median
    between = _between(centre, variance)
    weight = 1 / (between + variance)
    mean = float((weight * centre).sum() / weight.sum())
    kept = between * weight
    noise = rng.standard_normal((worlds, len(risks))) * np.sqrt(kept * variance)
    found: Floats = np.exp(np.minimum(mean + kept * (centre - mean) + noise, 0.0))
    return found


def _between(centre: Floats, variance: Floats) -> float:
    """Variance between queries beyond that of their errors (DerSimonian and Laird 1986)."""
    if len(centre) < 2:
        return 1e6  # nothing to be drawn towards
    weight = 1 / variance
    total = float(weight.sum())
    excess = float((weight * (centre - (weight * centre).sum() / total) ** 2).sum())
    scale = total - float((weight**2).sum()) / total
    return max(0.0, (excess - len(centre) + 1) / scale)


def band(weights: Floats, cases: Sequence[Case], *, level: float) -> tuple[float, float]:
    """Between which values a mean over queries lies: the hull of the cases' bands.

    Args:
        weights: Of :func:`draw_weights`.
        cases: The queries' values.
        level: Coverage, in (0, 1).

    Raises:
        ConfigError: If the level is none.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level must lie in (0, 1), got {level:g}.")
    tail = (1 - level) / 2
    ends = [(_lower(weights, one), _upper(weights, one)) for one in cases]
    low = min(float(np.quantile(low, tail)) for low, _ in ends)
    return low, min(1.0, max(float(np.quantile(high, 1 - tail)) for _, high in ends))


def bands_of_ratio(
    weights: Floats, top: Sequence[Case], bottom: Sequence[Case], *, level: float
) -> tuple[float, float]:
    """Band of log10 of one mean over another, each with the query that was not seen.

    Returns:
        Lower and upper end, infinite where a mean may be 0.
    """
    tail = (1 - level) / 2
    lows, highs = [], []
    with np.errstate(divide="ignore"):
        for one, other in zip(top, bottom, strict=True):
            low = np.log10(_lower(weights, one)) - np.log10(_upper(weights, other))
            high = np.log10(_upper(weights, one)) - np.log10(_lower(weights, other))
            lows.append(float(np.quantile(low, tail, method="lower")))
            highs.append(float(np.quantile(high, 1 - tail, method="higher")))
    return min(lows), max(highs)


def chance_larger(weights: Floats, one: Sequence[Case], other: Sequence[Case]) -> float:
    """In which share of worlds, at least, one mean is above another over the same queries.

    The query that was not seen speaks against it with the largest difference seen. Where k
    queries differ, equally and all one way, that is 1 - 2^-k: the sign test.
    """
    chances = []
    for mine, theirs in zip(one, other, strict=True):
        gain = mine.low - theirs.high
        against = np.abs(gain).max(axis=-1)
        total = (weights[:, :-1] * gain).sum(axis=1) - weights[:, -1] * against
        chances.append(float((total > 0).mean()))
    return min(chances)


def _lower(weights: Floats, case: Case) -> Floats:
    found: Floats = (weights[:, :-1] * case.low).sum(axis=1)
    return found


def _upper(weights: Floats, case: Case) -> Floats:
    found: Floats = (weights[:, :-1] * case.high).sum(axis=1) + weights[:, -1] * case.worst
    return found
