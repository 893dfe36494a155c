"""How do the risks of a base query's wordings lie? As a figure."""

from typing import Any

from tailcast.analysis.runs import Run
from tailcast.analysis.sensitivity import Sensitivity, bases_of
from tailcast.report.axes import floor_of, log_axis
from tailcast.report.look import Look, load_altair
from tailcast.report.words import anchor, risk

__all__ = ["wordings_of"]

_OWN, _OTHER, _NO_HIT = "its own wording", "paraphrase", "no hit: upper end"
_STEP = 30  # pixels of a base query
_FURTHEST = 1e-9  # left end of the axis, at the least


def wordings_of(run: Run, found: Sensitivity, look: Look) -> Any:
    """Every wording's risk with its interval, a row for each base query, the riskiest first.

    Args:
        run: A finished run.
        found: Its analysis.
        look: Colours and width.

    Returns:
        An altair chart.
    """
    alt = load_altair()
    ranked = sorted(found.bases, key=lambda one: one.typical, reverse=True)
    names = [one.base for one in ranked]
    rows = _rows(run, bases_of(run))
    floor = floor_of([max(row["low"] or row["risk"], _FURTHEST) for row in rows])
    rows = [{**row, "low": max(row["low"], floor)} for row in rows]
    scale = alt.Scale(type="log", domain=[floor, 1.0], clamp=True)
    powers = log_axis(alt, floor, look, sideways=True)
    y = alt.Y("base:N", sort=names, title=None)
    x = alt.X("risk:Q", scale=scale, axis=powers, title="risk: probability of a hit")
    typical = [{"base": one.base, "risk": one.typical} for one in ranked]
    bars = (
        alt.Chart(alt.Data(values=typical))
        .mark_tick(thickness=6, size=_STEP - 4, color=look.grid, opacity=1, aria=False)
        .encode(x=x, y=y)
    )
    marks = {_OTHER: (look.accent, "circle"), _OWN: (look.weak, "diamond")}
    marks |= {_NO_HIT: (look.faint, "triangle-left")}
    shown = [one for one in marks if any(row["is"] == one for row in rows)]
    colours, shapes = zip(*(marks[one] for one in shown), strict=True)
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=y, yOffset=alt.YOffset("place:Q", scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("is:N", scale=alt.Scale(domain=shown, range=list(colours))),
    )  # fmt: skip
    intervals = base.mark_rule(opacity=0.3, aria=False).encode(
        x=alt.X("low:Q", scale=scale, axis=powers), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=34, opacity=0.9).encode(
        x=x, description="says:N", tooltip="says:N", href="link:N",
        shape=alt.Shape("is:N", scale=alt.Scale(domain=shown, range=list(shapes))),
    )  # fmt: skip
    return (bars + intervals + points).properties(width=look.width, height={"step": _STEP})


def _rows(run: Run, bases: list[str]) -> list[dict[str, Any]]:
    """A row for each query; its place within its base query's row is its number there."""
    rows: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for one, base in zip(run.risks, bases, strict=True):
        number = seen[base] = seen.get(base, 0) + 1
        value = one.ceiling if one.p is None else one.p
        told = f"no hit, below {risk(value)}" if one.p is None else risk(value)
        own = _OWN if one.query_id == base else _OTHER
        rows.append(
            {
                "base": base, "number": number, "risk": min(value, 1.0), "low": one.ci_low,
                "high": min(one.ci_high, 1.0), "is": _NO_HIT if one.p is None else own,
                "says": f"{one.query_id}: {told}", "link": f"#{anchor(one.query_id)}",
            }
        )  # fmt: skip
    return [{**row, "place": (row["number"] - 0.5) / seen[row["base"]]} for row in rows]
