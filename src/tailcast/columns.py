"""Draws, verdicts and scores as tables, one file of a run directory each, and back."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from tailcast.proposals import Proposal, StreamKey
from tailcast.types import SampleBatch, Scores, Verdicts

__all__ = [
    "batch_of",
    "scores_of",
    "table_of_batch",
    "table_of_scores",
    "table_of_verdicts",
    "verdicts_of",
]


_MOST_CELLS = 2**28

_KINDS: dict[str, tuple[Callable[[Any], bool], ...]] = {
    "number": (pa.types.is_integer, pa.types.is_floating),
    "text": (pa.types.is_string, pa.types.is_large_string),
    "truth": (pa.types.is_boolean,),
    "numbers": (lambda kind: pa.types.is_list(kind) and _is("number", kind.value_type),),
}

_DRAWS = {
    "draw": "number", "strength": "number", "switch": "number", "mix": "number",
    "heat": "number", "finish": "text", "text": "text", "tokens": "numbers",
    "token_logp": "numbers", "token_logs": "numbers", "log_roulette": "number",
}  # fmt: skip
_VERDICTS = {"score": "number", "hit": "truth", "error": "text"}
_SCORES = {"draw": "number", "length": "number", "logp": "numbers", "logs": "numbers"}


def table_of_batch(batch: SampleBatch) -> pa.Table:
    """Draws as a table."""
    columns = {
        "query_id": [batch.query_id] * len(batch),
        "draw": batch.draws,
        "strength": [one.strength for one in batch.proposals],
        "switch": [one.switch for one in batch.proposals],
        "mix": [one.mix for one in batch.proposals],
        "heat": [one.heat for one in batch.proposals],
        "kind": [one.kind for one in batch.proposals],
        "finish": list(batch.finish),
        "text": list(batch.texts),
        "tokens": _ragged(batch.tokens, batch.lengths),
        "token_logp": _ragged(batch.token_logp, batch.lengths),
        "token_logs": _ragged(batch.token_logs, _steered_lengths(batch)),
        "log_roulette": batch.log_roulette,
    }
    sizes = {"width": str(batch.tokens.shape[1]), "token_forwards": str(batch.token_forwards)}
    return pa.table(columns).replace_schema_metadata(sizes)


def batch_of(query_id: str, table: pa.Table) -> SampleBatch:
    """The draws of a table."""
    _check(table, _DRAWS)
    _check(table, {name: "text" for name in table.column_names if name == "kind"})
    width = int(table.schema.metadata[b"width"])
    if width * len(table) > _MOST_CELLS:
        raise ValueError(f"{len(table)} draws of {width} tokens are more than a run writes")
    columns = table.to_pydict()
    columns.setdefault("kind", [""] * len(table))  # not in runs made before there were kinds
    if any(len(a) != len(b) for a, b in zip(columns["tokens"], columns["token_logp"], strict=True)):
        raise ValueError("a draw has tokens without log-probabilities")
    names = ("strength", "switch", "mix", "heat", "kind")
    proposals = zip(*(columns[name] for name in names), strict=True)
    return SampleBatch(
        query_id=query_id,
        draws=np.array(columns["draw"], dtype=np.int64),
        proposals=tuple(Proposal(*one) for one in proposals),
        tokens=_padded(columns["tokens"], width, -1, np.int32),
        lengths=np.array([len(row) for row in columns["tokens"]], dtype=np.int64),
        token_logp=_padded(columns["token_logp"], width, 0, np.float32),
        token_logs=_padded(columns["token_logs"], width, 0, np.float32),
        texts=tuple(columns["text"]),
        finish=tuple(columns["finish"]),
        token_forwards=int(table.schema.metadata[b"token_forwards"]),
        log_roulette=np.array(columns["log_roulette"], dtype=np.float64),
    )


def table_of_verdicts(verdicts: Verdicts) -> pa.Table:
    """Verdicts as a table."""
    scores = pa.array(verdicts.scores, mask=verdicts.failed)
    columns = {"score": scores, "hit": verdicts.hits, "error": list(verdicts.errors)}
    return pa.table({**columns, "share": verdicts.shares})


def verdicts_of(table: pa.Table) -> Verdicts:
    """The verdicts of a table."""
    _check(table, _VERDICTS, missing=("score",))
    scores = [np.nan if score is None else score for score in table["score"].to_pylist()]
    hits = np.array(table["hit"].to_pylist(), dtype=bool)
    errors = tuple(table["error"].to_pylist())
    known = "share" in table.column_names  # not in runs made before there were screens
    shares = np.array(table["share"].to_pylist(), float) if known else np.ones(len(hits))
    if not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError("a share lies outside [0, 1]")
    return Verdicts(np.array(scores, dtype=float), hits, errors, shares)


def table_of_scores(scores: Scores) -> pa.Table:
    """Scores of hits as a table."""
    hits, streams, steps = scores.token_logs.shape
    rows = scores.token_logs.reshape(hits, streams * steps)
    columns = {
        "draw": scores.draws,
        "length": scores.lengths,
        "logp": pa.array(list(scores.token_logp), pa.list_(pa.float64())),
        "logs": pa.array(list(rows), pa.list_(pa.float64())),
    }
    facts = {
        "streams": json.dumps(scores.streams),
        "tokens": str(steps),
        "token_forwards": str(scores.token_forwards),
    }
    return pa.table(columns).replace_schema_metadata(facts)


def scores_of(table: pa.Table) -> Scores:
    """The scores of a table."""
    _check(table, _SCORES)
    facts = table.schema.metadata
    streams = tuple(StreamKey(*one) for one in json.loads(facts[b"streams"]))
    shape = (len(table), len(streams), int(facts[b"tokens"]))
    return Scores(
        draws=np.array(table["draw"].to_pylist(), dtype=np.int64),
        token_logp=np.array(table["logp"].to_pylist()).reshape(shape[0], shape[2]),
        token_logs=np.array(table["logs"].to_pylist()).reshape(shape),
        lengths=np.array(table["length"].to_pylist(), dtype=np.int64),
        streams=streams,
        token_forwards=int(facts[b"token_forwards"]),
    )


def _check(table: pa.Table, columns: dict[str, str], missing: tuple[str, ...] = ()) -> None:
    """Refuse a table of other columns.

    Args:
        table: The table.
        columns: What each must hold.
        missing: Those that may have gaps.

    Raises:
        ValueError: Naming the first that is not so.
    """
    for name, kind in columns.items():
        if name not in table.column_names:
            raise ValueError(f"it has no column {name}")
        column = table[name]
        if len(column) and not _is(kind, column.type):
            raise ValueError(f"its column {name} holds {column.type}")
        if column.null_count and name not in missing:
            raise ValueError(f"its column {name} has gaps")


def _is(kind: str, found: Any) -> bool:
    """Whether a column's type is of a kind; one without any value is of each."""
    return pa.types.is_null(found) or any(test(found) for test in _KINDS[kind])


def _steered_lengths(batch: SampleBatch) -> np.ndarray[Any, Any]:
    """How many first tokens of each draw have a second law, [n]."""
    twin = [one.steered_tokens for one in batch.proposals]
    return np.minimum(batch.lengths, twin)


def _ragged(values: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> pa.Array:
    """The first ``lengths[i]`` values of each row as a list column."""
    inside = np.arange(values.shape[1]) < lengths[:, None]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[inside]))


def _padded(rows: list[list[float]], width: int, fill: int, dtype: Any) -> np.ndarray[Any, Any]:
    """Rows as a table as wide as ``width``, filled up."""
    table = np.full((len(rows), width), fill, dtype=dtype)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return table
