"""The numbers behind the figures, as rows; and a small table of estimates for notebooks."""

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from tailcast.analysis.proposals import proposals_used
from tailcast.report.run import Run
from tailcast.report.words import METHODS, risk, risk_of
from tailcast.stats import Estimate

__all__ = [
    "component_rows",
    "cost_rows",
    "estimates_html",
    "repeated_rows",
    "short_proposal",
]

_MOST_SHOWN = 40
_ROOM = 24  # letters for a kind of stream
_NUMBERS = re.compile(r"(?:^| )(?:strength|heat|switch)=\S+(?: (?:heat|switch|mix)=\S+)*$")


def component_rows(run: Run) -> list[tuple[str, int, int, float, float]]:
    """Of every proposal: name, draws, hits, share of the draws, and of the estimates.

    The last is the mean over queries of what its hits make up of a query's estimate. Empty
    where the main method does not weigh, or the draws were not kept.

    Raises:
        StoreError: If a file of draws is damaged.
    """
    if not run.weighed or not run.explained:
        return []
    uses = [one for one in proposals_used(run.explained) if one.draws]
    total = sum(one.draws for one in uses)
    return [(one.proposal, one.draws, one.hits, one.draws / total, one.carried) for one in uses]


def short_proposal(name: str) -> str:
    """A proposal's name where there is little room: "steer 0.3, 4 tokens"."""
    found = _NUMBERS.search(name)
    if not found:
        return name
    parts = dict(part.split("=") for part in found[0].split())
    kind = name[: found.start()].strip()
    law = [kind if len(kind) <= _ROOM else f"{kind[: _ROOM - 1]}…"] if kind else []
    law += [f"steer {parts['strength']}"] if "strength" in parts else []
    law += [f"heat {parts['heat']}"] if "heat" in parts else []
    law += [f"{parts['switch']} tokens"]
    law += [f"mix {parts['mix']}"] if parts.get("mix", "0") != "0" else []
    return ", ".join(law)


def repeated_rows(run: Run) -> list[tuple[int, float | None, float, float, float | None]]:
    """Powers of ten of tries: share by the risks, both ends of its band, share as counted."""
    counted = {one.tries: one.share for one in run.curve if one.route == "draws"}
    return [
        (one.tries, one.share, one.low, one.high, counted.get(one.tries))
        for one in run.curve
        if one.route == "risks" and set(str(one.tries)[1:]) <= {"0"} and str(one.tries)[0] == "1"
    ]


def cost_rows(run: Run) -> list[tuple[str, int, int, int, int]]:
    """Of every method: name, draws, hits, token forwards and judge calls, over all queries."""
    rows = []
    for method in dict.fromkeys(one.method for one in run.estimates):
        mine = [one for one in run.estimates if one.method == method]
        forwards, calls = (
            sum(one.cost.get(name, 0) for one in mine) for name in ("token_forwards", "judge_calls")
        )
        draws, hits = sum(one.n for one in mine), sum(one.n_hits for one in mine)
        rows.append((METHODS.get(method, method), draws, hits, forwards, calls))
    return rows


def estimates_html(estimates: Sequence[Estimate]) -> str:
    """A compact table for notebooks; everything in it is escaped."""
    heads = ("query", "method", "risk", "interval", "at least", "hits / draws", "verdict", "prompt")
    rows = [_row(heads, "th")]
    for one in estimates[:_MOST_SHOWN]:
        prompt = one.prompt.replace("\n", " ")
        cells: tuple[Any, ...] = (
            one.query_id, one.method, risk_of(one), f"{risk(one.ci_low)} to {risk(one.ci_high)}",
            risk(one.p_low), f"{one.n_hits} / {one.n}", one.verdict,
            prompt[:60] + ("…" if len(prompt) > 60 else ""),
        )  # fmt: skip
        rows.append(_row(cells, "td", title="; ".join(one.reasons)))
    left = len(estimates) - _MOST_SHOWN
    more = f"<p>… and {left} more: to_pandas() has them all.</p>" if left > 0 else ""
    return f"<table>{''.join(rows)}</table>{more}"


def _row(cells: Sequence[Any], tag: str, *, title: str = "") -> str:
    inside = "".join(f'<{tag} style="text-align:left">{escape(str(one))}</{tag}>' for one in cells)
    return f'<tr title="{escape(title)}">{inside}</tr>'
