"""Which hits carry an estimate? As a figure."""

from typing import Any

import numpy as np

from tailcast.analysis.explain import Explanation
from tailcast.report.look import Look, load_altair

__all__ = ["hit_weights_of"]

_MOST = 5  # proposals with a colour of their own
_REST = "others"


def hit_weights_of(found: Explanation, look: Look) -> Any:
    """The hits' weights by proposal, and how few of them carry the estimate.

    Args:
        found: What carries it.
        look: Colours and width.

    Returns:
        An altair chart of two parts side by side.
    """
    alt = load_altair()
    named = [row[0] for row in found.by_proposal if row[2]][:_MOST]
    shares = np.cumsum([one.share for one in found.hits])
    rows = [
        {
            "by": one.proposal if one.proposal in named else _REST,
            "weight": float(one.log_weighted / np.log(10)), "rank": rank, "share": float(share),
        }
        for rank, (one, share) in enumerate(zip(found.hits, shares, strict=True), start=1)
    ]  # fmt: skip
    names = [*named, _REST] if any(row["by"] == _REST for row in rows) else named
    title = f"{found.estimate['query_id']} by {found.estimate['method']}"
    heading = alt.Title(title, fontSize=13, color=look.ink, anchor="start")
    size = {"width": look.width // 2, "height": 240}
    parts = [_weights(alt, rows, names, look), _carried(alt, rows, look)]
    return alt.hconcat(*(one.properties(**size) for one in parts), title=heading)


def _weights(alt: Any, rows: list[dict[str, Any]], names: list[str], look: Look) -> Any:
    """Weights by proposal."""
    colours = alt.Scale(domain=names, range=look.series(len(names)))
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(aria=False)
        .encode(
            x=alt.X("weight:Q", bin=alt.Bin(maxbins=20), title="log10 of a hit's weight"),
            y=alt.Y("count()", title="hits", axis=alt.Axis(tickMinStep=1)),
            color=alt.Color(
                "by:N", scale=colours, legend=alt.Legend(columns=2, labelLimit=340)
            ),
        )
    )  # fmt: skip


def _carried(alt: Any, rows: list[dict[str, Any]], look: Look) -> Any:
    """What the largest hits carry together."""
    ranks = alt.Scale(type="log", nice=False, domain=[1, max(len(rows), 2)])
    share, percent = alt.Scale(domain=[0, 1]), alt.Axis(format=".0%")
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_line(interpolate="step-after", color=look.ink, strokeWidth=2, aria=False)
        .encode(
            x=alt.X("rank:Q", scale=ranks, title="largest hits"),
            y=alt.Y("share:Q", scale=share, axis=percent, title="share of the estimate"),
        )
    )
