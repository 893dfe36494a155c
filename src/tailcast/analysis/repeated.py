"""Which share of queries gets at least one harmful answer in n tries?

By counting, up to as many tries as each query has plain draws; by the risks, for any number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from tailcast.analysis.runs import Run, check_same, greedy_of
from tailcast.analysis.worlds import (
    Case,
    Floats,
    band,
    draw_risks,
    draw_weights,
    share_hit,
)
from tailcast.errors import ConfigError

__all__ = [
    "Repeated",
    "ShareHit",
    "combinatorial_share",
    "count_cases",
    "greedy_share",
    "repeated_report",
    "repeated_sampling",
    "tries_grid",
    "whole_tries",
]

_MOST_TRIES = 10**12


@dataclass(frozen=True)
class ShareHit:
    """Share of queries with at least one hit in some tries.

    Attributes:
        run: Which run.
        route: "draws": counted, "risks": by 1 - (1 - QRISK)^n, or "greedy".
        tries: Number of tries of each query.
        share: The estimate; by risks a query without a hit counts 0, so that it is rather too
            low. None where no query has a hit, which is no zero.
        low: Lower end of the band; queries without a hit count 0 there.
        high: Upper end; by risks such a query counts as much as its own upper end allows.
        queries: Number of queries.
        unhit: How many of them have no hit.
        level: Coverage that the band aims at.
    """

    run: str
    route: str
    tries: int
    share: float | None
    low: float
    high: float
    queries: int
    unhit: int
    level: float


@dataclass(frozen=True)
class Repeated:
    """Curves of several runs.

    Attributes:
        points: Of every run: greedy, counted, by the risks.
        missing: What could not be said, and why.
    """

    points: tuple[ShareHit, ...]
    missing: tuple[str, ...]

    @property
    def by_run(self) -> dict[str, list[ShareHit]]:
        """Points of each run."""
        names = dict.fromkeys(one.run for one in self.points)
        return {name: [one for one in self.points if one.run == name] for name in names}


def repeated_report(
    runs: Sequence[Run], tries: float, greedy: Run | None = None, *, level: float = 0.95
) -> Repeated:
    """Curves of runs that may stand side by side, each with its greedy point if there is one.

    Args:
        runs: At least one.
        tries: Largest number of tries.
        greedy: A run of greedy answers by the model of the only run.
        level: Coverage of the bands.

    Raises:
        ConfigError: If the runs differ in more than their models, or tries is no such number.
    """
    most = whole_tries(tries)
    check_same(runs)
    if greedy is not None and len(runs) > 1:
        raise ConfigError("greedy answers are of one model: give one run with them.")
    points, missing = [], []
    for run in runs:
        source = greedy_of(run, greedy)
        if source is None:
            missing.append(
                f"{run.name}: no greedy answers, it was drawn at temperature "
                f"{run.config.get('temperature')}; for them run it with --top-k 1 --samples 1 and "
                "give that run with --greedy."
            )
        else:
            points.append(greedy_share(run, source, level=level))
        if run.plain is None:
            missing.append(f"{run.name}: nothing to count, not every query has plain draws.")
        points += repeated_sampling(run, most, level=level)
    return Repeated(tuple(points), tuple(missing))


def whole_tries(value: float) -> int:
    """A number of tries, which may have been written as 1e6.

    Raises:
        ConfigError: If it is no whole number from 1 to 1e12.
    """
    if not (1 <= value <= _MOST_TRIES and value == int(value)):
        raise ConfigError(f"tries must be a whole number from 1 to 1e12, got {value:g}.")
    return int(value)


def tries_grid(most: int) -> list[int]:
    """1, 2, 5, 10, 20, 50 ... up to a number, which is always among them."""
    steps = (step * 10**power for power in range(len(str(most))) for step in (1, 2, 5))
    return sorted({*takewhile(lambda one: one <= most, steps), most})


def combinatorial_share(
    hits: NDArray[np.int64], n: NDArray[np.int64], tries: int
) -> NDArray[np.float64]:
    """1 - C(n-h, k) / C(n, k): unbiased for 1 - (1 - p)^k (Chen et al. 2021, pass@k).

    Args:
        hits: h of each query, [queries].
        n: Draws of each, fixed in advance, [queries].
        tries: k, at most the smallest n.
    """
    from scipy.special import gammaln

    misses = n - hits
    left = np.maximum(misses - tries, 0)
    logs = gammaln(misses + 1) - gammaln(left + 1) - gammaln(n + 1) + gammaln(n - tries + 1)
    found: Floats = np.where(misses >= tries, -np.expm1(np.minimum(logs, 0.0)), 1.0)
    return found


def repeated_sampling(run: Run, most: int, *, level: float = 0.95, seed: int = 0) -> list[ShareHit]:
    """The curve of a run, by both routes where there are both.

    Bands carry the choice of queries and the uncertainty of each estimate;
    :mod:`tailcast.analysis.worlds` says how.

    Args:
        run: A finished run.
        most: Largest number of tries.
        level: Coverage of the bands, each for itself.
        seed: Of the random numbers.

    Returns:
        Counted shares first, then those by the risks.
    """
    weights = draw_weights(len(run.risks), seed=seed)
    worlds = draw_risks(run.risks, len(weights), seed=seed)
    longest = 0 if run.plain is None else min(most, int(run.plain.n.min()))
    points = []
    if run.plain is not None and longest:
        unhit = int((run.plain.hits == 0).sum())
        for tries in tries_grid(longest):
            share = float(combinatorial_share(run.plain.hits, run.plain.n, tries).mean())
            ends = band(weights, count_cases(run, tries, len(weights), seed=seed), level=level)
            points.append(_point(run, "draws", tries, share, ends, unhit=unhit, level=level))
    unhit = int((~worlds.hit).sum())
    for tries in tries_grid(most):
        share = float(share_hit(worlds.given, tries).mean())
        ends = band(weights, worlds.after(tries), level=level)
        points.append(_point(run, "risks", tries, share, ends, unhit=unhit, level=level))
    return points


def _point(
    run: Run, route: str, tries: int, share: float, ends: tuple[float, float], *, unhit: int,
    level: float,
) -> ShareHit:  # fmt: skip
    queries = len(run.risks)
    known = share if unhit < queries else None
    return ShareHit(run.name, route, tries, known, *ends, queries, unhit, level)


def count_cases(run: Run, tries: int, worlds: int, *, seed: int = 0) -> tuple[Case, ...]:
    """Case of counted shares: unbiased for each query, so that their spread holds their errors.

    The upper end takes draws that the judge failed on for hits.

    Args:
        run: A run with plain draws, at least ``tries`` of each query.
        tries: Number of tries.
        worlds: How many worlds.
        seed: Of the random numbers.
    """
    plain = run.plain
    assert plain is not None
    hits = plain.hits + plain.failed
    worst = int(np.lexsort((-plain.n, hits / plain.n))[-1])
    rng = np.random.default_rng([20_260_426, seed])
    first = rng.standard_gamma(hits[worst] + 1, worlds)
    risk = first / (first + rng.standard_gamma(plain.n[worst] - hits[worst], worlds))
    low = combinatorial_share(plain.hits, plain.n, tries)
    return (Case(low, combinatorial_share(hits, plain.n, tries), share_hit(risk, tries)),)


def greedy_share(run: Run, greedy: Run, *, level: float = 0.95) -> ShareHit:
    """Share of queries whose greedy answer is a hit, with the exact binomial interval.

    Args:
        run: The run that it is the first point of.
        greedy: The run that holds greedy answers to the same queries.
        level: Coverage.
    """
    from tailcast.stats import clopper_pearson

    hit = sum(one.n_hits > 0 for one in greedy.risks)
    queries = len(greedy.risks)
    ends = clopper_pearson(hit, queries, level=level)
    known = hit / queries if hit else None
    return ShareHit(run.name, "greedy", 1, known, *ends, queries, queries - hit, level)
