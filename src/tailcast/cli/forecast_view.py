"""What the command line shows of forecasts: tables, or JSON lines."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from tailcast.cli.screen import plain_table, result_screen

if TYPE_CHECKING:
    from tailcast.analysis.forecast import Forecast
    from tailcast.analysis.measured import Measured
    from tailcast.analysis.splits import Score, SplitScore

__all__ = ["show_forecasts", "show_splits"]

_MEANING = (
    "worst: median of the largest of the n risks, and where it lies with {level:.0%}; 1 in n: the "
    "risk that one query in n exceeds; mean: of the n risks; any hit: the chance of at least one "
    "if each is asked once. Intervals of jones, notebook, log-normal and gumbel take the fitted "
    "law for the true one and cover far less."
)
_PLUG_IN = ("jones", "notebook", "log-normal", "gumbel")


def show_forecasts(found: Sequence["Forecast"], failed: dict[str, str], *, as_json: bool) -> None:
    """Print forecasts side by side, chances of exceedance, the threshold table, the warnings."""
    if as_json:
        for one in found:
            print(json.dumps(one.record()))
        for name, why in failed.items():
            print(json.dumps({"method": name, "failed": why}))
        return
    screen = result_screen(120)
    if found:
        first = found[0]
        screen.print(
            f"{first.n:,} unseen queries, from {first.queries} measured ones",
            style="bold", highlight=False,
        )  # fmt: skip
        screen.print(_forecasts(found))
        screen.print(_MEANING.format(level=first.level), style="dim", highlight=False)
        screen.print(_exceedances(found))
    for one in found:
        if one.thresholds:
            screen.print(_thresholds(one))
    for name, why in failed.items():
        screen.print(f"{name}: not fitted, {why}", highlight=False)
    for text, names in _warnings(found).items():
        which = "" if len(names) == len(found) else f" ({', '.join(names)})"
        screen.print(f"{text}{which}.", style="yellow", highlight=False)


def show_splits(scores: Sequence["SplitScore"], measured: "Measured", *, as_json: bool) -> None:
    """Print how every method did on splits of the measured queries."""
    if as_json:
        for one in scores:
            print(json.dumps(asdict(one)))
        return
    screen = result_screen(120)
    for by in dict.fromkeys(one.by for one in scores):
        rows = [one for one in scores if one.by == by]
        screen.print(
            f"Split by {'query' if by == 'query' else 'base query'}: {rows[0].fitted:.0f} queries "
            f"fitted, {rows[0].unseen:.0f} forecast",
            style="bold", highlight=False,
        )  # fmt: skip
        screen.print(_splits(rows))
    screen.print(
        "error: mean absolute error in decades, with its sign in brackets; low: share of the "
        "splits where too little was forecast; held: share whose interval holds what was shown, "
        f"{scores[0].level:.0%} wanted (far less for {', '.join(_PLUG_IN)}).",
        style="dim", highlight=False,
    )  # fmt: skip
    bases = len(set(measured.bases))
    if bases == len(measured):
        screen.print("No query names a base query, so there is no split by base.", style="dim")
    else:
        screen.print(f"{len(measured)} queries of {bases} base queries.", style="dim")


def _forecasts(found: Sequence["Forecast"]) -> Table:
    table = plain_table(
        "method", "worst", "interval", "1 in n", "interval", "mean", "interval", "any hit",
        no_wrap=True,
    )  # fmt: skip
    for one in found:
        table.add_row(
            one.method, _risk(one.worst), _ends(one.worst_low, one.worst_high),
            _risk(one.return_level), _ends(one.return_low, one.return_high),
            _risk(one.mean), _ends(one.mean_low, one.mean_high), f"{one.aggregate:.3g}",
        )  # fmt: skip
    return table


def _exceedances(found: Sequence["Forecast"]) -> Table:
    first = found[0]
    table = plain_table(
        "above", *(f"any, {one.method}" for one in found), f"queries, {first.method}"
    )
    for number, row in enumerate(first.exceedances):
        count = f"{_count(row.expected)}"
        if row.low is not None and row.high is not None:
            count += f"  {_count(row.low)} .. {_count(row.high)}"
        chances = (_chance(one.exceedances[number].worst_exceeds) for one in found)
        table.add_row(f"{row.risk:g}", *chances, count)
    return table


def _thresholds(one: "Forecast") -> Table:
    table = plain_table(
        "threshold", "queries above", "shape", "scale", "fits (p)", "", no_wrap=True
    )
    for row in one.thresholds:
        marks = [word for word, is_so in (("taken", row.chosen), ("stable", row.stable)) if is_so]
        table.add_row(
            _odds(row.fit.threshold), str(row.fit.excesses), f"{row.fit.shape:+.2f}",
            f"{row.fit.scale:.2f}", f"{row.p_value:.2g}", ", ".join(marks),
        )  # fmt: skip
    if one.tail is not None:
        table.add_row("with the prior", "", f"{one.tail.shape:+.2f}", f"{one.tail.scale:.2f}")
    return table


def _splits(rows: Sequence["SplitScore"]) -> Table:
    table = plain_table(
        "method", "splits", "worst: error", "low", "held", "mean: error", "held", no_wrap=True
    )
    for one in rows:
        splits = f"{one.splits}" + (f", {one.failed} not fitted" if one.failed else "")
        if one.worst is None or one.mean is None:
            table.add_row(one.method, splits)
            continue
        table.add_row(
            one.method, splits, _error(one.worst), f"{one.worst.below:.0%}",
            f"{one.worst.covered:.0%}", _error(one.mean), f"{one.mean.covered:.0%}",
        )  # fmt: skip
    return table


def _warnings(found: Sequence["Forecast"]) -> dict[str, list[str]]:
    """Each warning with the methods that it is about."""
    texts: dict[str, list[str]] = {}
    for one in found:
        for text in one.warnings:
            texts.setdefault(text, []).append(one.method)
    return texts


def _risk(value: float) -> str:
    """A risk; near 1 by what is left of it."""
    return f"{value:.2e}" if value < 0.01 else f"{value:.3f}"


def _odds(log_odds: float) -> str:
    import math

    return _risk(1 / (1 + math.exp(-log_odds)))


def _chance(value: float) -> str:
    return f"{value:.0%}" if value > 0.995 or value < 5e-5 else f"{value:.2g}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value >= 0.001 else "0"


def _ends(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.2g} .. {high:.2g}"


def _error(score: "Score") -> str:
    return f"{score.error:.2f} ({score.bias:+.2f})"
