"""How bad is the worst of n queries not yet seen, and how bad are they on average?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tailcast.analysis.forecast_methods import METHODS, Fitted, Threshold
from tailcast.analysis.measured import Measured
from tailcast.errors import ConfigError, DataError
from tailcast.stats.extremes import SHAPE_PRIOR, TailFit, return_level_interval
from tailcast.stats.risk_laws import log_odds

__all__ = [
    "TAUS",
    "Exceedance",
    "Forecast",
    "check_level",
    "forecast",
    "forecast_one",
    "reach_warnings",
    "worst_of",
]

TAUS = (0.9, 0.5, 0.1, 0.01, 0.001)
"""Risks that the chance of exceedance is given for, if no others are asked for."""

_DRAWS = 400  # of n unseen queries, for their mean
_MOST = 1e15  # unseen queries
_FEW = 34  # queries, of which ten are the upper 30%
_TESTED = 1000  # n / m up to which benchmarks/forecast.py knows the coverage


@dataclass(frozen=True)
class Exceedance:
    """Queries above a risk.

    Attributes:
        risk: tau.
        worst_exceeds: P(the largest of n risks > tau).
        expected: Expected number of queries above tau among n.
        low: Lower end of its interval; None for methods that know no uncertainty.
        high: Upper end.
    """

    risk: float
    worst_exceeds: float
    expected: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Forecast:
    """What n unseen queries, drawn as the measured ones were, will show.

    Attributes:
        method: One of :data:`tailcast.analysis.forecast_methods.METHODS`.
        n: Number of unseen queries.
        queries: Number of measured ones, m.
        level: Coverage that the intervals aim at.
        worst: Median of the largest risk among the n; for "jones" its Q_p(n).
        worst_low: Lower end of an interval of the largest risk itself.
        worst_high: Upper end. For jones, notebook, log-normal and gumbel it takes the fitted law
            for the true one, and covers far less than it says.
        return_level: The risk that one query in n exceeds.
        return_low: Lower end of its interval; None for methods that know no uncertainty.
        return_high: Upper end.
        mean: Mean risk of a query, tail included, its median over the laws: as likely too low as
            too high. Where the tail is heavy the average over the laws lies above it.
        mean_low: Lower end of an interval of their mean.
        mean_high: Upper end.
        aggregate: Chance of at least one hit if each is asked once.
        exceedances: For several risks.
        tail: The tail, for "pot".
        thresholds: Those tried, for "pot".
        warnings: How far it extrapolates, and what the fit suffers from.
    """

    method: str
    n: int
    queries: int
    level: float
    worst: float
    worst_low: float
    worst_high: float
    return_level: float
    return_low: float | None
    return_high: float | None
    mean: float
    mean_low: float
    mean_high: float
    aggregate: float
    exceedances: tuple[Exceedance, ...]
    tail: TailFit | None = None
    thresholds: tuple[Threshold, ...] = ()
    warnings: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def forecast(
    measured: Measured,
    n: float,
    *,
    methods: Sequence[str] = tuple(METHODS),
    taus: Sequence[float] = TAUS,
    level: float = 0.9,
) -> tuple[list[Forecast], dict[str, str]]:
    """Forecasts by several methods.

    Args:
        measured: At least ten queries, one of them with a hit.
        n: Unseen queries.
        methods: Which.
        taus: Risks to give the chance of exceedance for.
        level: Coverage of the intervals.

    Returns:
        The forecasts, and for each method that could not be fitted why.

    Raises:
        ConfigError: If n or the level make no sense or a method is unknown.
        DataError: See :meth:`tailcast.analysis.measured.Measured.checked`.
    """
    if not 1 <= n <= _MOST:
        raise ConfigError(f"queries {n:g} must lie between 1 and {_MOST:g}.")
    check_level(level)
    for tau in taus:
        if not 0 < tau < 1:
            raise ConfigError(f"tau {tau:g} must lie between 0 and 1: it is a risk.")
    measured.checked()
    found, failed = [], {}
    for name in methods:
        if name not in METHODS:
            raise ConfigError(f"method {name!r} is none of {', '.join(METHODS)}.")
        try:
            fitted = METHODS[name](measured)
        except DataError as error:
            failed[name] = str(error)
            continue
        one = forecast_one(name, fitted, measured, int(n), taus=taus, level=level)
        found.append(replace(one, warnings=(*fitted.warnings, *reach_warnings(measured, int(n)))))
    return found, failed


def check_level(level: float) -> None:
    """Make sure that a level is one.

    Raises:
        ConfigError: If it is not.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level {level:g} must lie between 0 and 1, for example 0.9.")


