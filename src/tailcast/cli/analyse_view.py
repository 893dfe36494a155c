"""What the analyses show: tables, or JSON lines."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tailcast.cli.screen import plain_table, result_screen

if TYPE_CHECKING:
    from tailcast.analysis.compare import Comparison
    from tailcast.analysis.deployment import Deployment, Quantity
    from tailcast.analysis.gate import Finding
    from tailcast.analysis.repeated import Repeated

__all__ = ["show_comparison", "show_deployment", "show_repeated"]

_ROUTES = {
    "greedy": "greedy: the likeliest answer, with the exact binomial interval.",
    "draws": "draws: counted, without bias, from plain draws.",
    "risks": "risks: by 1 - (1 - risk)^n; queries without a hit count 0 in the share and the lower "
    "end, and up to their own upper end in the upper one.",
}
_QUANTITIES = {
    "risk_of_a_call": "risk of a call",
    "harmful_a_day": "harmful outputs a day",
    "chance_of_one_in_a_day": "chance of at least one in a day",
    "days_to_the_first": "wait for the first, in the mean",
    "answers_to_see_one": "answers that hold one with 95%",
}


def show_repeated(found: "Repeated", *, as_json: bool) -> None:
    """Print curves; the table has the powers of ten and the last number of tries."""
    if as_json:
        _lines(asdict(one) for one in found.points)
        return
    level = found.points[0].level
    table = plain_table("run", "by", "tries", "share of queries", f"{level:.0%} band", "no hit")
    last = {(one.run, one.route): one.tries for one in found.points}
    for one in found.points:
        if one.tries == last[one.run, one.route] or str(one.tries).strip("0") == "1":
            cells = [_share(one.share, one.high), f"{_percent(one.low)} .. {_percent(one.high)}"]
            unhit = f"{one.unhit} / {one.queries}"
            table.add_row(one.run, one.route, f"{one.tries:,}", *cells, unhit)
    screen = result_screen()
    screen.print(table)
    for route in dict.fromkeys(one.route for one in found.points):
        screen.print(_ROUTES[route], style="dim", highlight=False)
    for line in found.missing:
        screen.print(line, highlight=False)


def show_deployment(found: "Deployment", *, as_json: bool) -> None:
    """Print what risks mean in use."""
    if as_json:
        _lines([asdict(found)])
        return
    screen = result_screen()
    heading = f"{found.run} at {found.calls_a_day:,.6g} calls a day"
    screen.print(heading, style="bold", highlight=False)
    names = ["", "estimate", f"{found.level:.0%} interval"]
    monitored = found.monitor_recall is not None
    if monitored:
        names += [f"past a monitor of recall {found.monitor_recall:g}", "interval"]
    table = plain_table(*names)
    rows = [one for one in found.quantities if not one.past_monitor]
    passed = {one.name: one for one in found.quantities if one.past_monitor}
    for one in rows:
        cells = _quantity(one) + (_quantity(passed.get(one.name)) if monitored else [])
        table.add_row(_QUANTITIES[one.name], *cells)
    screen.print(table)
    screen.print(
        f"The intervals carry the estimates' uncertainty and the choice of the {found.queries} "
        "queries.", style="dim", highlight=False,
    )  # fmt: skip
    if found.unhit:
        screen.print(
            f"{found.unhit} of the queries have no hit; with all of them at their upper ends the "
            f"risk of a call would be {found.risk_at_ceilings:.3g}.", highlight=False,
        )  # fmt: skip
    if found.carriers:
        text = ", ".join(f"{name} {share:.0%}" for name, share in found.carriers)
        screen.print(f"The risk comes from: {text}.", highlight=False)


def show_comparison(
    found: "Comparison", differences: dict[str, list[Any]], findings: Sequence["Finding"], *,
    as_json: bool,
) -> None:  # fmt: skip
    """Print models side by side, their order, and what the gate says."""
    if as_json:
        _lines({"kind": "model", **asdict(one)} for one in found.models)
        _lines({"kind": "order", **asdict(one)} for one in found.orders)
        _lines({"kind": "crossing", **asdict(one)} for one in found.crossings)
        _lines({"kind": "gate", **asdict(one)} for one in findings)
        return
    screen = result_screen()
    for name, values in differences.items():
        text = ", ".join(str(one) for one in values)
        screen.print(f"{name}: {text}", style="dim", highlight=False)
    screen.print(_models(found))
    if found.orders:
        screen.print(_orders(found))
        _show_crossings(screen, found)
    for one in findings:
        word, style = ("FAILED", "red") if one.failed else ("passed", "green")
        text = f"gate {one.rule}: {word}. {one.sentence}"
        screen.print(text, style=style, highlight=False)


def _models(found: "Comparison") -> Table:
    tries = [one.tries for one in found.models[0].shares if _shown(one.tries, found)]
    table = plain_table(
        "run", "mean risk", f"{found.level:.0%} interval", "largest", "no hit",
        *(f"share at {one:,}" for one in tries),
    )  # fmt: skip
    for one in found.models:
        largest = "" if one.largest is None else f"{one.largest:.2g} ({one.largest_query or ''})"
        shares = [_share(each.value, each.high) for each in one.shares if each.tries in tries]
        mean = f"< {one.mean_high:.2g}" if one.mean is None else f"{one.mean:.3g}"
        ends = f"{one.mean_low:.2g} .. {one.mean_high:.2g}"
        table.add_row(one.run, mean, ends, largest, f"{one.unhit} / {found.queries}", *shares)
    return table


def _orders(found: "Comparison") -> Table:
    table = plain_table("at", "riskier", "than", "decades", f"{found.level:.0%} interval", "chance")
    for one in found.orders:
        if not _shown(one.tries, found):
            continue
        turned = one.riskier == one.first
        other = one.second if turned else one.first
        ends = [one.low, one.high]
        if turned:
            ends = [None if end is None else -end for end in reversed(ends)]
        at = f"{one.tries:,} tries" if one.tries else "mean risk"
        if one.riskier is None:
            table.add_row(at, "neither", f"{one.first}, {one.second}", "", _ends(ends), "")
            continue
        decades = "" if one.decades is None else f"{abs(one.decades):.2f}"
        chance = f"at least {one.chance:.0%}"
        table.add_row(at, one.riskier, other, decades, _ends(ends), chance)
    return table


def _show_crossings(screen: Console, found: "Comparison") -> None:
    for one in found.crossings:
        sure = min(one.chance_before, one.chance_after) >= found.level
        screen.print(
            f"Rankings {'cross' if sure else 'may cross'} at about {one.tries:,.0f} tries: "
            f"{one.first} is riskier before (chance at least {one.chance_before:.0%}), "
            f"{one.second} after (at least {one.chance_after:.0%}).",
            highlight=False,
        )  # fmt: skip
    if not found.crossings:
        screen.print("No rankings cross.", style="dim")
    screen.print(
        "chance: that the order holds on queries like these, whatever the estimates' errors; a "
        f"query without a hit speaks for no order. Below {found.level:.0%} take it for open.",
        style="dim", highlight=False,
    )  # fmt: skip


def _shown(tries: int, found: "Comparison") -> bool:
    """Whether a table has room for it: the mean, the powers of ten, the last."""
    last = found.models[0].shares[-1].tries
    return tries in (0, last) or str(tries).strip("0") == "1"


def _quantity(one: "Quantity | None") -> list[str]:
    if one is None:
        return ["none", ""]
    if one.name == "days_to_the_first":
        low, value, high = (
            "…" if days is None else _wait(days) for days in (one.low, one.value, one.high)
        )
        return ["no hit" if one.value is None else value, f"{low} .. {high}"]
    value = "no hit" if one.value is None else f"{one.value:,.3g}"
    return [value, _ends([one.low, one.high])]


def _wait(days: float) -> str:
    """Days in the unit that reads best."""
    for size, unit in ((365.25, "years"), (1, "days"), (1 / 24, "h"), (1 / 1440, "min")):
        if days >= size:
            return f"{days / size:,.3g} {unit}"
    return f"{days * 86_400:.3g} s"


def _ends(ends: Sequence[float | None]) -> str:
    low, high = ("" if one is None else f"{one:,.3g}" for one in ends)
    return f"{low or '…'} .. {high or '…'}"


def _share(value: float | None, high: float) -> str:
    return f"< {_percent(high)}" if value is None else _percent(value)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _lines(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        print(json.dumps(row))
