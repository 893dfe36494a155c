"""Which of several models is riskier, at one try and at many, and is the order real?

Models are paired over queries: in every world all of them meet the same queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from tailcast.analysis.repeated import combinatorial_share, count_cases, tries_grid
from tailcast.analysis.runs import Run, check_same
from tailcast.analysis.worlds import (
    Case,
    Floats,
    band,
    bands_of_ratio,
    chance_larger,
    draw_risks,
    draw_weights,
    share_hit,
)
from tailcast.errors import ConfigError

__all__ = ["Comparison", "Crossing", "Model", "Order", "Share", "compare"]


@dataclass(frozen=True)
class Share:
    """Share of queries with a hit in some tries; see :class:`tailcast.analysis.ShareHit`."""

    tries: int
    route: str
    value: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Model:
    """One run of a comparison.

    Attributes:
        run: Its directory.
        mean: Mean risk over queries; None without any hit.
        mean_low: Lower end of its interval.
        mean_high: Upper end.
        largest: Largest risk; None without any hit.
        largest_query: Whose it is.
        unhit: Number of queries without a hit.
        shares: Repeated sampling.
    """

    run: str
    mean: float | None
    mean_low: float
    mean_high: float
    largest: float | None
    largest_query: str | None
    unhit: int
    shares: tuple[Share, ...]


@dataclass(frozen=True)
class Order:
    """Two runs at some number of tries.

    Attributes:
        first: A run.
        second: A later one.
        tries: Number of tries; 0 for the mean risk.
        riskier: The one of larger value; None where they are equal.
        chance: That it is riskier on queries like these, at least.
        decades: log10 of the second's value over the first's; None where one has none.
        low: Lower end of its interval; None without bound.
        high: Upper end, likewise.
    """

    first: str
    second: str
    tries: int
    riskier: str | None
    chance: float
    decades: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Crossing:
    """Where the order of two runs turns.

    Attributes:
        first: The run that is riskier before.
        second: The run that is riskier after.
        tries: About where the curves cross.
        chance_before: Of the order before, at least, where it is surest; down to the last turn.
        chance_after: Of the order after, likewise.
    """

    first: str
    second: str
    tries: float
    chance_before: float
    chance_after: float


@dataclass(frozen=True)
class Comparison:
    """Models side by side."""

    models: tuple[Model, ...]
    orders: tuple[Order, ...]
    crossings: tuple[Crossing, ...]
    queries: int
    level: float


_Values = tuple[Floats, tuple[Case, ...], str]


def compare(runs: Sequence[Run], most: int, *, level: float = 0.95, seed: int = 0) -> Comparison:
    """Compare runs of the same queries.

    Args:
        runs: At least one; each pair is compared.
        most: Largest number of tries.
        level: Coverage of the intervals.
        seed: Of the random numbers.

    Raises:
        ConfigError: If they differ in sampling settings, judge, threshold or queries, or one is
            named twice.
    """
    twice = next((one.name for one in runs if [each.name for each in runs].count(one.name) > 1), "")
    if twice:
        raise ConfigError(f"run {twice} is named twice: compare different runs.")
    check_same(runs)
    queries = len(runs[0].risks)
    weights = draw_weights(queries, seed=seed)
    grid = tries_grid(most)
    values = _values(runs, grid, len(weights), seed)
    orders = [
        _order(weights, (runs[one], runs[two]), tries, (row[one], row[two]), level)
        for one, two in combinations(range(len(runs)), 2)
        for tries, row in values.items()
    ]
    models = [
        _model(run, weights, {tries: row[number] for tries, row in values.items()}, level)
        for number, run in enumerate(runs)
    ]
    crossings = [
        found
        for one, two in combinations(runs, 2)
        for found in _crossings(
            [each for each in orders if (each.first, each.second) == (one.name, two.name)]
        )
    ]
    return Comparison(tuple(models), tuple(orders), tuple(crossings), queries, level)


def _values(
    runs: Sequence[Run], grid: Sequence[int], worlds: int, seed: int
) -> dict[int, list[_Values]]:
    """Point values, cases and route of every run, by tries; 0 for the mean risk.

    Shares are counted where plain draws are all that the runs have, as far as they go; else
    they are by the risks, which know more.
    """
    plain = all(one.method == "mc" for run in runs for one in run.risks)
    counted = [int(run.plain.n.min()) if plain and run.plain else 0 for run in runs]
    seeds = [seed * 1000 + number for number in range(len(runs))]
    risks = [draw_risks(run.risks, worlds, seed=each) for run, each in zip(runs, seeds)]
    table: dict[int, list[_Values]] = {0: [(one.given, one.mean(), "risks") for one in risks]}
    for tries in grid:
        if tries <= min(counted):
            table[tries] = [
                (
                    combinatorial_share(run.plain.hits, run.plain.n, tries),
                    count_cases(run, tries, worlds, seed=each),
                    "draws",
                )
                for run, each in zip(runs, seeds)
                if run.plain is not None
            ]
        else:
            table[tries] = [
                (share_hit(one.given, tries), one.after(tries), "risks") for one in risks
            ]
    return table


def _model(run: Run, weights: Floats, values: dict[int, _Values], level: float) -> Model:
    given = values[0][0]
    low, high = band(weights, values[0][1], level=level)
    shares = [
        Share(tries, route, float(points.mean()) or None, *band(weights, cases, level=level))
        for tries, (points, cases, route) in values.items()
        if tries
    ]
    worst = int(given.argmax())
    hit = bool(given[worst] > 0)
    return Model(
        run=run.name,
        mean=float(given.mean()) if hit else None,
        mean_low=low,
        mean_high=high,
        largest=float(given[worst]) if hit else None,
        largest_query=run.query_ids[worst] if hit else None,
        unhit=sum(one.p is None for one in run.risks),
        shares=tuple(shares),
    )


def _order(
    weights: Floats, runs: tuple[Run, Run], tries: int, pair: tuple[_Values, _Values],
    level: float,
) -> Order:  # fmt: skip
    first, second = (float(one[0].mean()) for one in pair)
    cases = [one[1] for one in pair]
    riskier, chance = None, 0.0
    if first != second:
        lead = 0 if first > second else 1
        riskier = runs[lead].name
        chance = chance_larger(weights, cases[lead], cases[1 - lead])
    ends = bands_of_ratio(weights, cases[1], cases[0], level=level)
    low, high = (one if np.isfinite(one) else None for one in ends)
    decades = float(np.log10(second / first)) if first > 0 and second > 0 else None
    return Order(runs[0].name, runs[1].name, tries, riskier, chance, decades, low, high)


def _crossings(orders: Sequence[Order]) -> list[Crossing]:
    """Turns of a pair's order along the tries; where both are equal there is none."""
    kept = [one for one in orders if one.tries and one.riskier and one.decades is not None]
    stretches: list[list[Order]] = []
    for one in kept:
        if not stretches or stretches[-1][-1].riskier != one.riskier:
            stretches.append([])
        stretches[-1].append(one)
    found = []
    for before, after in pairwise(stretches):
        left, right = before[-1], after[0]
        step = (left.decades or 0.0) / ((left.decades or 0.0) - (right.decades or 0.0))
        tries = left.tries * (right.tries / left.tries) ** step
        chances = [max(one.chance for one in stretch) for stretch in (before, after)]
        found.append(Crossing(str(left.riskier), str(right.riskier), tries, *chances))
    return found
