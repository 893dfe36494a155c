"""Which rows does a file or a hub data set hold, and where would an error find each of them?

JSONL, JSON, CSV and Parquet files, and Hugging Face data set ids.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tailcast.errors import DataError, MissingExtra

__all__ = ["Row", "read_file", "read_hub", "read_rows"]

Row = tuple[str, dict[str, Any]]
"""Where the row stands, for an error's sentence, and its fields."""


def read_rows(source: str | Path) -> Iterator[Row]:
    """Rows of a file or data set.

    Raises:
        DataError: If there is no such file, or it is not what its name says; names the line.
        MissingExtra: If it is a data set id and ``datasets`` is not installed.
    """
    path, text = Path(source).expanduser(), str(source)
    is_id = text.count("/") == 1 and not text.startswith((".", "/", "~")) and not path.suffix
    return read_hub(text) if is_id and not path.exists() else read_file(path)


def read_file(path: Path) -> Iterator[Row]:
    """Rows of a JSONL, JSON, CSV or Parquet file.

    Raises:
        DataError: If there is no such file, or it cannot be read as one; names the line.
    """
    readers = {
        ".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet
    }  # fmt: skip
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise DataError(f"file {str(path)!r} {what}: check the path.")
    if path.suffix.lower() not in readers:
        raise DataError(f"{path} is none of {', '.join(readers)}: convert it to one of them.")
    try:
        yield from readers[path.suffix.lower()](path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def read_hub(name: str, subset: str | None = None, split: str | None = None) -> Iterator[Row]:
    """Rows of a data set of the hub.

    Args:
        name: Its id.
        subset: Its configuration, where it has several.
        split: Its split; the first one if not given.

    Raises:
        DataError: If it cannot be loaded; gated ones need ``huggingface-cli login`` first.
        MissingExtra: If ``datasets`` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets", "datasets", f"reading the data set {name!r}") from error
    try:
        rows = datasets.load_dataset(name, *([subset] if subset else []))
        split = split or next(iter(rows))
        found = rows[split]
    except Exception as error:  # the hub's client raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"data set {name!r} cannot be loaded: {reason} (accept its terms and log in to the "
            "hub if it is gated, or give a local file)."
        ) from error
    for number, row in enumerate(found, 1):
        yield f"{name} split {split} row {number}", row


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        if line.strip():
            yield f"{path} line {number}", _object(line, f"{path} line {number}")


def _object(text: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{place} is not JSON: {error.msg} at column {error.colno}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{place} is not a JSON object: write one object a line.")
    return value


def _json(path: Path) -> Iterator[Row]:
    try:
        rows = json.loads(path.read_text("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error.msg} at line {error.lineno}.") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} is not a list of objects.")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path} item {number} is not a JSON object.")
        yield f"{path} item {number}", row


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            if None in row:
                raise DataError(f"{path} line {reader.line_num} has more fields than the header.")
            yield f"{path} line {reader.line_num}", row


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowInvalid, parquet

    try:
        table = parquet.read_table(path)
    except ArrowInvalid as error:
        raise DataError(f"{path} is not a Parquet file: {error}.") from error
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"{path} row {number}", row
