"""Two estimates of the same queries, one against the other."""

import json as json_lines
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.text import Text

from tailcast.cli.screen import plain_table, result_screen

if TYPE_CHECKING:
    from tailcast.analysis.crosscheck import Crosscheck, Pair

__all__ = ["crosscheck"]


def crosscheck(
    directory: Path, other: Path | None = None, /, *, method: str | None = None,
    against: str | None = None, level: float = 0.95,
    json: Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON lines.")] = False,
) -> None:  # fmt: skip
    """Hold one method's estimates against another's: where do they disagree, and what to do?

    Best of two methods that fail differently, such as splitting and a mixture.

    Args:
        directory: A run directory.
        other: Another one of the same queries; without it two methods of the first.
        method: Which estimates of the first; the main method's if not given.
        against: Which of the second, or of the same run the method beside the main one.
        level: Coverage of the intervals, and of the finding that any query disagrees.
    """
    from tailcast.analysis.crosscheck import crosscheck_runs

    found = crosscheck_runs(directory, other, method=method, against=against, level=level)
    if not json:
        _show(found)
        return
    for one in found.pairs:
        print(json_lines.dumps({"kind": "query", **asdict(one)}))
    pooled = {name: value for name, value in asdict(found).items() if name != "pairs"}
    print(json_lines.dumps({"kind": "pooled", **pooled}))


def _show(found: "Crosscheck") -> None:
    screen, (first, second) = result_screen(), found.names
    ratio, interval = "decades apart", f"{found.level:.0%} interval"
    numbers = (first, second, ratio)
    table = plain_table("query", *numbers, interval, "", right=numbers)
    for one in found.pairs:
        table.add_row(*_cells(one))
    screen.print(table)
    if found.decades is not None and found.low is not None and found.high is not None:
        screen.print(
            f"Pooled: {first} is {10**found.decades:.2f} times {second}, {found.level:.0%} "
            f"interval {10**found.low:.2f} to {10**found.high:.2f}; differences as large as all "
            f"of these have a chance of {found.chance:.2g} if both are right.",
            highlight=False,
        )  # fmt: skip
    screen.print(found.sentence, style="bold", highlight=False)


def _cells(one: "Pair") -> list[str | Text]:
    risks = ["no hit" if value is None else f"{value:.2e}" for value in (one.first, one.second)]
    ends = ["" if end is None else f"{end:+.2f}" for end in (one.low, one.high)]
    decades = "" if one.decades is None else f"{one.decades:+.2f}"
    verdict: str | Text = "agree" if one.decades is not None else ""
    if one.apart:
        verdict = Text("disagree", "red")
    return [one.query_id, *risks, decades, " .. ".join(ends), verdict]
