"""The figures of a run, each a function that returns an altair chart.

    from tailcast.report import draw, read_run
    draw(read_run("run"), "risks")

They are shown by a notebook as they are, saved by :mod:`tailcast.report.render`, and put into
the report as drawings without a script.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tailcast.analysis.runs import read_run as as_analysed
from tailcast.errors import ConfigError, StoreError
from tailcast.report.axes import floor_of, log_axis
from tailcast.report.curves import curves_of
from tailcast.report.forecast_curves import ahead_of
from tailcast.report.look import LIGHT, Look, dressed, load_altair
from tailcast.report.outlook import upper_end
from tailcast.report.run import Run
from tailcast.report.tables import component_rows, short_proposal
from tailcast.report.wordings import wordings_of
from tailcast.report.words import anchor, risk
from tailcast.stats import Estimate
from tailcast.stats.diagnostics import RULES

__all__ = ["KINDS", "draw", "repeated_of"]

_MOST_NAMED = 40  # queries that have room for their names beside the axis
_MOST_COMPONENTS = 14
_NO_HIT = "no hit: upper end"


def draw(run: Run, kind: str, *, look: Look = LIGHT) -> Any:
    """A figure of a run.

    Args:
        run: What :func:`tailcast.report.read_run` gave.
        kind: One of :data:`KINDS`.
        look: Its colours and width.

    Returns:
        An altair chart.

    Raises:
        ConfigError: If there is no such kind.
        MissingExtra: If altair is not installed.
        StoreError: If the run lacks what the figure shows.
    """
    if kind not in KINDS:
        raise ConfigError(f"figure {kind!r} is none of {', '.join(KINDS)}.")
    return dressed(KINDS[kind](run, look), look)


def risks(run: Run, look: Look) -> Any:
    """Risks of all queries sorted: interval (thick), guaranteed bounds (thin), verdict."""
    alt = load_altair()
    rows = [_risk_row(rank, one) for rank, one in enumerate(run.ranked, 1)]
    floor = floor_of([max(row["low"], row["risk"] / 100) for row in rows])
    rows = [{**row, **{k: max(row[k], floor) for k in ("risk", "low", "least")}} for row in rows]
    named = len(rows) <= _MOST_NAMED
    scale = alt.Scale(type="log", domain=[floor, 1.0], clamp=True)
    value = {"axis": log_axis(alt, floor, look, sideways=named), "scale": scale}
    if named:
        across = {"y": alt.Y("query:N", sort=None, title=None)}
        along, to = alt.X, alt.X2
    else:
        ranks = alt.Scale(domain=[0, len(rows) + 1], nice=False)
        across = {"x": alt.X("rank:Q", scale=ranks, title="queries, the riskiest first")}
        along, to = alt.Y, alt.Y2
    x, x2 = ("x", "x2") if named else ("y", "y2")
    title = "risk: probability of a hit"
    base = alt.Chart(alt.Data(values=rows)).encode(**across)
    flags = _flagged(alt, look, rows, below="left" if named else "down")
    thin, thick = (1, 4) if named else (0.5, 1.2)
    bounds = base.mark_rule(
        color=look.faint, strokeWidth=thin, opacity=1 if run.weighed else 0, aria=False
    ).encode(**{x: along("least:Q", title=title, **value), x2: to("most:Q")})
    interval = base.mark_rule(strokeWidth=thick, opacity=0.55 if named else 0.3, aria=False).encode(
        **{x: along("low:Q"), x2: to("high:Q")}, color=flags["color"]
    )
    points = base.mark_point(filled=True, size=75 if named else 20, opacity=1).encode(
        **{x: along("risk:Q")},
        **flags,
        description="says:N", tooltip="says:N", href="link:N",
    )  # fmt: skip
    size = {"height": {"step": 22}} if named else {"height": 360}
    return (bounds + interval + points).properties(width=look.width, **size)


def agreement(run: Run, look: Look) -> Any:
    """The main method's estimates against plain sampling's, where both exist."""
    alt = load_altair()
    pairs = [(run.plain[id], run.main[id]) for id in run.plain]
    if not pairs:
        raise StoreError(
            f"{run.store.path} has no plain estimates beside its own: run with --monte-carlo N."
        )
    rows = [_pair_row(*pair) for pair in pairs]
    floor = floor_of([row[name] for row in rows for name in ("x", "y")])
    rows = [
        {**row, **{name: max(row[name], floor) for name in ("x", "y", "y_low")}} for row in rows
    ]
    scale, size = alt.Scale(type="log", domain=[floor, 1.0], clamp=True), min(look.width, 380)
    axis = log_axis(alt, floor, look, sideways=True)
    x = alt.X("x:Q", scale=scale, axis=axis, title="risk by plain sampling")
    y = alt.Y("y:Q", scale=scale, axis=axis, title=f"risk by {_method(run)}")
    base = alt.Chart(alt.Data(values=rows))
    ends = [{"x": floor, "y": floor}, {"x": 1.0, "y": 1.0}]
    line = alt.Chart(alt.Data(values=ends)).mark_line(color=look.faint, strokeDash=[4, 4])
    faint = 0.45 if len(rows) <= _MOST_NAMED else 0.15
    rule = base.mark_rule(color=look.accent, opacity=faint, strokeWidth=1.2, aria=False)
    points = base.mark_point(size=55, filled=True, opacity=1, color=look.accent).encode(
        x=x, y=y, description="says:N", tooltip="says:N", href="link:N",
        shape=alt.Shape("seen:N", scale=alt.Scale(
            domain=["hits by both", "no hit by plain sampling"], range=["circle", "triangle-left"],
        )),
    )  # fmt: skip
    return (
        line.encode(x=x, y=y)
        + rule.transform_filter("datum.x_low > 0").encode(
            x=alt.X("x_low:Q", scale=scale), x2="x_high:Q", y=y
        )
        + rule.encode(x=x, y=alt.Y("y_low:Q", scale=scale), y2="y_high:Q")
        + points
    ).properties(width=size, height=size)


def repeated(run: Run, look: Look) -> Any:
    """Share of queries with at least one hit in n tries: by the risks, and counted."""
    return curves_of({run.name: run.curve}, look)


def repeated_of(runs: Sequence[Run], look: Look) -> Any:
    """The same of several runs in one figure."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.store.path) for run in runs]
    return curves_of({name: run.curve for name, run in zip(names, runs, strict=True)}, look)


