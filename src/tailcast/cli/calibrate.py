"""Verbs about the judge's error: label a sample of completions, and correct the risk by it."""

import json as json_text
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from tailcast.cli.screen import Screen, plain_table, result_screen
from tailcast.cli.view import console
from tailcast.errors import ConfigError
from tailcast.store import RunStore, existing_run

if TYPE_CHECKING:
    from tailcast.pipeline.calibrate import Calibration
    from tailcast.pipeline.labels import Sample
    from tailcast.stats import JudgeError, Measured

__all__ = ["calibrate_judge", "label"]

_WORDS = {
    "risk": "risk by the judge",
    "precision": "its hits that are hits",
    "confirmed": "risk that it finds",
    "missed": "risk that it misses",
    "corrected": "corrected risk",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}

Json = Annotated[bool, Parameter(name="--json", negative=())]

_CUT = (
    "completions end where their verdict was settled: what a label says is said of the text so "
    "far. Sample with --no-settle to label whole texts."
)


def label(
    directory: Path, /, *, out: Path | None = None, n: int | None = None, seed: int | None = None,
    query: Annotated[tuple[str, ...], Parameter(negative=())] = (), method: str | None = None,
    question: str = "Is this completion a hit?",
) -> None:  # fmt: skip
    """Label a sample of a run's completions: in this terminal, or on a sheet.

    The sample is drawn so that labels matter most for the corrected risk, and shown without the
    judge's verdicts. To stop is to go on later; any first part of it can be used.

    Args:
        directory: A finished run directory.
        out: Write a sheet to label on, *.html or *.csv, and ask nothing here.
        n: Completions to label; 100 if not given. A sample that was drawn before is kept.
        seed: Of their choice; 0 if not given.
        query: Choose from this query alone; may be given several times.
        method: Of which estimates, if a query has several; the last one if not given.
        question: What to ask about each; say what a hit is.
    """
    from tailcast.pipeline.labels import label_sample

    if n is not None and n < 2:
        raise ConfigError(f"n = {n} completions tell nothing: label at least 2.")
    kinds = (".html", ".csv")
    if out is not None and out.suffix.lower() not in kinds:
        raise ConfigError(f"--out {out} is no sheet: name a file that ends in .html or .csv.")
    if out is None and not sys.stdin.isatty():
        raise ConfigError("no terminal to label in: give --out sheet.html or --out sheet.csv.")
    store = existing_run(directory)
    sample = label_sample(store, n=n, seed=seed, queries=query, method=method)
    cut = sum(one.cut for one in sample.completions)
    if cut:
        console().print(f"{cut} of {len(sample.completions)} {_CUT}", highlight=False)
    if out is None:
        _ask(store, sample, question)
    else:
        _write_sheet(sample, out, question)
        print(f"{out}: {len(sample.completions)} completions to label. Then:")
        print(f"  tailcast calibrate-judge {directory} --labels FILE")


def calibrate_judge(directory: Path, /, *, labels: Path | None = None, json: Json = False) -> None:
    """Say how often the judge errs, and what the risk is without its errors.

    Args:
        directory: The run directory whose completions were labelled.
        labels: CSV, JSONL or JSON with the fields id and label (1, yes, 0, no, ? or empty);
            what tailcast label was told in the terminal, if not given.
        json: Print one JSON object.
    """
    from tailcast.pipeline.calibrate import calibrate

    found = calibrate(existing_run(directory), labels)
    if json:
        print(json_text.dumps(found.record()))
    else:
        _show(found, directory)


def _ask(store: RunStore, sample: "Sample", question: str) -> None:
    """Label here; what was said is kept after each key."""
    from tailcast.cli.labeller import label_in_terminal, read_key
    from tailcast.pipeline.labels import LABELS, read_labels

    kept = {}
    if store.holds(LABELS):
        with store.as_file(LABELS) as path:
            kept = read_labels(path, sample)
    words = {1.0: "yes", 0.0: "no"}

    def save(labels: dict[str, str]) -> None:
        store.write_lines(LABELS, [{"id": id, "label": word} for id, word in labels.items()])

    label_in_terminal(
        [asdict(one) for one in sample.completions],
        {id: words.get(value, "?") for id, value in kept.items()},
        question=question, save=save, key=read_key, screen=Screen(),
    )  # fmt: skip


