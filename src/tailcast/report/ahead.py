"""What are the risks of queries not yet asked? Figure and rows of the forecast by bayes."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tailcast.analysis.forecast import forecast_one, reach_warnings, worst_of
from tailcast.analysis.forecast_methods import bayes
from tailcast.analysis.measured import read_measured
from tailcast.errors import DataError, StoreError
from tailcast.report.look import Look, load_altair
from tailcast.report.run import Run

__all__ = ["Ahead", "ahead_of", "draw_ahead"]

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


@cache
def _forecast(directory: Path, level: float) -> Ahead:
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


def ahead_of(run: Run, *, level: float = 0.9) -> Ahead:
    """The forecast of a run.

    Raises:
        StoreError: If its queries are too few, or none had a hit.
    """
    try:
        return _forecast(run.store.path, level)
    except DataError as error:
        raise StoreError(str(error)) from None


def draw_ahead(run: Run, look: Look) -> Any:
    """The worst risk of n unseen queries; dashed beyond the queries that were measured."""
    alt, found = load_altair(), ahead_of(run)
    rows = [{"n": n, "worst": one, "low": low, "high": high} for n, one, low, high in found.curve]
    bottom = min([*found.seen[-1:], *(row["low"] for row in rows)])
    points = [
        {"n": found.measured / rank, "risk": one}
        for rank, one in enumerate(found.seen, start=1)
        if found.measured / rank >= 1
    ]
    x = alt.X(
        "n:Q", scale=alt.Scale(type="log", domain=[1, _LADDER[-1]]), title="queries",
        axis=alt.Axis(values=[10.0**k for k in range(7)], format="~s"),
    )  # fmt: skip
    scale = alt.Scale(type="log", domain=[max(bottom, 1e-6), 1], clamp=True)
    powers = alt.Axis(values=[10.0**-k for k in range(7)], format="~g")
    y = alt.Y("worst:Q", scale=scale, axis=powers, title="largest risk among them")
    base = alt.Chart(alt.Data(values=rows)).encode(x=x)
    band = base.mark_area(opacity=0.18, color=look.accent, aria=False).encode(
        y=alt.Y("low:Q", scale=scale, axis=powers), y2="high"
    )
    near, far = (base.transform_filter(f"datum.n {sign} {found.measured}") for sign in ("<=", ">="))
    line = near.mark_line(strokeWidth=2.2, color=look.accent, aria=False).encode(y=y)
    guess = far.mark_line(strokeWidth=2.2, strokeDash=[5, 4], color=look.accent, aria=False).encode(
        y=y
    )
    known = (
        alt.Chart(alt.Data(values=points))
        .mark_point(size=12, filled=True, color=look.ink, aria=False)
        .encode(x=x, y=alt.Y("risk:Q", scale=scale, axis=powers))
    )
    end = alt.Chart(alt.Data(values=[{"n": found.measured}])).mark_rule(
        color=look.faint, strokeDash=[2, 3], aria=False
    )
    return (band + line + guess + known + end.encode(x=x)).properties(width=look.width, height=270)
