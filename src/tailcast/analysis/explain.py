"""Which draws make up an estimate, and which proposal brought them?

Read from a run directory alone: no model is loaded, nothing is drawn.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailcast.analysis.draws import Draws, mixtures_of, read_draws, read_round
from tailcast.errors import StoreError
from tailcast.mixtures import Mixture
from tailcast.store import RunStore

__all__ = [
    "Explanation",
    "WeightedHit",
    "as_json",
    "explain",
    "explain_estimate",
]


@dataclass(frozen=True)
class WeightedHit:
    """A hit and what it adds to the estimate.

    Attributes:
        stage: Where it was drawn.
        draw: Its number there.
        proposal: What it was drawn from.
        log_weighted: Log of w*h; a prefix with several continuations counts once.
        share: Of the estimate.
        text: The completion.
    """

    stage: str
    draw: int
    proposal: str
    log_weighted: float
    share: float
    text: str


@dataclass(frozen=True)
class Explanation:
    """What an estimate is made of.

    Attributes:
        estimate: The line of ``estimates.jsonl``.
        hits: The hits behind it, the largest first.
        draws: Draws of every proposal.
        by_proposal: Proposal, draws, hits and share of the estimate, the largest share first.
    """

    estimate: dict[str, Any]
    hits: tuple[WeightedHit, ...]
    draws: dict[str, int]
    by_proposal: tuple[tuple[str, int, int, float], ...]


def explain(store: RunStore, query_id: str, method: str | None = None) -> Explanation:
    """Take an estimate apart.

    Args:
        store: A finished run.
        query_id: Which query.
        method: Which of its estimates; the last one if None.

    Raises:
        StoreError: If the run has no estimate of that query, or not by that method.
    """
    rows = [row for row in store.read_lines("estimates.jsonl") if row["query_id"] == query_id]
    if not rows:
        known = [row["query_id"] for row in store.read_lines("estimates.jsonl")]
        shown = ", ".join(dict.fromkeys(known[:6])) + (" ..." if len(known) > 6 else "")
        raise StoreError(f"query {query_id!r} is not in {store.path}: its queries are {shown}")
    found = [row for row in rows if method in (None, row["method"])]
    if not found:
        methods = ", ".join(row["method"] for row in rows)
        raise StoreError(f"method {method!r} was not used on {query_id}: there is {methods}.")
    return explain_estimate(store, found[-1])


def explain_estimate(store: RunStore, row: dict[str, Any]) -> Explanation:
    """Take a line of ``estimates.jsonl`` apart.

    Raises:
        StoreError: If draws that it was made from are gone or damaged.
    """
    with store.readable(f"the draws of {row['query_id']!r}"):
        return _explained(row, list(_parts(store, row)))


def _explained(row: dict[str, Any], parts: "list[_Part]") -> Explanation:
    """All parts of an estimate together."""
    total = np.logaddexp.reduce([-np.inf, *(value for part in parts for value in part[3])])
    if np.isnan(total):
        raise ValueError("a weight is no number")
    draws: dict[str, int] = {}
    hits = []
    for stage, numbers, names, values, texts, counts in parts:
        for name, count in counts.items():
            draws[name] = draws.get(name, 0) + count
        hits += [
            WeightedHit(stage, int(number), name, float(value), float(np.exp(value - total)), text)
            for number, name, value, text in zip(numbers, names, values, texts, strict=True)
        ]
    hits.sort(key=lambda one: -one.share)
    return Explanation(row, tuple(hits), draws, _by_proposal(hits, draws))


def _by_proposal(
    hits: Sequence[WeightedHit], draws: Mapping[str, int]
) -> tuple[tuple[str, int, int, float], ...]:
    rows = []
    for name, count in draws.items():
        mine = [one for one in hits if one.proposal == name]
        rows.append((name, count, len(mine), sum(one.share for one in mine)))
    return tuple(sorted(rows, key=lambda row: -row[3]))


_Part = tuple[str, NDArray[Any], list[str], NDArray[np.float64], list[str], dict[str, int]]


def _parts(store: RunStore, row: dict[str, Any]) -> Iterator[_Part]:
    """Of every stage: hits' numbers, proposals, log-weights and texts, and draws by proposal."""
    config = (store.read_json("manifest.json") or {}).get("config", {})
    if row["method"] != "mixture" and store.shards(stage_of(row), row["query_id"]):
        yield _plain_part(store, stage_of(row), row["query_id"])
        return
    several = int(config.get("continuations", 1))
    for stage, mixture in mixtures_of(store, row["query_id"]):
        yield _round_part(store, stage, row["query_id"], mixture, several)


def stage_of(row: dict[str, Any]) -> str:
    return row["method"] if row["method"] in ("is", "splitting") else "mc"


def _plain_part(store: RunStore, stage: str, query_id: str) -> _Part:
    draws = read_draws(store, stage, query_id)
    hits = np.flatnonzero(draws.hits)
    proposals = [str(one) for batch in draws.batches for one in batch.proposals]
    counts = {name: proposals.count(name) for name in dict.fromkeys(proposals)}
    texts = _texts(draws)
    names = [proposals[hit] for hit in hits]
    return stage, hits, names, draws.log_weights[hits], [texts[hit] for hit in hits], counts


def _round_part(
    store: RunStore, stage: str, query_id: str, mixture: Mixture, several: int
) -> _Part:
    found, draws = read_round(store, stage, query_id, mixture, continuations=several)
    hit = np.unique(np.flatnonzero(draws.hits) // several)
    texts = _texts(draws)
    shown = [
        " / ".join(texts[k] for k in range(one * several, (one + 1) * several) if draws.hits[k])
        for one in hit
    ]
    names = [str(mixture.components[j]) for j in found.component]
    pairs = zip(mixture.components, mixture.counts, strict=True)
    drawn = {str(one): n for one, n in pairs if n}
    return stage, hit * several, names, found.log_weighted, shown, drawn


def _texts(draws: Draws) -> list[str]:
    return [text for batch in draws.batches for text in batch.texts]


def as_json(found: Explanation, *, texts: bool) -> str:
    """One JSON object; the completions only where they are asked for."""
    hits = [{k: v for k, v in vars(one).items() if texts or k != "text"} for one in found.hits]
    return json.dumps({"estimate": found.estimate, "draws": found.draws, "hits": hits})
