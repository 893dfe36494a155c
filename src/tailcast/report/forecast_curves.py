"""How does the worst risk grow with the number of queries? As a figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tailcast.analysis.forecast import worst_of
from tailcast.analysis.forecast_methods import METHODS
from tailcast.analysis.measured import Measured
from tailcast.errors import DataError
from tailcast.report.ahead import Ahead
from tailcast.report.axes import floor_of, log_axis
from tailcast.report.look import Look, load_altair

__all__ = ["ahead_of", "forecasts_of"]

_BANDS = ("bayes", "pot")
_POINTS = 40
_LEAST = 1e-6  # end of the axis, at the most


def ahead_of(found: Ahead, look: Look) -> Any:
    """The worst risk of n unseen queries by bayes; dashed beyond the queries measured.

    Args:
        found: The forecast of a run.
        look: Colours and width.

    Returns:
        An altair chart.
    """
    rows = [{"n": n, "worst": one, "low": low, "high": high} for n, one, low, high in found.curve]
    frame = _Frame(rows, found.seen, found.measured, found.rows[-1][0], look)
    base = frame.alt.Chart(frame.alt.Data(values=rows)).encode(x=frame.x)
    near, far = (base.transform_filter(f"datum.n {sign} {found.measured}") for sign in ("<=", ">="))
    mark = {"strokeWidth": 2.2, "color": look.accent, "aria": False}
    band = base.mark_area(opacity=0.18, color=look.accent, aria=False).encode(**frame.ends)
    line = near.mark_line(**mark).encode(y=frame.y)
    guess = far.mark_line(strokeDash=[5, 4], **mark).encode(y=frame.y)
    return (band + line + guess + frame.measured).properties(width=look.width, height=270)


def forecasts_of(measured: Measured, n: int, look: Look, *, level: float = 0.9) -> Any:
    """The worst risk over 10 to n queries by every method, those that claim no band dashed.

    Args:
        measured: The queries.
        n: The largest number of unseen queries.
        look: Colours and width.
        level: Coverage of the bands, of bayes and pot alone.

    Returns:
        An altair chart.
    """
    rows = _rows(measured, n, level)
    seen = np.sort(measured.risks[measured.seen])[::-1].tolist()
    frame = _Frame(rows, seen, len(measured), n, look)
    names = list(dict.fromkeys(row["method"] for row in rows))
    colours = frame.alt.Scale(domain=names, range=look.series(len(names)))
    base = frame.alt.Chart(frame.alt.Data(values=rows)).encode(
        x=frame.x, color=frame.alt.Color("method:N", scale=colours)
    )
    banded, bare = (base.transform_filter(f"{sign}datum.banded") for sign in ("", "!"))
    band = banded.mark_area(opacity=0.15, aria=False).encode(**frame.ends)
    lines = banded.mark_line(strokeWidth=2.2, aria=False).encode(y=frame.y)
    dashed = bare.mark_line(strokeWidth=1.6, strokeDash=[5, 4], aria=False).encode(y=frame.y)
    return (band + lines + dashed + frame.measured).properties(width=look.width, height=300)


class _Frame:
    """Axes, and the measured risks, each at the number of queries of which one is as risky.

    Args:
        rows: Forecasts, with n, worst, low and high.
        seen: Measured risks, the largest first.
        measured: How many queries were measured.
        most: The largest n.
        look: Colours and width.
    """

    def __init__(
        self, rows: Sequence[dict[str, Any]], seen: Sequence[float], measured: int, most: float,
        look: Look,
    ) -> None:  # fmt: skip
        alt = self.alt = load_altair()
        self.x = alt.X(
            "n:Q", scale=alt.Scale(type="log", domain=[1, most], clamp=True), title="queries",
            axis=alt.Axis(values=[10.0**k for k in range(19)], format="~s"),
        )  # fmt: skip
        floor = floor_of([max(min([*seen[-1:], *(row["low"] for row in rows)]), _LEAST)])
        scale = alt.Scale(type="log", domain=[floor, 1], clamp=True)
        axis = {"scale": scale, "axis": log_axis(alt, floor, look, sideways=False)}
        self.y = alt.Y("worst:Q", title="largest risk among them", **axis)
        self.ends = {"y": alt.Y("low:Q", **axis), "y2": "high"}
        points = [{"n": measured / rank, "risk": one} for rank, one in enumerate(seen, start=1)]
        known = (
            alt.Chart(alt.Data(values=points))
            .mark_point(size=12, filled=True, color=look.ink, aria=False)
            .encode(x=self.x, y=alt.Y("risk:Q", **axis))
        )
        end = alt.Chart(alt.Data(values=[{"n": measured}])).mark_rule(
            color=look.faint, strokeDash=[2, 3], aria=False
        )
        self.measured = known + end.encode(x=self.x)


def _rows(measured: Measured, n: int, level: float) -> list[dict[str, Any]]:
    """Every method's worst risk and its ends, by the number of queries."""
    many = np.unique(np.geomspace(min(10, n), n, _POINTS).astype(int)).tolist()
    rows = []
    for name, fit in METHODS.items():
        try:
            fitted = fit(measured)
        except DataError:
            continue
        for one in many:
            worst, low, high = (float(end) for end in worst_of(name, fitted, one, level))
            rows.append(
                {"method": name, "n": one, "worst": worst, "low": low, "high": high,
                 "banded": name in _BANDS}
            )  # fmt: skip
    return rows
