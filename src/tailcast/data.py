"""Query sets and contrast pairs from files.

JSONL, JSON, CSV, Parquet, a Hugging Face data set id, or ``inspect:TASK`` for the samples of an
Inspect task. The prompt is in the first column that is there of ``messages``, ``prompt``,
``forbidden_prompt``, ``instruction``, ``goal``; ``id``, ``category`` or ``tags``, and ``target``
are read where present.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from tailcast.errors import DataError, MissingExtra
from tailcast.types import ContrastPair, Query

__all__ = [
    "PROMPT_COLUMNS",
    "load_pairs",
    "load_prompts",
    "load_queries",
    "load_weights",
    "queries_digest",
    "read_rows",
]

PROMPT_COLUMNS = ("messages", "prompt", "forbidden_prompt", "instruction", "goal")

_Row = tuple[str, dict[str, Any]]  # place for messages, fields


def load_queries(
    source: str | Path | Sequence[str] | Sequence[Query],
    *,
    column: str | None = None,
    limit: int | None = None,
) -> list[Query]:
    """Queries from a file, a data set id, or a list of prompts or queries.

    Args:
        source: Where from.
        column: Column of the prompt, when it has another name.
        limit: Keep the first this many.

    Raises:
        DataError: If there is no such file, no row, a row without a prompt, or two queries
            of one id; names the file and the line.
    """
    if not isinstance(source, str | Path):
        queries = [
            item if isinstance(item, Query) else Query.user(f"q{number}", str(item))
            for number, item in enumerate(source)
        ]
        name = "the list of queries"
    elif str(source).startswith("inspect:"):
        from tailcast.judges.inspect_tasks import queries_of_task

        name, queries = str(source), queries_of_task(str(source).removeprefix("inspect:"))
    else:
        name = str(source)
        queries = [_query(row, number, column) for number, row in enumerate(_rows(source))]
    if not queries:
        raise DataError(f"{name} holds no query: give at least one row with a prompt.")
    seen: set[str] = set()
    for query in queries:
        if query.id in seen:
            raise DataError(f"{name} has two queries with id {query.id!r}: ids must be distinct.")
        seen.add(query.id)
    return queries[:limit]


def load_pairs(source: str | Path) -> list[ContrastPair]:
    """Contrast pairs {"prompt", "unsafe", "safe"} from a file.

    Raises:
        DataError: As :func:`load_queries`, or if a field is missing or empty.
    """
    pairs = []
    for place, row in _rows(source):
        missing = [key for key in ("prompt", "unsafe", "safe") if not row.get(key)]
        if missing:
            raise DataError(
                f'{place} has no {missing[0]!r}: a pair is {{"prompt","unsafe","safe"}}.'
            )
        pairs.append(ContrastPair(str(row["prompt"]), str(row["unsafe"]), str(row["safe"])))
    if not pairs:
        raise DataError(f"{source} holds no pair: give at least two.")
    return pairs


def load_prompts(source: str | Path) -> list[str]:
    """Prompts of a file of queries, for fitting a refusal direction."""
    return [query.prompt for query in load_queries(source)]


def load_weights(source: str | Path, column: str, query_ids: Sequence[str]) -> list[float]:
    """How much each query counts, from a column of a file of queries, or of id and weight.

    Args:
        source: The file; rows without an id have those that :func:`load_queries` gives.
        column: Column of the weights.
        query_ids: Of which queries, in this order; others in the file are left aside.

    Raises:
        DataError: If there is no such file or column, a weight is no number of at least 0, or
            a query has none; names the file and the line.
    """
    found: dict[str, float] = {}
    for number, (place, fields) in enumerate(_rows(source)):
        if column not in fields:
            raise DataError(
                f"{place} has no column {column!r}: its columns are {', '.join(fields)}."
            )
        try:
            weight = float(fields[column])
        except (TypeError, ValueError):
            weight = -1.0
        if not 0 <= weight < float("inf"):
            raise DataError(f"{place}: weight {fields[column]!r} is no number of at least 0.")
        found[str(fields.get("id") or fields.get("query_id") or f"q{number}")] = weight
    missing = [one for one in query_ids if one not in found]
    if missing:
        raise DataError(f"{source} has no weight of query {missing[0]!r}: give one for each query.")
    return [found[one] for one in query_ids]


def queries_digest(queries: Iterable[Query]) -> str:
    """Digest of ids, messages and targets, for the manifest."""
    rows = [[one.id, one.messages, *([one.target] if one.target else [])] for one in queries]
    text = json.dumps(rows, sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def read_rows(path: Path) -> Iterator[_Row]:
    """Rows of a JSONL, JSON, CSV or Parquet file, each with its place for messages.

    Raises:
        DataError: If there is no such file, or it cannot be read as one.
    """
    if not path.is_file():
        raise DataError(f"file {str(path)!r} does not exist: check the path.")
    yield from _rows(path)


def _query(row: _Row, number: int, column: str | None) -> Query:
    place, fields = row
    columns = (column,) if column else PROMPT_COLUMNS
    found = next((name for name in columns if fields.get(name) not in (None, "")), None)
    if found is None:
        raise DataError(
            f"{place} has no prompt: none of the columns {', '.join(columns)} is there and filled "
            f"(its columns are {', '.join(map(str, fields)) or 'none'})."
        )
    id = str(fields.get("id") or fields.get("query_id") or f"q{number}")
    tags = fields.get("tags") or fields.get("category") or ()
    tags = (tags,) if isinstance(tags, str) else tuple(map(str, tags))
    target = fields.get("target") or ()
    target = (target,) if isinstance(target, str) else tuple(map(str, target))
    if found == "messages" or isinstance(fields[found], list):
        return Query(id, _messages(fields[found], place), tags, target)
    return replace(Query.user(id, str(fields[found]), tags), target=target)


def _messages(value: Any, place: str) -> tuple[dict[str, str], ...]:
    try:
        value = json.loads(value) if isinstance(value, str) else value
        messages = tuple(
            {"role": str(message["role"]), "content": message["content"]} for message in value
        )
    except (ValueError, TypeError, KeyError):
        messages = ()
    if not messages or messages[-1]["role"] != "user":
        raise DataError(
            f'{place}: messages must be a list of {{"role","content"}} that ends with a user.'
        )
    if not all(isinstance(message["content"], str) for message in messages):
        raise DataError(f"{place}: only text messages can be measured, this one has other parts.")
    return messages


def _rows(source: str | Path) -> Iterator[_Row]:
    """Rows of a file or data set with the place that an error would name."""
    path = Path(source).expanduser()
    readers = {
        ".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet
    }  # fmt: skip
    if not path.exists():
        text = str(source)
        if path.suffix or text.count("/") != 1 or text.startswith((".", "/", "~")):
            raise DataError(f"file {text!r} does not exist: check the path.")
        yield from _hub(text)
        return
    if path.suffix.lower() not in readers:
        raise DataError(f"{path} is none of {', '.join(readers)}: convert it to one of them.")
    try:
        yield from readers[path.suffix.lower()](path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def _jsonl(path: Path) -> Iterator[_Row]:
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


def _json(path: Path) -> Iterator[_Row]:
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


def _csv(path: Path) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            if None in row:
                raise DataError(f"{path} line {reader.line_num} has more fields than the header.")
            yield f"{path} line {reader.line_num}", row


def _parquet(path: Path) -> Iterator[_Row]:
    from pyarrow import ArrowInvalid, parquet

    try:
        table = parquet.read_table(path)
    except ArrowInvalid as error:
        raise DataError(f"{path} is not a Parquet file: {error}.") from error
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"{path} row {number}", row


def _hub(name: str) -> Iterator[_Row]:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets", "datasets", f"reading the data set {name!r}") from error
    try:
        rows = datasets.load_dataset(name)
    except Exception as error:  # the hub's client raises many kinds
        raise DataError(
            f"data set {name!r} cannot be loaded: {str(error).splitlines()[0]}"
        ) from error
    split = next(iter(rows))
    for number, row in enumerate(rows[split], 1):
        yield f"{name} split {split} row {number}", row
