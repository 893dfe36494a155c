"""Draws, verdicts and scores as tables, one file of a run directory each, and back."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute

from tailcast.proposals import Proposal, StreamKey, as_rows
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
    lengths = _lengths(table["tokens"])
    if (lengths != _lengths(table["token_logp"])).any():
        raise ValueError("a draw has tokens without log-probabilities")
    return SampleBatch(
        query_id=query_id,
        draws=_numbers(table["draw"], np.int64),
        proposals=_proposals(table),
        tokens=_padded(table["tokens"], width, -1, np.int32),
        lengths=lengths,
        token_logp=_padded(table["token_logp"], width, 0, np.float32),
        token_logs=_padded(table["token_logs"], width, 0, np.float32),
        texts=tuple(table["text"].to_pylist()),
        finish=tuple(table["finish"].to_pylist()),
        token_forwards=int(table.schema.metadata[b"token_forwards"]),
        log_roulette=_numbers(table["log_roulette"], np.float64),
    )


def table_of_verdicts(verdicts: Verdicts) -> pa.Table:
    """Verdicts as a table."""
    scores = pa.array(verdicts.scores, mask=verdicts.failed)
    columns = {"score": scores, "hit": verdicts.hits, "error": list(verdicts.errors)}
    return pa.table({**columns, "share": verdicts.shares})


def verdicts_of(table: pa.Table) -> Verdicts:
    """The verdicts of a table."""
    _check(table, _VERDICTS, missing=("score",))
    known = "share" in table.column_names  # not in runs made before there were screens
    shares = _numbers(table["share"], np.float64) if known else np.ones(len(table))
    if not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError("a share lies outside [0, 1]")
    return Verdicts(
        scores=_numbers(table["score"], np.float64),
        hits=_numbers(table["hit"], np.bool_),
        errors=tuple(table["error"].to_pylist()),
        shares=shares,
    )


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
        draws=_numbers(table["draw"], np.int64),
        token_logp=_values(table["logp"]).reshape(shape[0], shape[2]),
        token_logs=_values(table["logs"]).reshape(shape),
        lengths=_numbers(table["length"], np.int64),
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
    _, twin, _ = as_rows(batch.proposals)
    return np.minimum(batch.lengths, twin)


def _ragged(values: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> pa.Array:
    """The first ``lengths[i]`` values of each row as a list column."""
    inside = np.arange(values.shape[1]) < lengths[:, None]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[inside]))


def _proposals(table: pa.Table) -> tuple[Proposal, ...]:
    """The proposal of each row; equal ones are one object."""
    columns = [table[name].to_pylist() for name in ("strength", "switch", "mix", "heat")]
    known = "kind" in table.column_names  # not in runs made before there were kinds
    columns.append(table["kind"].to_pylist() if known else [""] * len(table))
    rows = list(zip(*columns, strict=True))
    made = {row: Proposal(*row) for row in dict.fromkeys(rows)}
    return tuple(made[row] for row in rows)


def _numbers(column: pa.ChunkedArray, dtype: Any) -> np.ndarray[Any, Any]:
    """A column as an array; gaps are NaN."""
    return np.asarray(column.to_numpy()).astype(dtype)


def _values(lists: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """All values of a list column, row after row."""
    values: np.ndarray[Any, Any] = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values


def _lengths(lists: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """How many values each row of a list column has, [n]."""
    lengths: np.ndarray[Any, Any] = compute.list_value_length(lists).to_numpy().astype(np.int64)
    return lengths


def _padded(lists: pa.ChunkedArray, width: int, fill: int, dtype: Any) -> np.ndarray[Any, Any]:
    """A list column as a table as wide as ``width``, filled up."""
    table = np.full((len(lists), width), fill, dtype=dtype)
    lengths = _lengths(lists)
    if (lengths > width).any():
        raise ValueError(f"a row has more than {width} values")
    table[np.arange(width) < lengths[:, None]] = _values(lists)
    return table
