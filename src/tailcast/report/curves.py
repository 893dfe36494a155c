"""How does the share of queries that were hit grow with the tries? As a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

from tailcast.analysis.repeated import ShareHit
from tailcast.report.look import Look, load_altair

__all__ = ["curves_of"]

_GREEDY = 0.5  # the place of one greedy answer, left of one try


def curves_of(curves: Mapping[str, Sequence[ShareHit]], look: Look) -> Any:
    """Curves of runs in one figure: lines by the risks with their bands, points as counted.

    Args:
        curves: Points of each run, by the name that it is shown under.
        look: Colours and width.

    Returns:
        An altair chart.
    """
    alt = load_altair()
    rows = [
        {
            **vars(one), "run": name, "share": one.share or 0.0,
            "tries": _GREEDY if one.route == "greedy" else one.tries,
        }
        for name, points in curves.items()
        for one in points
    ]  # fmt: skip
    colour = alt.Color(
        "run:N",
        scale=alt.Scale(domain=list(curves), range=look.series(len(curves))),
        legend=alt.Legend() if len(curves) > 1 else None,
    )
    ends = [min(row["tries"] for row in rows), max(row["tries"] for row in rows)]
    x = alt.X(
        "tries:Q", scale=alt.Scale(type="log", domain=ends), title="tries of every query",
        axis=alt.Axis(values=[10.0**k for k in range(19)], format="~s", labelOverlap=True),
    )  # fmt: skip
    title = "queries with a hit in so many tries"
    scale = alt.Scale(domain=[0, 1])
    y = alt.Y("share:Q", scale=scale, axis=alt.Axis(format=".0%", tickCount=5), title=title)
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, color=colour)
    risks, draws, greedy = (
        base.transform_filter(f"datum.route == '{one}'") for one in ("risks", "draws", "greedy")
    )
    band = risks.mark_area(opacity=0.18, interpolate="monotone", aria=False).encode(
        y=alt.Y("low:Q", title=title), y2="high"
    )
    line = risks.mark_line(strokeWidth=2.2, interpolate="monotone", aria=False).encode(y=y)
    points = draws.mark_point(size=34, strokeWidth=1.6, aria=False).encode(y=y)
    single = greedy.mark_point(size=60, filled=True, shape="diamond", aria=False).encode(y=y)
    return (band + line + points + single).properties(width=look.width, height=270)
