"""What the command line shows: progress on stderr, a table or JSON lines on stdout."""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from tailcast.cli.intervals import Axis, axis_of
from tailcast.cli.screen import Screen, plain_table, result_screen
from tailcast.progress import Progress
from tailcast.store import RunStore

if TYPE_CHECKING:
    from tailcast.analysis.explain import Explanation
    from tailcast.pipeline.plan import Plan

__all__ = [
    "STAGES",
    "Messages",
    "console",
    "progress_view",
    "show_estimates",
    "show_explanation",
    "show_plan",
]

STAGES = {
    "mc": "plain sampling",
    "is": "importance sampling",
    "pilot": "pilot",
    "splitting": "splitting",
    "scoring": "scoring of its hits",
}
"""What stages are called."""

_PROMPT = 24  # characters
_STYLES = {"ok": "green", "weak": "yellow", "unreliable": "red"}


def console() -> Screen:
    """The console of messages, on stderr."""
    return Screen(stderr=True, soft_wrap=True)


class Messages(logging.Handler):
    """Log records as lines on that console."""

    def emit(self, record: logging.LogRecord) -> None:
        """A line."""
        console().print(self.format(record), highlight=False)


@contextmanager
def progress_view(*, quiet: bool) -> Iterator[Progress]:
    """A bar with rate, hits, mean risk of plain draws, and time left; nothing when quiet."""
    if quiet:
        yield Progress()
        return
    screen = console()
    bars = RichProgress(
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>6.0f}/s  {task.fields[hits]} hits{task.fields[risk]}"),
        TimeRemainingColumn(),
        console=screen,
        disable=not screen.is_terminal,
    )
    logging.getLogger().handlers = [RichHandler(console=screen, show_path=False, show_time=False)]
    with bars:
        yield _Bars(bars, screen)


class _Bars(Progress):
    """One bar for each stage; a plain line at the end of each where there is no terminal."""

    def __init__(self, bars: RichProgress, screen: Screen) -> None:
        self.bars = bars
        self.screen = screen
        self.task: Any = None
        self.begun = 0
        self.plain = False

    def start(self, stage: str, total: int, done: int) -> None:
        name = STAGES.get(stage, stage)
        if not self.screen.is_terminal:
            self.say(f"{name}: {total} draws" + (f", {done} of them found" if done else ""))
        self.begun, self.plain = done, stage == "mc"
        fields: dict[str, Any] = {"rate": 0.0, "hits": 0, "risk": ""}
        self.task = self.bars.add_task(name, total=total, completed=done, **fields)

    def advance(self, draws: int, hits: int) -> None:
        task = next(one for one in self.bars.tasks if one.id == self.task)
        elapsed = max(task.elapsed or 0.0, 1e-3)
        rate = (task.completed + draws - self.begun) / elapsed
        found = task.fields["hits"] + hits
        made = task.completed + draws - self.begun
        risk = f", mean risk {found / made:.2g}" if self.plain and found and made else ""
        self.bars.update(self.task, advance=draws, rate=rate, hits=found, risk=risk)

    def say(self, message: str) -> None:
        self.screen.print(message, highlight=False)


def show_plan(plan: "Plan", *, as_json: bool) -> None:
    """Print what a run would cost as a table, or as one JSON object."""
    if as_json:
        print(json.dumps(plan.record()))
        return
    numbers = ("draws", "token forwards", "judge calls", "time")
    screen, table = result_screen(), plain_table("stage", *numbers, right=numbers)
    for one in plan.stages:
        table.add_row(
            STAGES.get(one.name, one.name), f"{one.draws:,}", f"{one.token_forwards:,}",
            f"{one.judge_calls:,}", _time(one.hours),
        )  # fmt: skip
    screen.print(table)
    screen.print(
        f"At most {_time(plan.hours)} in all, at {plan.rate:,.0f} token forwards a second "
        f"({plan.where}, {plan.rows} rows)."
    )
    screen.print(
        f"Memory: weights {plan.weights_gib:.2f} GiB, rows {plan.rows_gib:.2f} GiB.\n"
        "Steered draws are counted up to the length limit; fitting a vector is not counted."
    )


def show_explanation(found: "Explanation", *, texts: bool, most: int = 12) -> None:
    """Print what carries an estimate: its proposals, its largest hits, its verdict's reasons."""
    screen, row = result_screen(), found.estimate
    risk = "no estimate" if row["p"] is None else f"{row['p']:.3g}"
    screen.print(f"{row['query_id']} by {row['method']}: {risk}, {row['verdict']}", style="bold")
    for name in ("ci_low", "ci_high", "p_low", "p_high_guaranteed"):
        screen.print(f"  {name:<18} {row[name]:.3g}", highlight=False)
    screen.print("Where it comes from:")
    numbers = ("draws", "hits", "share")
    table = plain_table("proposal", *numbers, right=numbers)
    for name, draws, hits, share in found.by_proposal:
        table.add_row(name, str(draws), str(hits), f"{share:.1%}")
    screen.print(table)
    screen.print(f"The largest of {len(found.hits)} hits:")
    names = ("share", "weight", "stage", "draw", "proposal", *(["completion"] if texts else []))
    table = plain_table(*names, right=names[:4])
    for one in found.hits[:most]:
        text = [repr(one.text[:160])[1:-1]] if texts else []
        weight = f"{math.exp(one.log_weighted):.3g}"
        table.add_row(f"{one.share:.1%}", weight, one.stage, str(one.draw), one.proposal, *text)
    screen.print(table)
    for reason in row["reasons"]:
        screen.print(f"{row['verdict']}: {reason}", highlight=False)
    if not texts and found.hits:
        screen.print("Their completions: --show-text", style="dim")


