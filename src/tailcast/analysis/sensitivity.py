"""How much does a risk depend on the wording of the request?

Queries are wordings of base queries; the variance of log risk within a base query is that of the
wording, the one between is that of what is asked (see :mod:`tailcast.stats.nested`). Each
estimate enters as a likelihood: hits of plain draws as binomial, weighted estimates as log-normal
with the width of their interval, queries without a hit as bounded from above.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailcast.analysis.measured import base_query
from tailcast.analysis.risks import QueryRisk
from tailcast.analysis.runs import Run
from tailcast.analysis.worlds import draws_without_hit
from tailcast.errors import ConfigError, DataError
from tailcast.stats.nested import STEP, NestedFit, NestedPart, draw_nested, fit_nested, nested_grid

__all__ = ["BaseQuery", "Decades", "Sensitivity", "bases_of", "likelihood", "sensitivity"]

Floats = NDArray[np.float64]

_WORLDS = 1000
_POINTS = 9  # of a likelihood in a cell of the grid


@dataclass(frozen=True)
class Decades:
    """A number of decades (powers of ten) with its interval; None where there is no end.

    Attributes:
        value: The estimate.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class BaseQuery:
    """One base query over its wordings.

    Attributes:
        base: Its name.
        queries: Number of wordings that were measured, its own one included if it is there.
        unhit: How many of them have no hit.
        typical: Geometric mean of the wordings' risks.
        spread: From the safest wording to the worst.
        shown: This much of the spread at least, by p_low of one and the upper end of another,
            without the model; 0 where these overlap.
        worst: What is known of the wording of the largest estimate; None without any hit.
        worst_chance: Chance that no other measured wording is worse.
        rise: From the base query's own wording to the worst; None if that was not measured.
    """

    base: str
    queries: int
    unhit: int
    typical: float
    spread: Decades
    shown: float
    worst: QueryRisk | None
    worst_chance: float | None
    rise: Decades | None


@dataclass(frozen=True)
class Sensitivity:
    """Wordings of base queries.

    Attributes:
        run: Which run.
        within: Standard deviation of log10 risk over the wordings of a base query.
        between: The same over base queries; None if there is one only.
        share_within: Wording's share of the variance of log10 risk, in [0, 1]; likewise.
        mean: Mean log10 risk.
        bases: Every base query, in the order of the run.
        queries: Number of queries.
        unhit: How many have no hit.
        unsure: How many estimates are unreliable by their own verdict.
        level: Coverage that the intervals aim at.
    """

    run: str
    within: Decades
    between: Decades | None
    share_within: Decades | None
    mean: Decades
    bases: tuple[BaseQuery, ...]
    queries: int
    unhit: int
    unsure: int
    level: float


def bases_of(run: Run) -> list[str]:
    """The base query of each of a run's queries.

    By the queries' tags, where the run kept them; else by the ids, NAME/1 or NAME#1.
    """
    tags = {one.id: one.tags for one in run.asked}
    return [base_query(id, tags.get(id, ())) for id in run.query_ids]


