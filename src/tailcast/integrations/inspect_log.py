"""How does a run look in Inspect's own viewer and readers?

An ``.eval`` log holds all hits of every query and a capped number of its other draws, so its
samples are no random sample: Inspect's means over them say nothing, and the log says so. The
risks are in the metrics, as probabilities and as their base-10 logarithms, because tables that
show three decimals turn 1e-5 into 0.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tailcast.analysis.asked import read_queries
from tailcast.analysis.draws import Draws, read_draws
from tailcast.analysis.explain import explain
from tailcast.errors import ConfigError, MissingExtra
from tailcast.judges.inspect_tasks import chat_messages
from tailcast.store import RunStore
from tailcast.types import Query

__all__ = ["LogDraw", "export_eval", "logged_draws"]

_NOTE = (
    "Samples are all hits and some of the other draws, from steered proposals too: their mean is "
    "no risk. Read the metrics; weights and log-probabilities are in each sample's metadata."
)
_SCREENED = "the screen kept it from the judge; others that were judged count for it"
_MOST_SCORES = 60
"""Queries with a line of their own in the log's results; all are in its metadata."""


@dataclass(frozen=True)
class LogDraw:
    """A draw that goes into the log.

    Attributes:
        text: The completion.
        hit: The verdict; None where the judge failed or was not asked.
        score: The judge's score; None where there is none.
        error: Why there is none.
        length: Number of tokens.
        finish: "stop", "length" ...
        facts: Where it was drawn, its weight and log-probabilities.
    """

    text: str
    hit: bool | None
    score: float | None
    error: str
    length: int
    finish: str
    facts: dict[str, Any]


def export_eval(store: RunStore, path: Path, *, others: int = 100) -> dict[str, int]:
    """Write a finished run as a log of Inspect AI.

    Args:
        store: The run.
        path: File to write, ``*.eval``.
        others: Draws of each query that are no hits and go into the log, at most.

    Returns:
        How many draws there are, and how many of them went into the log.

    Raises:
        MissingExtra: If Inspect is not installed.
        ConfigError: If the file has another ending or cannot be written.
        StoreError: If the run is not finished.
    """
    if path.suffix != ".eval":
        raise ConfigError(f"{str(path)!r} does not end in .eval, which Inspect's viewer looks for.")
    try:
        from inspect_ai.log import write_eval_log
    except ImportError as error:
        raise MissingExtra("inspect-ai", "inspect", "export --inspect") from error
    rows = store.read_lines("estimates.jsonl")
    asked = {one.id: one for one in read_queries(store)}
    samples, total = [], 0
    by_query: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_query.setdefault(row["query_id"], []).append(row)
    with store.readable("files"):
        for id, mine in by_query.items():
            query = Query.user(id, mine[0]["prompt"])
            if id in asked and asked[id].prompt == query.prompt:
                query = asked[id]
            draws, drawn = logged_draws(store, id, mine, others=others)
            total += drawn
            samples += [_sample(query, number, one, mine) for number, one in enumerate(draws, 1)]
        log = _log(store, rows, samples, total)
    try:
        write_eval_log(log, str(path))
    except OSError as error:
        raise ConfigError(f"cannot write {str(path)!r}: {error.strerror or error}.") from error
    return {"draws": total, "logged": len(samples)}


def logged_draws(
    store: RunStore, query_id: str, rows: Sequence[Mapping[str, Any]], *, others: int
) -> tuple[list[LogDraw], int]:
    """The draws of a query for its log, hits first, and how many there are in all.

    Args:
        store: The run.
        query_id: Which query.
        rows: Its estimates.
        others: Most draws that are no hits; evenly spaced among them.
    """
    config = (store.read_json("manifest.json") or {}).get("config", {})
    several = int(config.get("continuations", 1))
    own = all(config.get(name, "own") == "own" for name in ("engine", "target_engine"))
    own = own and not config.get("target_server")
    weights = {
        (hit.stage, hit.draw): hit.log_weighted
        for row in rows
        for hit in explain(store, query_id, row["method"]).hits
    }
    found: list[LogDraw] = []
    for stage in _stages(store, query_id):
        draws = read_draws(store, stage, query_id)
        found += _of_stage(stage, draws, weights, several=several, own=own)
    hits = sorted((one for one in found if one.hit), key=_heaviest)
    rest = [one for one in found if not one.hit]
    keep = np.unique(np.linspace(0, len(rest) - 1, min(others, len(rest))).round().astype(int))
    return hits + [rest[number] for number in keep], len(found)


def _heaviest(draw: LogDraw) -> float:
    weight = draw.facts["log_weight"]
    return -weight if weight is not None else math.inf


def _stages(store: RunStore, query_id: str) -> Iterator[str]:
    """Stages that have draws behind an estimate of the query."""
    names = ("mc", "is", "splitting", *(stage for stage, _ in store.rounds()))
    yield from (name for name in names if store.shards(name, query_id))