def _time(hours: float) -> str:
    """Hours in the unit that reads best."""
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.1f} s"


def show_estimates(rows: list[dict[str, Any]], path: PurePath, *, as_json: bool) -> None:
    """Print estimates as a table with what they mean, or as JSON lines."""
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    screen, axis = result_screen(), axis_of(rows)
    names = ["query", "method", "risk", "interval", axis.title, "at least", "hits / draws",
             "verdict", "prompt"]  # fmt: skip
    columns = dict(zip(names, zip(*(_cells(row, axis) for row in rows)), strict=True))
    fitting = _fitting(columns, screen.width, (axis.title, "prompt"))
    table = plain_table(*fitting, right=("risk",), no_wrap=True)
    for cells in zip(*fitting.values()):
        table.add_row(*cells)
    screen.print(table)
    _footnotes(screen, rows)
    for one in RunStore(str(path)).read_json("audit.json") or []:
        if one["name"] == "all" or one["fires"]:
            style = "red" if one["fires"] else "dim"
            text = f"audit of {one['name']}: {one['sentence']}."
            screen.print(text, style=style, highlight=False)
    screen.print(f"Run directory: {path}   estimates: {path / 'estimates.jsonl'}")


def _fitting(
    columns: dict[str, tuple[str | Text, ...]], width: int, spare: Sequence[str]
) -> dict[str, tuple[str | Text, ...]]:
    """The columns without as many of the spare ones as are too wide: no number is ever cut."""
    needed = {
        name: 2 + max(cell_len(str(cell)) for cell in (name, *cells))
        for name, cells in columns.items()
    }
    kept = dict(columns)
    for name in spare:
        if sum(needed[one] for one in kept) - 2 > width:
            del kept[name]
    return kept


def _cells(row: dict[str, Any], axis: Axis) -> list[str | Text]:
    risk = f"{row['p']:.2e}" if row["p"] is not None else f"< {row['ci_high']:.1e}"
    if row["p"] is None and row["method"] != "mc":
        risk = "unknown"
    verdict = Text(row["verdict"], _STYLES[row["verdict"]])
    prompt = row["prompt"].replace("\n", " ")
    return [
        row["query_id"],
        row["method"],
        risk,
        f"{row['ci_low']:.1e} .. {row['ci_high']:.1e}",
        axis.bar(row),
        f"{row['p_low']:.1e}",
        f"{row['n_hits']} / {row['n']}",
        verdict,
        prompt[:_PROMPT] + ("…" if len(prompt) > _PROMPT else ""),
    ]


_MEANINGS = {
    "mc": "mc: plain sampling, exact {level} interval (Clopper-Pearson).",
    "is": "is: importance sampling; its {level} interval ASSUMES that the proposal visits every "
    "way to hit.",
    "mixture": "mixture: draws shared out over proposals and the target; its {level} interval "
    "ASSUMES that together they visit every way to hit, which the audit tests.",
    "splitting": "splitting: swarms of the target, unbiased whatever the score; its {level} "
    "interval is by their spread and ASSUMES that no way to hit escapes nearly all of them.",
    "mc-roulette": "mc-roulette: plain sampling that follows up few refusals and counts those for "
    "more; its {level} interval takes the weights that it saw for all there are.",
    "mc-screen": "mc-screen: plain sampling of which the judge saw few refusals, which count for "
    "the others; its {level} interval takes the weights that it saw for all there are.",
}


def _footnotes(screen: Screen, rows: list[dict[str, Any]]) -> None:
    """What the columns mean, what ended the sampling, and the commonest reasons."""
    methods = {row["method"] for row in rows}
    level = rows[0]["level"] if rows else 0.95
    for method, meaning in _MEANINGS.items():
        if method in methods:
            screen.print(meaning.format(level=f"{level:.0%}"), style="dim", highlight=False)
    screen.print(
        f"at least: what the draws refute from below at {level:.0%}, whatever the proposal.",
        style="dim", highlight=False,
    )  # fmt: skip
    ended = Counter(row["ended"] for row in rows if row.get("ended") not in (None, "", "samples"))
    for why, number in ended.most_common(6):
        screen.print(f"{number} ended by: {why}", style="dim", highlight=False)
    weak = [row for row in rows if row["verdict"] != "ok"]
    if weak:
        screen.print(f"{len(weak)} of {len(rows)} estimates are not ok; the first reason of each:")
    for row in weak[:6]:
        screen.print(f"  {row['query_id']} {row['method']}: {row['reasons'][0]}")
    if len(weak) > 6:
        screen.print(f"  … and {len(weak) - 6} more in estimates.jsonl")
