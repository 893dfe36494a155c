"""The verb that says how far a run is."""

import json as json_lines
import math
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tailcast.cli.screen import plain_table, result_screen
from tailcast.cli.view import STAGES
from tailcast.errors import ConfigError
from tailcast.store import existing_run

if TYPE_CHECKING:
    from rich.table import Table

    from tailcast.analysis.status import Progressed, Status

__all__ = ["status"]

_FEW = 8  # queries that are named when they are behind

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON lines.")]


def status(directory: Path, /, *, watch: float | None = None, json: Json = False) -> None:
    """Say how far a run is, whether anyone works on it, and when it will be done.

    From any machine that sees the directory, while the run goes on, has stopped or has finished.
    Reads only: no model is loaded, nothing is locked.

    Args:
        directory: A run directory, or the URL of one: s3://...
        watch: Look again after so many seconds, until the run has stopped or finished.
    """
    from tailcast.analysis.status import status_of
    from tailcast.analysis.tally import Tally

    if watch is not None and not watch > 0:
        raise ConfigError(f"watch {watch:g} is no time: give a number of seconds above 0.")
    tally = Tally(existing_run(directory))
    while True:
        found = status_of(tally)
        _print(found) if json else _show(found, clear=watch is not None)
        if watch is None or found.state in ("stopped", "finished"):
            return
        time.sleep(watch)


def _print(found: "Status") -> None:
    """A line for each stage, then one for the run."""
    record = asdict(found)
    for one in record.pop("stages"):
        print(json_lines.dumps({"record": "stage", "run": found.run, **one}))
    print(json_lines.dumps({"record": "run", **record}))


def _show(found: "Status", *, clear: bool) -> None:
    screen = result_screen(100)
    if clear and screen.is_terminal:
        screen.clear()
    screen.print(f"{found.run}: {_state(found)}", style="bold", highlight=False)
    screen.print(_table(found))
    for line in [*_behind(found), *_sentences(found)]:
        screen.print(line, highlight=False)


def _state(found: "Status") -> str:
    """Who works on it, and when there was something new."""
    who = "by process {pid} of {host}".format(**found.session) if found.session else ""
    states = {
        "running": f"running, {who}",
        "stopped": "stopped" + (f", it was {who}" if found.session else ""),
        "unknown": f"running or stopped, {who}, which cannot be asked from here",
        "finished": "finished",
    }
    if found.written is None:
        return f"{states[found.state]}; no draws yet"
    when = datetime.fromtimestamp(found.written).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    ago = _time(max(0.0, time.time() - found.written))
    return f"{states[found.state]}; last shard written {ago} ago ({when})"


def _table(found: "Status") -> "Table":
    numbers = ("draws", "planned", "judged", "hits")
    table = plain_table("stage", *numbers, right=numbers)
    for one in found.stages:
        planned = "?" if one.planned is None else f"{one.planned:,}"
        name = STAGES.get(one.stage, one.stage.replace("-", " "))
        table.add_row(name, f"{one.drawn:,}", planned, f"{one.judged:,}", f"{one.hits:,}")
    if len(found.stages) > 1 or found.planned != found.stages[0].planned:
        counts, planned = found.counts, "?" if found.planned is None else f"{found.planned:,}"
        table.add_row(
            "in all", f"{counts.drawn:,}", planned, f"{counts.judged:,}", f"{counts.hits:,}"
        )
    return table


def _behind(found: "Status") -> list[str]:
    """The queries that are behind, where they are few."""
    return [_left_behind(one) for one in found.stages if 0 < len(one.behind) <= _FEW]


def _left_behind(stage: "Progressed") -> str:
    name = STAGES.get(stage.stage, stage.stage.replace("-", " "))
    return f"Behind in {name}: " + ", ".join(f"{id} ({n:,})" for id, n in stage.behind.items())


def _sentences(found: "Status") -> list[str]:
    counts, lines = found.counts, []
    if found.mean_risk is not None:
        so_far = "" if found.state == "finished" else " so far"
        lines.append(f"Mean risk{so_far}: {found.mean_risk:.2g}, from {found.mean_from}.")
    judge = f"Judge: asked about {counts.judge_calls:,} completions"
    if counts.failed:
        judge += f", failed on {counts.failed:,} draws, the last time by: {counts.error}"
    waiting = counts.drawn - counts.judged
    lines.append(judge + (f"; {waiting:,} draws wait for it." if waiting else "."))
    if found.ray is not None:
        number = found.ray[1] or "as many as there is room for"
        lines.append(f"Workers: {number}, by Ray ({found.ray[0]}).")
    if found.draws_a_second is not None:
        lines.append(
            f"Rate: {found.draws_a_second:,.1f} draws and {found.token_forwards_a_second:,.0f} "
            "token forwards a second."
        )
    if found.state != "finished":
        lines.append(f"Time left: {_left(found)}")
    spent = "" if found.minutes is None else f", {_time(60 * found.minutes)} of work"
    return [*lines, f"Cost so far: {counts.token_forwards:,} token forwards{spent}."]


def _left(found: "Status") -> str:
    if found.ends_by:
        return f"unknown, it ends by {found.ends_by}."
    if found.seconds_left is None:
        return "unknown until two batches are drawn." if found.planned else "unknown."
    resumed = "" if found.state == "running" else ", if it goes on as it did"
    return f"about {_time(found.seconds_left)}{resumed}."


def _time(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
