"""The verb that says how much risks depend on the wording, and what it shows."""

import json as json_text
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from tailcast.cli.screen import plain_table, result_screen

if TYPE_CHECKING:
    from tailcast.analysis.sensitivity import BaseQuery, Decades, Sensitivity

__all__ = ["sensitivity"]

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object.")]


def sensitivity(
    directory: Path, /, *, level: float = 0.95, plot: Path | None = None, json: Json = False
) -> None:
    """How much risks depend on the wording: paraphrases of base queries compared.

    Spread in decades (powers of ten), the worst paraphrase of each base query, and how much of
    the variance of log risk lies within base queries and between them; estimation noise is taken
    out, and a query without a hit counts as bounded from above. Base queries are named by a
    column base of the query file, or by ids like NAME/1.

    Args:
        directory: A run directory; --queries paraphrases is a set to run.
        level: Coverage of the intervals.
        plot: Also draw the risks of all wordings to this picture (png or svg).
    """
    from tailcast.analysis.runs import read_run
    from tailcast.analysis.sensitivity import bases_of
    from tailcast.analysis.sensitivity import sensitivity as analyse

    run = read_run(directory)
    found = analyse(run, bases_of(run), level=level)
    if plot is not None:
        from tailcast.report.render import save_plot
        from tailcast.report.wordings import wordings_of

        save_plot(lambda look: wordings_of(run, found, look), plot)
    if json:
        print(json_text.dumps(asdict(found)))
    else:
        _show(found)


def _show(found: "Sensitivity") -> None:
    screen = result_screen()
    screen.print(_table(found))
    screen.print(
        f"spread: decades from the safest wording to the worst, with the {found.level:.0%} "
        "interval; shown: as much of it as the bounds alone leave, without a model. chance: that "
        "no other measured wording is worse. rise: from the base query's own wording to the worst.",
        style="dim", highlight=False,
    )  # fmt: skip
    for line in _sentences(found):
        screen.print(line, highlight=False)


def _table(found: "Sensitivity") -> Table:
    table = plain_table(
        "base query", "no hit", "typical", "spread", "shown", "worst wording", "its risk",
        "interval", "chance", "rise",
    )  # fmt: skip
    for one in found.bases:
        table.add_row(*_cells(one))
    return table


def _cells(one: "BaseQuery") -> list[str]:
    name = one.base
    spread = _decades(one.spread)
    row = [name, f"{one.unhit} / {one.queries}", f"{one.typical:.1e}", spread, f"{one.shown:.1f}"]
    if one.worst is None:
        return [*row, "none has a hit", "", "", "", ""]
    ends = f"{one.worst.ci_low:.1e} .. {one.worst.ci_high:.1e}"
    rise = "" if one.rise is None else _decades(one.rise)
    worst = one.worst.query_id
    return [*row, worst, f"{one.worst.p:.1e}", ends, f"{one.worst_chance:.0%}", rise]


def _decades(one: "Decades") -> str:
    low, high = (f"{end:.1f}" if end is not None else "…" for end in (one.low, one.high))
    return f"{one.value:.1f} ({low} .. {high})"


def _sentences(found: "Sensitivity") -> list[str]:
    """What is within and between, in words."""
    lines = [f"Within a base query log10 risk has a standard deviation of {_spread(found.within)}."]
    if found.between and found.share_within:
        share, low, high = (
            f"{100 * (one or 0):.0f}%"
            for one in (found.share_within.value, found.share_within.low, found.share_within.high)
        )
        lines += [
            f"Between base queries: {_spread(found.between)}.",
            f"The wording's share of the variance: {share} ({low} .. {high}).",
        ]
    if found.unhit:
        lines.append(
            f"{found.unhit} of {found.queries} queries have no hit; they count as bounded from "
            "above, and what they add to a spread rests on the model (normal log risks)."
        )
    if found.unsure:
        lines.append(
            f"{found.unsure} estimates are unreliable by their own verdict: see tailcast show."
        )
    return lines


def _spread(one: "Decades") -> str:
    low = f"{one.low:.2f}" if one.low else "0"
    high = "no upper end" if one.high is None else f"{one.high:.2f}"
    return f"{one.value:.2f} decades ({low} .. {high}), a factor of {10**one.value:.3g}"