def ahead(run: Run, look: Look) -> Any:
    """The worst risk of n unseen queries; dashed beyond the queries that were measured."""
    return ahead_of(run.ahead, look)


def wordings(run: Run, look: Look) -> Any:
    """Risks of all wordings of every base query."""
    return wordings_of(as_analysed(str(run.store.path)), run.reworded, look)


def components(run: Run, look: Look) -> Any:
    """Which proposals got the draws, and which brought the estimates."""
    alt = load_altair()
    found = component_rows(run)
    if not found:
        raise StoreError(f"{run.store.path} holds no weighted draws: nothing to take apart.")
    kinds = ("share of draws", "share of estimates")
    rows = [
        {"proposal": short_proposal(name), "share": share, "kind": kind}
        for name, _, _, *shares in found[:_MOST_COMPONENTS]
        for kind, share in zip(kinds, shares, strict=True)
    ]
    colour = alt.Scale(domain=list(kinds), range=[look.other, look.accent])
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(height=7, aria=False)
        .encode(
            x=alt.X("share:Q", axis=alt.Axis(format=".0%", tickCount=look.width // 80), title=None),
            y=alt.Y("proposal:N", sort=None, title=None),
            yOffset=alt.YOffset("kind:N", sort=list(kinds)),
            color=alt.Color("kind:N", scale=colour),
        )
        .properties(width=look.width, height={"step": 9})
    )


def diagnostics(run: Run, look: Look) -> Any:
    """What the verdicts go by: effective number of hits, and share of the largest one."""
    alt = load_altair()
    rows: list[dict[str, Any]] = [
        {
            "hits": max(one.ess_hits, 1.0), "share": one.max_share, "flag": one.verdict,
            "link": f"#{anchor(one.query_id)}",
            "says": f"{one.query_id}: {one.n_hits} hits worth {one.ess_hits:.3g} of equal weight, "
            f"the largest {one.max_share:.0%}, {one.verdict}",
        }
        for one in run.ranked
        if one.max_share is not None
    ]  # fmt: skip
    if not rows:
        raise StoreError(f"{run.store.path} has no hits: there is nothing to diagnose.")
    top = max(row["hits"] for row in rows)
    scale = alt.Scale(type="log", domain=[1, max(100.0, top * 1.3)])
    x = alt.X("hits:Q", scale=scale, title="hits, by effective number",
              axis=alt.Axis(values=[1, 3, 10, 30, 100, 300, 1000, 10000], format="~s"))  # fmt: skip
    share = alt.Axis(format=".0%", tickCount=5)
    y = alt.Y("share:Q", axis=share, scale=alt.Scale(domain=[0, 1]), title="share of the largest")
    bounds = {rule.name: (rule.weak, rule.unreliable) for rule in RULES}
    lines = [
        {"hits": hits, "share": share}
        for hits, share in zip(bounds["ess_hits"], bounds["max_share"], strict=True)
    ]
    rule = alt.Chart(alt.Data(values=lines)).mark_rule(color=look.faint, strokeDash=[4, 4])
    points = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=60, opacity=0.9)
    return (
        rule.encode(x=x)
        + rule.encode(y=y)
        + points.encode(
            x=x, y=y, **_flagged(alt, look, rows),
            description="says:N", tooltip="says:N", href="link:N",
        )
    ).properties(width=look.width, height=260)  # fmt: skip


