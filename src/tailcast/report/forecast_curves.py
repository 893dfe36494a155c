"""How does the worst risk grow with the number of queries? As a figure."""

from typing import Any

import numpy as np

from tailcast.analysis.forecast import worst_of
from tailcast.analysis.forecast_methods import METHODS
from tailcast.analysis.measured import Measured
from tailcast.errors import DataError
from tailcast.report.axes import floor_of, log_axis
from tailcast.report.look import Look, load_altair

__all__ = ["forecasts_of"]

_BANDS = ("bayes", "pot")
_POINTS = 40
_LEAST = 1e-6  # end of the axis, at the most


def forecasts_of(measured: Measured, n: int, look: Look, *, level: float = 0.9) -> Any:
    """The forecast worst risk over 10 to n queries, and the measured risks by their rank.

    Args:
        measured: The queries.
        n: The largest number of unseen queries.
        look: Colours and width.
        level: Coverage of the bands, of bayes and pot alone.

    Returns:
        An altair chart.
    """
    alt = load_altair()
    rows = _rows(measured, n, level)
    seen = np.sort(measured.risks[measured.seen])[::-1]
    points = [
        {"n": len(measured) / rank, "risk": float(one)} for rank, one in enumerate(seen, start=1)
    ]
    names = list(dict.fromkeys(row["method"] for row in rows))
    bottom = max(min([*seen, *(row["low"] for row in rows)]), _LEAST)
    x = alt.X(
        "n:Q", scale=alt.Scale(type="log", domain=[1, n], clamp=True), title="queries",
        axis=alt.Axis(values=[10.0**k for k in range(19)], format="~s"),
    )  # fmt: skip
    floor = floor_of([bottom])
    scale = alt.Scale(type="log", domain=[floor, 1], clamp=True)
    powers = log_axis(alt, floor, look, sideways=False)
    y = alt.Y("worst:Q", scale=scale, axis=powers, title="largest risk among them")
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=x,
        color=alt.Color(
            "method:N", scale=alt.Scale(domain=names, range=look.series(len(names)))
        ),
    )  # fmt: skip
    banded, bare = (base.transform_filter(f"{sign}datum.banded") for sign in ("", "!"))
    band = banded.mark_area(opacity=0.15, aria=False).encode(
        y=alt.Y("low:Q", scale=scale, axis=powers), y2="high"
    )
    lines = banded.mark_line(strokeWidth=2.2, aria=False).encode(y=y)
    dashed = bare.mark_line(strokeWidth=1.6, strokeDash=[5, 4], aria=False).encode(y=y)
    known = (
        alt.Chart(alt.Data(values=points))
        .mark_point(size=12, filled=True, color=look.ink, aria=False)
        .encode(x=x, y=alt.Y("risk:Q", scale=scale, axis=powers))
    )
    end = alt.Chart(alt.Data(values=[{"n": len(measured)}])).mark_rule(
        color=look.faint, strokeDash=[2, 3], aria=False
    )
    return (band + lines + dashed + known + end.encode(x=x)).properties(
        width=look.width, height=300
    )


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
