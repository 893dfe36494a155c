"""What do these risks mean at so many calls a day?

Calls are independent: each draws a query by its weight, and an answer of the model to it.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tailcast.analysis.runs import Run
from tailcast.analysis.worlds import Floats, band, draw_risks, draw_weights
from tailcast.data import load_weights
from tailcast.errors import ConfigError, DataError

__all__ = ["Deployment", "Quantity", "calls_per_day", "deployment", "query_weights"]

DAYS = {
    "second": 1 / 86_400,
    "minute": 1 / 1440,
    "hour": 1 / 24,
    "day": 1.0,
    "week": 7.0,
    "month": 365.25 / 12,
    "year": 365.25,
}
_SEEN = 0.95  # chance at which an evaluation is large enough


@dataclass(frozen=True)
class Quantity:
    """A number with its interval.

    Attributes:
        name: "risk_of_a_call", "harmful_a_day", "chance_of_one_in_a_day", "days_to_the_first"
            (in the mean), or "answers_to_see_one": so many, drawn like calls, hold at least one
            harmful one with a chance of 95%.
        past_monitor: Whether it is of what the monitor lets through.
        value: The estimate; None where no query has a hit, which is no zero.
        low: Lower end; None for a number without bound.
        high: Upper end, likewise.
    """

    name: str
    past_monitor: bool
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Deployment:
    """What a run's risks mean in use.

    Attributes:
        run: Which run.
        calls_a_day: Calls.
        monitor_recall: Share of harmful answers that a monitor stops; None without one.
        quantities: The numbers.
        risk_at_ceilings: Risk of a call if every query without a hit were at its upper end.
        carriers: The queries with the largest shares of the risk, and these shares.
        queries: Number of queries.
        unhit: How many have no hit.
        level: Coverage that the intervals aim at.
    """

    run: str
    calls_a_day: float
    monitor_recall: float | None
    quantities: tuple[Quantity, ...]
    risk_at_ceilings: float
    carriers: tuple[tuple[str, float], ...]
    queries: int
    unhit: int
    level: float


def calls_per_day(text: str) -> float:
    """Calls a day, from "1e9/day", "200/second" or a plain number a day.

    Raises:
        ConfigError: If it is neither, or not a positive number.
    """
    number, _, unit = text.partition("/")
    unit = unit.strip() or "day"
    pattern = r"\s*\d+(\.\d*)?(e[+-]?\d+)?\s*"
    if re.fullmatch(pattern, number, re.IGNORECASE) is None or unit not in DAYS:
        raise ConfigError(
            f"calls must be a number and a unit, as 1e9/day (units: {', '.join(DAYS)}), "
            f"got {text!r}."
        )
    calls = float(number) / DAYS[unit]
    if not 0 < calls < math.inf:
        raise ConfigError(f"calls must be a positive finite number, got {text!r}.")
    return calls


def query_weights(run: Run, source: str) -> Floats:
    """Weights of a run's queries, [queries], from a file or from a column of its query file.

    Args:
        run: The run.
        source: A file with columns id and weight, or else the name of a column.

    Raises:
        DataError: If they cannot be read.
    """
    if Path(source).suffix or Path(source).exists():
        return np.array(load_weights(source, "weight", run.query_ids))
    return np.array(load_weights(str(run.config.get("queries")), source, run.query_ids))


def deployment(
    run: Run,
    calls_a_day: float,
    *,
    weights: Floats | None = None,
    monitor_recall: float | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Deployment:
    """Expected harm, chances and waiting times, with intervals.

    They carry the uncertainty of each estimate and the choice of queries: the run's queries
    stand for what is asked in use, each as often as its weight says. Estimates are unbiased,
    those of 0 hits included, so that the mean needs no upper ends for them; what these would
    make of it is ``risk_at_ceilings``.

    Args:
        run: A finished run.
        calls_a_day: Calls.
        weights: Of each query, [queries]; equal ones if None.
        monitor_recall: Share of harmful answers that a monitor stops, in [0, 1].
        level: Coverage of the intervals.
        seed: Of the random numbers.

    Raises:
        ConfigError: If the recall is no share.
        DataError: If the weights are not positive in sum.
    """
    if monitor_recall is not None and not 0 <= monitor_recall <= 1:
        raise ConfigError(f"monitor_recall must lie in [0, 1], got {monitor_recall:g}.")
    base = np.ones(len(run.risks)) if weights is None else np.asarray(weights, dtype=float)
    if base.sum() <= 0:
        raise DataError("the weights of the run's queries add up to 0: give some of them weight.")
    shares = base / base.sum()
    drawn = draw_weights(len(base), base=base, seed=seed)
    risks = draw_risks(run.risks, len(drawn), seed=seed)
    carried = shares * risks.given
    mean = float(carried.sum())
    ends = (mean or None, *band(drawn, risks.mean(), level=level))
    quantities = _quantities(ends, calls_a_day, passed=1.0)
    if monitor_recall is not None:
        quantities += _quantities(ends, calls_a_day, passed=1 - monitor_recall)
    largest = [number for number in np.argsort(-carried)[:5] if carried[number] > 0]
    ceilings = np.array([one.ceiling if one.p is None else one.p for one in run.risks])
    return Deployment(
        run=run.name,
        calls_a_day=calls_a_day,
        monitor_recall=monitor_recall,
        quantities=quantities,
        risk_at_ceilings=float((shares * ceilings).sum()),
        carriers=tuple((run.query_ids[one], float(carried[one] / mean)) for one in largest),
        queries=len(base),
        unhit=int((~risks.hit).sum()),
        level=level,
    )


def _quantities(
    risk: tuple[float | None, float, float], calls: float, *, passed: float
) -> tuple[Quantity, ...]:
    """All numbers of a risk of a call; those that fall with the risk have their ends turned."""
    value, low, high = (None if one is None else one * passed for one in risk)

    def of(name: str, function: Callable[[float], float], *, falls: bool = False) -> Quantity:
        ends = [None if one is None else function(one) for one in (value, low, high)]
        finite = [one if one is not None and math.isfinite(one) else None for one in ends]
        return Quantity(name, passed < 1, finite[0], *(finite[:0:-1] if falls else finite[1:]))

    return (
        of("risk_of_a_call", lambda p: p),
        of("harmful_a_day", lambda p: p * calls),
        of("chance_of_one_in_a_day", lambda p: _at_least_one(p, calls)),
        of("days_to_the_first", lambda p: 1 / (p * calls) if p else math.inf, falls=True),
        of("answers_to_see_one", _answers, falls=True),
    )


def _at_least_one(risk: float, calls: float) -> float:
    return 1.0 if risk >= 1 else -math.expm1(calls * math.log1p(-risk))


def _answers(risk: float) -> float:
    """Fewest answers with a chance of 95% of at least one hit."""
    if risk >= 1:
        return 1.0
    return float(math.ceil(math.log(1 - _SEEN) / math.log1p(-risk))) if risk > 0 else math.inf
