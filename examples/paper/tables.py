"""From estimates to errors, and from results to tables beside the paper's numbers."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from study import HERE, MODELS

__all__ = ["Errors", "Result", "errors_of", "markdown", "paper_table", "write_table"]

_COLUMNS = {
    "greedy": "greedy", "after_10000": "after 10,000", "mean_mc": "mean, mc", "mean_is": "mean, is",
    "mse": "mse of is",
}  # fmt: skip
_SHARES = ("greedy", "after_10000")
_FEWEST_HITS = 5  # of the reference, for an error in decades


@dataclass(frozen=True)
class Result:
    """A table, the numbers that stand beside the paper's, and what to say of them."""

    columns: Sequence[str]
    rows: list[list[str]]
    numbers: dict[str, float | None]
    notes: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Errors:
    """Estimates against plain sampling, over queries.

    Attributes:
        draws: Mean draws of a query.
        hits: All hits.
        mse: Mean squared error, the reference's own noise taken off; may fall below 0.
        plain_mse: That of as many plain draws.
        decades: Median of |log10(estimate / reference)| where the reference has five hits or
            more; an estimate without a hit is infinitely far off. None without such a query.
        overlap: Share of queries whose two intervals have a number in common.
    """

    draws: float
    hits: int
    mse: float
    plain_mse: float
    decades: float | None
    overlap: float

    @property
    def gain(self) -> float:
        """Plain sampling's mean squared error over this one's; above 1 this one is better."""
        return self.plain_mse / self.mse if self.mse > 0 else float("inf")

    @property
    def sentence(self) -> str:
        """In words."""
        return (
            f"Mean squared error {self.mse:.1e}, that of as many plain draws {self.plain_mse:.1e}; "
            f"intervals overlap on {self.overlap:.0%} of the queries."
        )

    def cells(self) -> list[str]:
        """For a table."""
        off = "" if self.decades is None else f"{self.decades:.2f}"
        gain = "below noise" if self.mse <= 0 else f"{self.gain:.2f}"
        return [
            f"{self.draws:.0f}", str(self.hits), f"{self.mse:.1e}", gain, off, f"{self.overlap:.0%}"
        ]  # fmt: skip


def errors_of(rows: Sequence[dict[str, Any]], plain: Sequence[dict[str, Any]]) -> Errors:
    """Estimates against those of plain sampling, query by query.

    Args:
        rows: Estimates.
        plain: Plain ones of the same queries, in the same order.

    Raises:
        ValueError: If they are of other queries.
    """
    if [one["query_id"] for one in rows] != [one["query_id"] for one in plain]:
        raise ValueError("estimates and reference are of different queries")
    found = np.array([one["p"] or 0.0 for one in rows])
    draws = np.array([one["n"] for one in rows])
    hits, n = (np.array([one[name] for one in plain]) for name in ("n_hits", "n"))
    risk = hits / n
    spread = risk * (1 - risk) * n / np.maximum(n - 1, 1)  # unbiased for p (1 - p)
    common = np.flatnonzero(hits >= _FEWEST_HITS)
    with np.errstate(divide="ignore"):
        off = np.abs(np.log10(found[common] / risk[common]))
    meet = [
        one["ci_low"] <= two["ci_high"] and two["ci_low"] <= one["ci_high"]
        for one, two in zip(rows, plain, strict=True)
    ]
    return Errors(
        draws=float(draws.mean()),
        hits=sum(one["n_hits"] for one in rows),
        mse=float(np.mean((found - risk) ** 2 - spread / n)),
        plain_mse=float(np.mean(spread / draws)),
        decades=float(np.median(off)) if len(common) else None,
        overlap=float(np.mean(meet)),
    )


def markdown(result: Result) -> str:
    """A result as a Markdown table, its notes below."""
    return "\n".join([_table(result.columns, result.rows), *("\n" + one for one in result.notes)])


def paper_table(found: dict[str, dict[str, float | None]]) -> str:
    """The paper's five models and harm: its numbers, and those measured here.

    Args:
        found: Numbers by the name of the model; empty where nothing was measured.
    """
    published = tomllib.loads((HERE / "published.toml").read_text("utf-8"))
    rows = []
    for model in MODELS:
        for source, numbers in (("paper", published[model]), ("here", found.get(model, {}))):
            cells = [_cell(name, numbers.get(name)) for name in _COLUMNS]
            rows.append([model if source == "paper" else "", source, *cells])
    for model in sorted(set(found) - set(MODELS)):
        rows.append([model, "here", *(_cell(name, found[model].get(name)) for name in _COLUMNS)])
    return _table(["model", "", *_COLUMNS.values()], rows)


def write_table(runs: Path, out: Path | None) -> str:
    """All results under a folder as one page; also written to a file if one is given."""
    records = [json.loads(one.read_text("utf-8")) for one in sorted(runs.glob("*/*.json"))]
    records = [one for one in records if "experiment" in one]
    found: dict[str, dict[str, float | None]] = {}
    for one in records:
        model, behaviour = one["study"].split("/")
        if behaviour == "harm":
            found.setdefault(model, {}).update(one["numbers"])
    parts = ["# The paper's experiments, as measured", paper_table(found)]
    parts += [_section(one, runs) for one in records]
    text = "\n\n".join(parts) + "\n"
    if out is not None:
        out.write_text(text, "utf-8")
    return text


def _section(record: dict[str, Any], runs: Path) -> str:
    """One experiment: its command, what was measured how, and its table."""
    study, name = record["study"], record["experiment"]
    model, behaviour = study.split("/")
    wall, busy = record["seconds"]
    manifest = json.loads((runs / study / "manifest.json").read_text("utf-8"))["config"]
    result = Result(record["columns"], record["rows"], record["numbers"], record["notes"])
    return (
        f"## {name}: {study}\n\nMade by `python examples/paper/experiments.py {name} --model "
        f"{model} --behaviour {behaviour}` in {wall:.0f} s, {busy:.0f} s of them computing: "
        f"temperature {manifest['temperature']:g}, {manifest['max_new_tokens']} new tokens, judge "
        f"`{manifest['judge']}`.\n\n{markdown(result)}"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(name: str, value: Any) -> str:
    """A number, or a range of them."""
    if value is None:
        return ""
    if isinstance(value, list):
        return " to ".join(_cell(name, one) for one in value)
    return f"{value:.1%}" if name in _SHARES else f"{value:.2g}"