def sensitivity(
    run: Run, bases: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> Sensitivity:
    """Spread of risk over wordings, the worst wording, and variance within and between.

    Args:
        run: A finished run.
        bases: Of :func:`bases_of`.
        level: Coverage of the intervals.
        seed: Of the random numbers.

    Raises:
        ConfigError: If the level is none.
        DataError: If no base query has two wordings, or no query a hit.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level must lie in (0, 1), got {level:g}.")
    names = list(dict.fromkeys(bases))
    if len(names) == len(run.risks):
        raise DataError(
            f"no two queries of {run.name} are paraphrases of one base query: name it in a column "
            "'base' of the query file, or by ids like NAME/1 and NAME/2."
        )
    if all(one.p is None for one in run.risks):
        raise DataError(
            f"none of the {len(run.risks)} queries of {run.name} has a hit, so nothing says how "
            "risks are spread: draw more samples, or steer."
        )
    grid = nested_grid(min(np.log10(one.p or one.ceiling) for one in run.risks))
    members = np.array([likelihood(one, grid) for one in run.risks])
    index = np.array([names.index(one) for one in bases])
    fit = fit_nested(members, index, grid, level=level)
    drawn = draw_nested(fit, _WORLDS, seed=seed)
    found = [
        _base(name, [run.risks[one] for one in mine], drawn[:, mine], level)
        for number, name in enumerate(names)
        for mine in [np.flatnonzero(index == number)]
    ]
    several = len(names) > 1
    return Sensitivity(
        run=run.name,
        within=_part(fit.within),
        between=_part(fit.between) if several else None,
        share_within=_part(fit.share_within) if several else None,
        mean=_mean(fit),
        bases=tuple(found),
        queries=len(run.risks),
        unhit=sum(one.p is None for one in run.risks),
        unsure=sum(one.verdict == "unreliable" for one in run.risks),
        level=level,
    )


def likelihood(risk: QueryRisk, grid: Floats) -> Floats:
    """What an estimate says of log10 of its risk, largest value 1, [X].

    Hits of n plain draws are binomial; no hit is as none in as many plain draws as would give the
    same upper end; another estimate is unbiased and log-normal with the width of its interval.

    Args:
        risk: The estimate.
        grid: Cells of log10 risk; averaged over each.
    """
    inside = STEP * (np.arange(_POINTS) - (_POINTS - 1) / 2) / _POINTS
    logs = np.minimum(grid[:, None] + inside, 0.0) * np.log(10)
    if risk.p is None or risk.method == "mc":
        missed = draws_without_hit(risk) if risk.p is None else risk.n - risk.n_hits
        height = risk.n_hits * logs
        if missed:
            with np.errstate(divide="ignore"):
                height = height + missed * np.log(-np.expm1(logs))
    else:
        centre, error = _log_normal(risk)
        height = -0.5 * ((logs - centre) / error) ** 2
    cells = np.exp(height - height.max()).mean(axis=1)
    found: Floats = cells / cells.max()
    return found


def _log_normal(risk: QueryRisk) -> tuple[float, float]:
    """Centre and standard deviation of log risk, given an unbiased log-normal estimate."""
    from scipy.stats import norm

    p = risk.p or 1.0
    reach = 2 * norm.ppf((1 + risk.level) / 2)
    low = risk.ci_low or p**2 / risk.ci_high
    error = max(float(np.log(risk.ci_high / low) / reach), 1e-6)
    return float(np.log(p)) + error**2 / 2, error


def _base(name: str, risks: list[QueryRisk], drawn: Floats, level: float) -> BaseQuery:
    """One base query, from its wordings and what they are in worlds, [worlds, wordings]."""
    hit = [number for number, one in enumerate(risks) if one.p is not None]
    largest = max(hit, key=lambda one: risks[one].p or 0.0) if hit else None
    own = next((number for number, one in enumerate(risks) if one.query_id == name), None)
    top = drawn.max(axis=1)
    reach = max(one.p_low for one in risks) / min(one.ceiling for one in risks)
    return BaseQuery(
        base=name,
        queries=len(risks),
        unhit=len(risks) - len(hit),
        typical=float(10 ** np.median(drawn.mean(axis=1))),
        spread=_quantiles(top - drawn.min(axis=1), level),
        shown=float(np.log10(max(reach, 1.0))),
        worst=None if largest is None else risks[largest],
        worst_chance=None if largest is None else float((drawn[:, largest] == top).mean()),
        rise=None if own is None else _quantiles(top - drawn[:, own], level),
    )


def _quantiles(values: Floats, level: float) -> Decades:
    tail = (1 - level) / 2
    return Decades(*(float(one) for one in np.quantile(values, [0.5, tail, 1 - tail])))


def _part(one: NestedPart) -> Decades:
    return Decades(one.value, one.low, one.high if np.isfinite(one.high) else None)


def _mean(fit: NestedFit) -> Decades:
    """The mean, without ends where only the grid ends it."""
    low = None if fit.mean.low <= fit.grid[1] else fit.mean.low
    return Decades(fit.mean.value, low, min(fit.mean.high, 0.0))