def forecast_one(
    name: str, fitted: Fitted, measured: Measured, n: int, *, taus: Sequence[float] = (),
    level: float = 0.9,
) -> Forecast:  # fmt: skip
    """The forecast of one fitted method, without the warnings that all methods share."""
    laws, tails = fitted.laws, [(1 - level) / 2, (1 + level) / 2]
    point, low, high = worst_of(name, fitted, n, level)
    means, aggregates = laws.simulate(n, _DRAWS, np.random.default_rng(n % 2**32))
    mean_low, mean_high = np.quantile(means, tails)
    levels = laws.return_levels(1 / n)
    ends = laws.quantiles(levels, tails) if fitted.uncertain else [None, None]
    middle = laws.quantiles(levels, [0.5]) if fitted.uncertain else [float(levels[0])]
    if fitted.tail is not None and 1 / n < fitted.tail.share:
        middle, ends = _profile(fitted, 1 / n, level)
    return Forecast(
        name, n, len(measured), level, point, low, high, middle[0], ends[0], ends[1],
        laws.quantiles(laws.means(), [0.5])[0], float(mean_low), float(mean_high),
        float(aggregates.mean()),
        tuple(_exceedance(fitted, tau, n, tails) for tau in taus),
        fitted.tail, fitted.thresholds,
    )  # fmt: skip


def worst_of(name: str, fitted: Fitted, n: int, level: float) -> tuple[float, float, float]:
    """Point and interval of the largest of n unseen risks.

    For peaks over threshold, two uncertainties are joined on log odds (MOVER, Zou and Donner
    2008): the profile likelihood's for the median of the largest, and the largest's own.
    """
    probabilities = [0.5, (1 - level) / 2, (1 + level) / 2]
    exceeded = -np.expm1(np.log(np.array(probabilities)) / n)
    if fitted.tail is None or exceeded[1] >= fitted.tail.share:
        point, low, high = (float(one) for one in fitted.laws.worst(n, probabilities))
        if name == "jones":
            point = float(fitted.laws.return_levels(1 / n)[0])
        return point, low, high
    (point,), ends = _profile(fitted, float(exceeded[0]), level)
    known = fitted.tail.level(exceeded)
    low, high = log_odds(ends)
    low = known[0] - np.hypot(known[0] - low, known[0] - known[1])
    high = known[0] + np.hypot(high - known[0], known[2] - known[0])
    return point, _risk(low), _risk(high)


def reach_warnings(measured: Measured, n: int) -> tuple[str, ...]:
    """How far a forecast goes beyond what the queries carry, and what else weakens all methods."""
    m, warnings = len(measured), []
    if n > m:
        far = f"n is {_times(n / m)} times the {m} queries measured"
        reached = (
            f"the worst of n lies near the quantile 1 - {1 / n:.1g}, the data end at 1 - 1/{m}"
        )
        if n > _TESTED * m:
            warnings.append(f"{far}: {reached}. Nothing tested coverage beyond {_TESTED:,} times")
        elif n > 10 * m:
            warnings.append(f"{far}: {reached}. In between, the tail's assumed form speaks")
    if m < _FEW:
        warnings.append(
            f"of {m} queries the tail takes in the largest ten, {10 / m:.0%}: a forecast from so "
            "few is little more than its assumptions"
        )
    missed = int((~measured.seen).sum())
    if missed > m / 2:
        warnings.append(f"{missed} of {m} queries had no hit: bayes takes them as bounds, the "
                        "other methods count half a hit for each")  # fmt: skip
    requests = len(set(measured.bases))
    if requests < m:
        warnings.append(
            f"the {m} queries are wordings of {requests} requests, worth "
            f"{measured.independent:.0f} drawn one by one: bayes takes that into account, the "
            "other methods do not"
        )
    if measured.unsure:
        warnings.append(f"{measured.unsure} of {m} estimates are unreliable by their own verdict")
    return tuple(warnings)


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _profile(fitted: Fitted, probability: float, level: float) -> tuple[list[float], list[float]]:
    """A return level as a risk, and its profile-likelihood interval."""
    assert fitted.tail is not None and fitted.excesses is not None
    reach = float(np.log(fitted.tail.share / probability))
    ends = return_level_interval(fitted.excesses, reach, level=level, prior=SHAPE_PRIOR)
    middle = float(fitted.tail.level(probability))
    return [_risk(middle)], [_risk(fitted.tail.threshold + end) for end in ends]


def _risk(odds: float) -> float:
    from scipy.special import expit

    return float(expit(odds))


def _exceedance(fitted: Fitted, tau: float, n: int, tails: Sequence[float]) -> Exceedance:
    laws, each = fitted.laws, fitted.laws.exceeding(tau)
    low, high = laws.quantiles(n * each, tails) if fitted.uncertain else (None, None)
    return Exceedance(tau, laws.worst_exceeds(tau, n), float(n * laws.weights @ each), low, high)