KINDS: dict[str, Callable[[Run, Look], Any]] = {
    "risks": risks,
    "agreement": agreement,
    "repeated": repeated,
    "forecast": ahead,
    "wordings": wordings,
    "components": components,
    "diagnostics": diagnostics,
}
"""Every figure by its name on the command line."""


def _risk_row(rank: int, one: Estimate) -> dict[str, Any]:
    top = min(1.0, upper_end(one))
    shown = min(1.0, one.p) if one.p is not None else top
    found = risk(one.p) if one.p is not None else f"no hit, below {risk(top)}"
    return {
        "rank": rank, "query": one.query_id, "link": f"#{anchor(one.query_id)}",
        "risk": shown, "low": one.ci_low, "high": top, "least": one.p_low,
        "most": min(1.0, one.p_high_guaranteed),
        "flag": one.verdict if one.p is not None else _NO_HIT,
        "says": f"{one.query_id}: {found}, {risk(one.ci_low)} to {risk(top)}, {one.verdict}",
    }  # fmt: skip


def _pair_row(plain: Estimate, main: Estimate) -> dict[str, Any]:
    x, y = (min(1.0, one.p if one.p is not None else upper_end(one)) for one in (plain, main))
    seen = "hits by both" if plain.p is not None else "no hit by plain sampling"
    return {
        "x": x, "x_low": plain.ci_low, "x_high": min(1.0, plain.ci_high),
        "y": y, "y_low": main.ci_low, "y_high": min(1.0, upper_end(main)),
        "seen": seen, "link": f"#{anchor(main.query_id)}",
        "says": f"{main.query_id}: plain {risk(x)}, {main.method} {risk(y)}",
    }  # fmt: skip


def _method(run: Run) -> str:
    return {"mixture": "the mixture", "is": "importance sampling", "splitting": "splitting"}.get(
        next(reversed(run.main.values())).method, "the main method"
    )


def _flagged(
    alt: Any, look: Look, rows: Sequence[dict[str, Any]], *, below: str = "left"
) -> dict[str, Any]:
    """Colour and shape by verdict, and by whether there was a hit at all."""
    drawn = {
        "ok": (look.ok, "circle"),
        "weak": (look.weak, "diamond"),
        "unreliable": (look.unreliable, "cross"),
        _NO_HIT: (look.faint, f"triangle-{below}"),
    }
    flags = [flag for flag in drawn if any(row["flag"] == flag for row in rows)]
    colours, shapes = zip(*(drawn[flag] for flag in flags), strict=True)
    return {
        "color": alt.Color("flag:N", scale=alt.Scale(domain=flags, range=list(colours))),
        "shape": alt.Shape("flag:N", scale=alt.Scale(domain=flags, range=list(shapes))),
    }
