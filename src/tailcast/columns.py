"""Tables of a run directory's files as records, and arrays of rows with own lengths as columns."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute

from tailcast.proposals import Proposal, StreamKey, as_rows
from tailcast.types import SampleBatch, Scores, Verdicts

__all__ = ["batch_of", "ragged", "scores_of", "steered_lengths", "verdicts_of"]


def batch_of(query_id: str, table: pa.Table) -> SampleBatch:
    """The draws of a table."""
    width = int(table.schema.metadata[b"width"])
    return SampleBatch(
        query_id=query_id,
        draws=table["draw"].to_numpy().astype(np.int64),
        proposals=_proposals(table),
        tokens=_padded(table["tokens"], width, -1, np.int32),
        lengths=_lengths(table["tokens"]),
        token_logp=_padded(table["token_logp"], width, 0, np.float32),
        token_logs=_padded(table["token_logs"], width, 0, np.float32),
        texts=tuple(table["text"].to_pylist()),
        finish=tuple(table["finish"].to_pylist()),
        token_forwards=int(table.schema.metadata[b"token_forwards"]),
        log_roulette=table["log_roulette"].to_numpy().astype(np.float64),
    )


def verdicts_of(table: pa.Table) -> Verdicts:
    """The verdicts of a table."""
    known = "share" in table.column_names  # not in runs made before there were screens
    return Verdicts(
        scores=table["score"].to_numpy().astype(np.float64),
        hits=table["hit"].to_numpy().astype(bool),
        errors=tuple(table["error"].to_pylist()),
        shares=table["share"].to_numpy().astype(np.float64) if known else np.ones(len(table)),
    )


def scores_of(table: pa.Table) -> Scores:
    """The scores of a table."""
    facts = table.schema.metadata
    streams = tuple(StreamKey(*one) for one in json.loads(facts[b"streams"]))
    shape = (len(table), len(streams), int(facts[b"tokens"]))
    return Scores(
        draws=table["draw"].to_numpy().astype(np.int64),
        token_logp=_values(table["logp"]).reshape(shape[0], shape[2]),
        token_logs=_values(table["logs"]).reshape(shape),
        lengths=table["length"].to_numpy().astype(np.int64),
        streams=streams,
        token_forwards=int(facts[b"token_forwards"]),
    )


def steered_lengths(batch: SampleBatch) -> np.ndarray[Any, Any]:
    """How many first tokens of each draw have a second law, [n]."""
    _, twin, _ = as_rows(batch.proposals)
    return np.minimum(batch.lengths, twin)


def ragged(values: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> pa.Array:
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
    table[np.arange(width) < _lengths(lists)[:, None]] = _values(lists)
    return table
