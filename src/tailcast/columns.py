"""Arrays of rows with own lengths as columns of a table, and back."""

from typing import Any

import numpy as np
import pyarrow as pa

from tailcast.types import SampleBatch

__all__ = ["padded", "ragged", "steered_lengths"]


def steered_lengths(batch: SampleBatch) -> np.ndarray[Any, Any]:
    """How many first tokens of each draw have a second law, [n]."""
    twin = [one.steered_tokens for one in batch.proposals]
    return np.minimum(batch.lengths, twin)


def ragged(values: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> pa.Array:
    """The first ``lengths[i]`` values of each row as a list column."""
    inside = np.arange(values.shape[1]) < lengths[:, None]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[inside]))


def padded(rows: list[list[float]], width: int, fill: int, dtype: Any) -> np.ndarray[Any, Any]:
    """Rows as a table as wide as ``width``, filled up."""
    table = np.full((len(rows), width), fill, dtype=dtype)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return table
