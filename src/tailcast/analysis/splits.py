"""Had one measured a part of the queries only, would the forecast of the others have been right?

The experiment of Angell et al. 2026: random 30% of the queries are fitted, and the largest and
the mean risk of the other 70% forecast. Splitting by query puts paraphrases of one base query on
both sides; splitting by base query does not.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tailcast.analysis.forecast import check_level, forecast_one
from tailcast.analysis.forecast_methods import METHODS
from tailcast.analysis.measured import FEWEST_QUERIES, Measured
from tailcast.errors import ConfigError, DataError

__all__ = ["By", "Score", "SplitScore", "split_experiment"]

By = Literal["query", "base"]


@dataclass(frozen=True)
class Score:
    """Forecasts of one number against what was shown, over all splits.

    Attributes:
        error: Mean absolute error, decades.
        bias: Mean error, decades: below 0 too little was forecast.
        below: Share of the splits where too little was forecast; 0.5 is unbiased.
        covered: Share of the splits whose interval holds what was shown.
    """

    error: float
    bias: float
    below: float
    covered: float


@dataclass(frozen=True)
class SplitScore:
    """How one method did.

    Attributes:
        by: Split by "query" or by "base" query.
        method: Which.
        splits: Splits that it could be fitted in, of those where the other part had a hit.
        failed: Splits that it could not be fitted in.
        fitted: Queries fitted, on average.
        unseen: Queries forecast, on average.
        level: Coverage that the intervals aim at.
        worst: Of the largest risk; None without a split.
        mean: Of the mean risk.
    """

    by: By
    method: str
    splits: int
    failed: int
    fitted: float
    unseen: float
    level: float
    worst: Score | None
    mean: Score | None


def split_experiment(
    measured: Measured, *, splits: int = 200, share: float = 0.3, level: float = 0.9, seed: int = 0
) -> list[SplitScore]:
    """The experiment by query and, where queries have paraphrases, by base query.

    What the other part shows are its estimates, so their noise is in the errors.

    Args:
        measured: All queries.
        splits: Random splits of each kind.
        share: Of the queries that are fitted.
        level: Coverage of the intervals.
        seed: Names the splits.

    Raises:
        ConfigError: If a number makes no sense.
        DataError: If the fitted part would have fewer than ten queries.
    """
    if splits < 1 or not 0 < share < 1:
        raise ConfigError(f"{splits} splits at a share of {share:g}: give 1 or more, and 0 to 1.")
    check_level(level)
    measured.checked()
    if round(share * len(measured)) < FEWEST_QUERIES:
        least = int(np.ceil(FEWEST_QUERIES / share))
        raise DataError(
            f"{share:.0%} of {len(measured)} queries are too few to forecast from: the experiment "
            f"needs at least {least} queries."
        )
    kinds: list[By] = ["query"]
    if len(set(measured.bases)) < len(measured):
        kinds.append("base")
    return [one for by in kinds for one in _scores(measured, by, splits, share, level, seed)]


def _scores(
    measured: Measured, by: By, splits: int, share: float, level: float, seed: int
) -> list[SplitScore]:
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in METHODS}
    failed, sizes = Counter[str](), []
    for left, right in _parts(measured, by, splits, share, seed):
        known, other = measured.part(left), measured.part(right)
        if not other.seen.any() or len(known) < FEWEST_QUERIES:
            continue
        sizes.append((len(known), len(other)))
        for name in METHODS:
            try:
                rows[name].append(_trial(name, known, other, level))
            except DataError:
                failed[name] += 1
    fitted, unseen = (float(one) for one in np.mean(sizes or [(0, 0)], axis=0))
    return [
        SplitScore(
            by, name, len(found), failed[name], fitted, unseen, level,
            _score([one[:2] for one in found]), _score([one[2:] for one in found]),
        )
        for name, found in rows.items()
    ]  # fmt: skip


def _trial(name: str, known: Measured, other: Measured, level: float) -> tuple[float, ...]:
    """Error of the largest, whether covered; error of the mean, whether covered."""
    fitted = METHODS[name](known.checked())
    found = forecast_one(name, fitted, known, len(other), level=level)
    largest = float(other.risks[other.seen].max())
    told = other.draws > 0
    mean = float((other.hits[told] / other.draws[told]).mean())
    return (
        float(np.log10(found.worst / largest)),
        float(found.worst_low <= largest <= found.worst_high),
        float(np.log10(found.mean / mean)),
        float(found.mean_low <= mean <= found.mean_high),
    )


def _score(rows: list[tuple[float, ...]]) -> Score | None:
    """Of errors and whether each is covered."""
    if not rows:
        return None
    errors, covered = np.array(rows).T
    found = np.abs(errors).mean(), errors.mean(), (errors < 0).mean(), covered.mean()
    return Score(*(float(one) for one in found))


def _parts(
    measured: Measured, by: By, splits: int, share: float, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Both sides of every split, as places of queries."""
    names = measured.bases if by == "base" else measured.ids
    _, group = np.unique(np.array(names), return_inverse=True)
    sizes, rng = np.bincount(group), np.random.default_rng([seed, len(measured)])
    for _ in range(splits):
        order = rng.permutation(len(sizes))
        before = np.cumsum(sizes[order]) - sizes[order] / 2
        left = np.isin(group, order[before <= share * len(measured)])
        yield np.flatnonzero(left), np.flatnonzero(~left)
