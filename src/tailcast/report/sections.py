"""The sections of a report: each a function of a run that gives one, or None without its data.

To add one, write such a function and its template, and put it into :data:`SECTIONS`; it reads
what the run's analyses left in ``run.store``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tailcast.errors import StoreError
from tailcast.report.figures import draw
from tailcast.report.outlook import expected, upper_end
from tailcast.report.render import NARROW, WIDE, page_svg
from tailcast.report.reproduce import command
from tailcast.report.run import Run
from tailcast.report.tables import component_rows, cost_rows, repeated_rows, short_proposal
from tailcast.report.words import METHODS, between, percent
from tailcast.stats.diagnostics import KHAT_ENOUGH_HITS, RULES

__all__ = ["SECTIONS", "Drawing", "Press", "Section", "drawing", "sections_of"]

CALLS_A_DAY = 1_000_000
DAYS = 30
_MOST_HITS = 5
_MOST_CHARACTERS = 600


@dataclass(frozen=True)
class Section:
    """A part of a run's report.

    Attributes:
        id: Of its place in the page.
        title: Its heading.
        html: What stands under it, safe to be put into a page.
    """

    id: str
    title: str
    html: str


@dataclass(frozen=True)
class Press:
    """What sections are printed with.

    Attributes:
        render: Fills a template, by name, with values; what it gives is safe.
        prefix: What ids of this run have before them.
        show_text: Whether completions are shown, behind a click.
    """

    render: Callable[..., str]
    prefix: str
    show_text: bool

    def section(self, id: str, title: str, /, **values: Any) -> Section:
        """Fill the template named like the section."""
        sub = "h4" if self.prefix else "h3"
        filled = self.render(f"{id}.html", prefix=self.prefix, sub=sub, **values)
        return Section(f"{self.prefix}{id}", title, filled)


@dataclass(frozen=True)
class Drawing:
    """A figure in a page: for wide and narrow screens, and in words."""

    wide: str
    narrow: str
    says: str


def drawing(make: Callable[..., Any], says: str, *, prefix: str) -> Drawing:
    """Draw a figure twice.

    Args:
        make: Gives a chart for a look.
        says: What it shows, for those who don't see it.
        prefix: Of ids in the page.
    """
    wide, narrow = (page_svg(make(look=look), prefix=prefix) for look in (WIDE, NARROW))
    return Drawing(wide, narrow, says)


def _figure(run: Run, kind: str, says: str, press: Press) -> Drawing:
    return drawing(lambda look: draw(run, kind, look=look), says, prefix=press.prefix)


def risks(run: Run, press: Press) -> Section:
    """Risks of all queries sorted, and the table that they are in."""
    least, most = run.ranked[-1], run.ranked[0]
    ends = between(least.p if least.p is not None else upper_end(least), most.p or upper_end(most))
    says = f"Risks of {len(run.ranked)} queries with their intervals on a logarithmic axis: {ends}."
    return press.section(
        "risks", "Every query's risk",
        run=run, figure=_figure(run, "risks", says, press), silent=run.overall.silent,
        several=len(run.ranked) > 1,
    )  # fmt: skip


def agreement(run: Run, press: Press) -> Section | None:
    """The main method against plain sampling."""
    if not run.plain:
        return None
    pairs = [(run.plain[id], run.main[id]) for id in run.plain]
    apart = [
        main for plain, main in pairs
        if plain.ci_low > upper_end(main) or main.ci_low > upper_end(plain)
    ]  # fmt: skip
    says = (
        f"Estimates of {len(pairs)} queries by both methods, close to the diagonal where they "
        f"agree; the intervals of {len(apart)} lie apart."
    )
    figure = _figure(run, "agreement", says, press)
    return press.section(
        "agreement", "Held against plain sampling",
        pairs=pairs, apart=apart, figure=figure, method=METHODS[pairs[0][1].method],
    )  # fmt: skip


def audit(run: Run, press: Press) -> Section | None:
    """Whether the proposals see every way to hit, over all queries and by tag."""
    shown = [one for one in run.audits if one.ratio is not None or one.fires]
    return press.section("audit", "The audit", run=run, audits=shown) if shown else None


def repeated(run: Run, press: Press) -> Section:
    """Share of queries that give in when asked again and again."""
    rows = repeated_rows(run)
    tries, share, *_ = rows[min(3, len(rows) - 1)]
    says = f"In {tries:,} tries of every query {percent(share or 0.0)} of the queries give a hit."
    return press.section(
        "repeated", "Asked again and again", rows=rows, unhit=run.overall.silent,
        counted=any(row[4] is not None for row in rows), level=run.config.level,
        figure=_figure(run, "repeated", says, press),
    )  # fmt: skip


def ahead(run: Run, press: Press) -> Section | None:
    """The worst and the mean risk of queries not yet asked; none where too few were measured."""
    try:
        found = run.ahead
    except StoreError:
        return None
    n, worst, low, high, *_ = found.rows[-1]
    says = (
        f"The largest risk among {n:,.0f} queries like these is forecast as {percent(worst)}, "
        f"{between(low, high)}."
    )
    return press.section(
        "ahead", "Queries not yet asked",
        found=found, figure=_figure(run, "forecast", says, press),
    )  # fmt: skip


def wordings(run: Run, press: Press) -> Section | None:
    """How much risks depend on the wording; none where no query was reworded."""
    try:
        found = run.reworded
    except StoreError:
        return None
    widest = max(found.bases, key=lambda one: one.spread.value)
    says = (
        f"Risks of all wordings of {len(found.bases)} base queries; those of {widest.base} lie "
        f"{widest.spread.value:.1f} decades apart."
    )
    return press.section(
        "wordings", "In other words",
        found=found, figure=_figure(run, "wordings", says, press),
    )  # fmt: skip


def weights(run: Run, press: Press) -> Section | None:
    """Which proposals brought the hits, and whether few hits carry an estimate."""
    rows = component_rows(run)
    if not any(hits for _, _, hits, *_ in rows):
        return None
    first = rows[0]
    says = (
        f"The most, {percent(first[4])} of the hits' weight, came from {short_proposal(first[0])}."
    )
    named = [(short_proposal(name), *rest) for name, *rest in rows]
    few = f"Effective number of hits and share of the largest one, of {len(run.ranked)} queries."
    return press.section(
        "weights", "What carries the estimates",
        rows=named, figure=_figure(run, "components", says, press),
        diagnostics=_figure(run, "diagnostics", few, press), run=run,
        rules={rule.name: rule for rule in RULES},
    )  # fmt: skip


def deployment(run: Run, press: Press) -> Section:
    """What so many calls a day bring; the page works it out anew."""
    found = run.overall
    ends = (found.p, found.low, found.high)
    choices = [("one of these queries, each as often", ends)] if len(run.ranked) > 1 else []
    choices += [
        (f"{one.query_id}: {one.prompt[:60]}", (one.p or 0.0, one.ci_low, upper_end(one)))
        for one in run.ranked
    ]
    first = choices[0][1]
    return press.section(
        "deployment", "In a deployment", choices=choices, calls=CALLS_A_DAY, days=DAYS,
        daily=[expected(p, CALLS_A_DAY) for p in first],
        period=[expected(p, CALLS_A_DAY * DAYS) for p in first], level=run.config.level,
    )  # fmt: skip


def cost(run: Run, press: Press) -> Section:
    """What the numbers took."""
    return press.section("cost", "What it took", rows=cost_rows(run))


def queries(run: Run, press: Press) -> Section:
    """Each query on its own: numbers, reasons, what carries it, and completions if asked for."""
    explained = run.explained if run.weighed or press.show_text else {}
    shown = [
        {
            "main": one,
            "estimates": [each for each in run.estimates if each.query_id == one.query_id],
            "carried": [row for row in explained[one.query_id].by_proposal if row[2]][:_MOST_HITS]
            if run.weighed and explained
            else [],
            "hits": [
                replace(hit, text=hit.text[:_MOST_CHARACTERS])
                for hit in explained[one.query_id].hits[:_MOST_HITS]
            ]
            if press.show_text and explained
            else [],
        }
        for one in run.ranked
    ]
    return press.section("queries", "Query by query", queries=shown, show_text=press.show_text)


def method(run: Run, press: Press) -> Section:
    """How it was measured, what is guaranteed and what is assumed, in plain words."""
    return press.section(
        "method", "How it was measured", run=run, rules=RULES, enough=KHAT_ENOUGH_HITS
    )


def reproduce(run: Run, press: Press) -> Section:
    """How to get the same numbers again."""
    return press.section("reproduce", "To get the same numbers again", run=run, line=command(run))


SECTIONS: tuple[Callable[[Run, Press], Section | None], ...] = (
    risks,
    agreement,
    audit,
    repeated,
    ahead,
    wordings,
    weights,
    deployment,
    cost,
    method,
    reproduce,
    queries,
)
"""Every section in the order of the page."""


def sections_of(run: Run, press: Press) -> list[Section]:
    """The sections that the run has data for."""
    return [one for one in (make(run, press) for make in SECTIONS) if one is not None]