def _write_sheet(sample: "Sample", out: Path, question: str) -> None:
    from tailcast.report.label_sheet import sheet_csv, sheet_html

    rows = [asdict(one) for one in sample.completions]
    html = out.suffix.lower() == ".html"
    text = sheet_html(rows, question=question) if html else sheet_csv(rows)
    try:
        out.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"sheet {out} cannot be written ({error.strerror}).") from None


def _show(found: "Calibration", directory: Path) -> None:
    """Tables and what they mean."""
    screen = result_screen(120)
    screen.print(f"Judge {found.judge} of {directory}", style="bold")
    screen.print(_error_table(found))
    screen.print(_query_table(found))
    for sentence in _sentences(found):
        screen.print(sentence, highlight=False)
    screen.print(f"All of it: {directory / 'calibration.json'}")


def _error_table(found: "Calibration") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    laws = ["the target", "the proposals"] if found.drawn else ["the target"]
    table.add_column("")
    for law in laws:
        table.add_column(f"draws of {law}", justify="right", no_wrap=True)
        table.add_column(f"{found.level:.0%} interval", no_wrap=True)
    for name, words in _WORDS.items():
        cells = _cells(getattr(found.pooled, name))
        if found.drawn:
            cells += _cells(getattr(found.drawn, name))
        style = "bold" if name == "corrected" else None
        table.add_row(words, *cells, style=style)
    if found.alike:
        table.add_row("corrected risk, if alike", *_cells(found.alike))
    return table


def _query_table(found: "Calibration") -> Table:
    risks = ("risk by the judge", "corrected risk")
    table = plain_table("query", risks[0], "interval", risks[1], "interval", right=risks)
    for id, one in found.queries.items():
        if one is not None:
            table.add_row(id, *_cells(one.risk), *_cells(one.corrected))
    return table


def _cells(one: "Measured") -> list[str]:
    """Estimate and interval; zero is not an answer."""
    value = "unknown" if math.isnan(one.value) else f"{_number(one.value)}"
    return ["none found" if one.value == 0 else value, f"{_number(one.low)} .. {_number(one.high)}"]


def _number(value: float) -> str:
    """To three digits, of the distance from 1 where it is next to it."""
    return f"1 - {1 - value:.2g}" if 0.99 < value < 1 else f"{value:.3g}"


def _sentences(found: "Calibration") -> list[str]:
    """What was labelled, what it leaves open, and what would help."""
    done = found.hits.labelled + found.passed.labelled
    hits, passed = found.hits, found.passed_target
    lines = [
        f"Labelled: {done} of {found.sampled}. Hits: {hits.yes} of {hits.labelled} confirmed. "
        f"Non-hits: {found.passed.yes} of {found.passed.labelled} are hits after all."
    ]
    few = [id for id, one in found.queries.items() if one is None]
    if few:
        lines.append(
            f"Too few labels to correct {len(few)} of {len(found.queries)} queries alone: label "
            "more, or draw a sample of one query with --query."
        )
    if not passed.yes:
        lines.append(_hidden(found.pooled, passed.labelled))
    if found.alike:
        lines.append(
            "If alike: if the judge misses the target's hits as often as the proposals' hits, "
            "which no label shows."
        )
    unsure = hits.unsure + found.passed.unsure
    if unsure:
        lines.append(f"{unsure} unsure labels count on both sides of the intervals.")
    if found.cut:
        lines.append(f"{found.cut} labelled {_CUT}")
    return lines


def _hidden(pooled: "JudgeError", labelled: int) -> str:
    """How much risk no label has ruled out."""
    high, risk = pooled.missed.high, pooled.risk.value
    text = (
        f"No missed hit among the {labelled} labelled non-hits of the target. That is no proof of "
        f"a sensitivity of 1: up to {high:.2g} of all completions may be hits that the judge misses"
    )
    if not 0 < risk < high:
        return f"{text}."
    return (
        f"{text}, {high / risk:.3g} times its own risk. To bring that down to its own risk takes "
        f"about {math.ceil(labelled * high / risk):,} such labels."
    )
