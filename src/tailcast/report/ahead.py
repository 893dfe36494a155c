"""What are the risks of queries not yet asked? The forecast by bayes, as the report shows it."""

from dataclasses import dataclass

import numpy as np

from tailcast.analysis.forecast import forecast_one, reach_warnings, worst_of
from tailcast.analysis.forecast_methods import bayes
from tailcast.analysis.measured import read_measured

__all__ = ["Ahead", "read_ahead"]

_LADDER = (100, 1_000, 10_000, 100_000, 1_000_000)
_POINTS = 36


@dataclass(frozen=True)
class Ahead:
    """The worst risk of n unseen queries.

    Attributes:
        measured: How many queries were measured.
        seen: Their risks, the largest first; those without a hit left out.
        level: Coverage of the intervals.
        curve: n, the median of the largest of n risks, and where it lies.
        rows: n, the same three, and the mean risk with both ends.
        warnings: What weakens the forecast of the largest n.
    """

    measured: int
    seen: tuple[float, ...]
    level: float
    curve: tuple[tuple[int, float, float, float], ...]
    rows: tuple[tuple[float, ...], ...]
    warnings: tuple[str, ...]


def read_ahead(directory: str, *, level: float = 0.9) -> Ahead:
    """The forecast of a run.

    Args:
        directory: The run.
        level: Coverage of the intervals.

    Raises:
        DataError: If its queries are too few, or none had a hit.
    """
    measured = read_measured([directory])
    measured.checked()
    fitted = bayes(measured)
    steps = np.geomspace(10, _LADDER[-1], _POINTS).astype(int)
    many = np.unique([*steps, len(measured)]).tolist()
    rows = []
    for n in _LADDER:
        one = forecast_one("bayes", fitted, measured, n, level=level)
        worst = (one.worst, one.worst_low, one.worst_high)
        rows.append((n, *worst, one.mean, one.mean_low, one.mean_high))
    return Ahead(
        measured=len(measured),
        seen=tuple(sorted(measured.risks[measured.seen].tolist(), reverse=True)),
        level=level,
        curve=tuple((n, *worst_of("bayes", fitted, n, level)) for n in many),
        rows=tuple(rows),
        warnings=reach_warnings(measured, _LADDER[-1]),
    )