def _of_stage(
    stage: str, draws: Draws, weights: Mapping[tuple[str, int], float], *, several: int, own: bool
) -> Iterator[LogDraw]:
    """The draws of a stage; in rounds only hits have a weight, that under the whole mixture.

    What another engine continued, or a server drew, has no log-probability of its whole.
    """
    rounds = stage.startswith("round")
    for batch, verdicts in zip(draws.batches, draws.verdicts, strict=True):
        plain = batch.log_weights
        for row, number in enumerate(map(int, batch.draws)):
            weight = float(plain[row])
            if rounds:
                prefix = number - number % several
                weight = weights.get((stage, prefix), math.nan) if verdicts.hits[row] else math.nan
            screened = verdicts.shares[row] == 0
            judged = not (screened or verdicts.failed[row])
            length = int(batch.lengths[row])
            known = batch.token_logp[row, : length if own else 0].astype(float)
            facts = {
                "stage": stage,
                "draw": number,
                "proposal": str(batch.proposals[row]),
                "log_weight": _finite(weight),
                "log10_weight": _finite(weight / math.log(10)),
                "log_prob": _finite(float(known.sum())) if own else None,
                "token_logp": [round(value, 5) for value in known.tolist()],
                "token_ids": batch.tokens[row, :length].tolist(),
            }
            yield LogDraw(
                text=batch.texts[row],
                hit=bool(verdicts.hits[row]) if judged else None,
                score=float(verdicts.scores[row]) if judged else None,
                error=_SCREENED if screened else verdicts.errors[row],
                length=length,
                finish=batch.finish[row],
                facts=facts,
            )


def _sample(query: Query, number: int, draw: LogDraw, rows: Sequence[dict[str, Any]]) -> Any:
    """A draw as a sample; the epoch is its number among the query's draws in the log."""
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput, ModelUsage
    from inspect_ai.scorer import Score

    stopped: Any = "max_tokens" if draw.finish == "length" else "stop"
    output = ModelOutput.from_content("tailcast", draw.text, stop_reason=stopped)
    output.usage = ModelUsage(output_tokens=draw.length, total_tokens=draw.length)
    given = chat_messages(query.messages)
    verdict = {"score": draw.score, "log10_weight": draw.facts["log10_weight"]}
    estimates = {row["method"]: _numbers(row) for row in rows}
    return EvalSample(
        id=query.id,
        epoch=number,
        input=given,
        target=list(query.target),
        messages=[*given, output.message],
        output=output,
        scores={
            "hit": Score(
                value=math.nan if draw.hit is None else float(draw.hit),
                answer=draw.text,
                explanation=draw.error or None,
                metadata=verdict,
            )
        },
        metadata={**draw.facts, "finish": draw.finish, "estimates": estimates},
    )


def _log(
    store: RunStore, rows: Sequence[dict[str, Any]], samples: Sequence[Any], total: int
) -> Any:
    """The log around samples: what ran, and the estimates as results."""
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalPlan,
        EvalResults,
        EvalSpec,
        EvalStats,
    )  # fmt: skip
    from inspect_ai.model import GenerateConfig

    manifest = store.read_json("manifest.json") or {}
    config = manifest.get("config", {})
    now = datetime.now(UTC).isoformat(timespec="seconds")
    ids = list(dict.fromkeys(one.id for one in samples))
    settings = GenerateConfig(
        temperature=config.get("temperature"), max_tokens=config.get("max_new_tokens"),
        top_p=config.get("top_p"), top_k=config.get("top_k") or None, seed=config.get("seed"),
    )  # fmt: skip
    spec = EvalSpec(
        created=now, task=f"tailcast/{store.address.name}", model=f"tailcast/{config.get('model')}",
        dataset=EvalDataset(
            name=str(config.get("queries")), samples=len(samples), sample_ids=ids
        ),
        config=EvalConfig(), model_generate_config=settings,
        packages={"tailcast": version("tailcast")},
        metadata={
            "note": _NOTE, "run": str(store.address), "draws": total,
            "draws_in_log": len(samples), "config": config, "facts": manifest.get("facts", {}),
            "estimates": list(rows),
        },
    )  # fmt: skip
    results = EvalResults(
        total_samples=len(samples), completed_samples=len(samples), scores=_scores(rows),
        metadata={"note": _NOTE},
    )  # fmt: skip
    return EvalLog(
        version=2, status="success", eval=spec, plan=EvalPlan(config=settings), results=results,
        stats=EvalStats(started_at=now, completed_at=now), samples=list(samples),
    )  # fmt: skip


def _scores(rows: Sequence[dict[str, Any]]) -> list[Any]:
    """Results: the mean risk by each method, then one line for each of the first estimates."""
    from inspect_ai.log import EvalMetric, EvalScore

    def line(name: str, numbers: Mapping[str, float | None]) -> Any:
        known = {key: value for key, value in numbers.items() if value is not None}
        metrics = {key: EvalMetric(name=key, value=value) for key, value in known.items()}
        return EvalScore(name=name, scorer="hit", metrics=metrics)

    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        largest = max(row["p"] or 0.0 for row in mine) or None  # no hit at all is no risk of 0
        p = float(np.mean([row["p"] or 0.0 for row in mine])) if largest else None
        found.append(
            line(
                f"{method}: mean risk",
                {
                    "log10_p": _log10(p), "p": p, "log10_p_max": _log10(largest),
                    "p_max": largest, "ci_high_max": max(row["ci_high"] for row in mine),
                    "queries": len(mine), "draws": sum(r["n"] for r in mine),
                    "hits": sum(row["n_hits"] for row in mine),
                    "queries_ok": sum(row["verdict"] == "ok" for row in mine),
                },
            )
        )  # fmt: skip
    return found + [
        line(f"{row['method']}: {row['query_id']}", _numbers(row)) for row in rows[:_MOST_SCORES]
    ]


def _numbers(row: Mapping[str, Any]) -> dict[str, float | None]:
    """An estimate's numbers; None where there is none, and no logarithm of zero."""
    ends = {name: row[name] for name in ("p", "ci_low", "ci_high", "p_low", "p_high_guaranteed")}
    logs = {f"log10_{name}": _log10(ends[name]) for name in ("p", "ci_low", "ci_high")}
    more = {name: row[name] for name in ("n", "n_hits", "ess_hits", "khat", "max_share")}
    return {**logs, **ends, **more}


def _log10(value: float | None) -> float | None:
    return math.log10(value) if value else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
