"""Where do a run's queries and contrast pairs come from?

Queries: a JSONL, JSON, CSV or Parquet file, a Hugging Face data set id, a known query set
(``strongreject``, ``harmbench=FILE`` ...; see :mod:`tailcast.query_sets`), a behaviour (see
:mod:`tailcast.behaviours`), or ``inspect:TASK`` for the samples of an Inspect task. Pairs: a file,
or a behaviour.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from tailcast.behaviours import is_behaviour, load_behaviour, pairs_of_rows
from tailcast.errors import DataError
from tailcast.query_sets import (
    PROMPT_COLUMNS,
    checked_messages,
    queries_of_rows,
    query_id,
    query_rows,
)
from tailcast.rows import read_rows
from tailcast.types import ContrastPair, Query

__all__ = [
    "PROMPT_COLUMNS",
    "load_pairs",
    "load_prompts",
    "load_queries",
    "load_weights",
    "pairs_digest",
    "queries_digest",
]


_SURROGATE = re.compile("[\ud800-\udfff]")


def load_queries(
    source: str | Path | Sequence[str] | Sequence[Query],
    *,
    column: str | None = None,
    limit: int | None = None,
) -> list[Query]:
    """Queries from a file, a data set id, a query set's or behaviour's name, or a list.

    Args:
        source: Where from.
        column: Column of the prompt, when it has another name.
        limit: Keep the first this many.

    Raises:
        DataError: If there is no such file, no row, a row without a prompt, messages that
            cannot be measured, or two queries of one id; names the file and the line.
    """
    name = str(source) if isinstance(source, str | Path) else "the list of queries"
    if not isinstance(source, str | Path):
        queries = [_listed(item, number) for number, item in enumerate(source)]
    elif name.startswith("inspect:"):
        from tailcast.judges.inspect_tasks import queries_of_task

        queries = queries_of_task(name.removeprefix("inspect:"))
    elif is_behaviour(source):
        queries = list(load_behaviour(source).queries)
    else:
        queries = queries_of_rows(query_rows(source), column)
    if not queries:
        raise DataError(f"{name} holds no query: give at least one row with a prompt.")
    seen: set[str] = set()
    for query in queries:
        if query.id in seen:
            raise DataError(f"{name} has two queries with id {query.id!r}: ids must be distinct.")
        seen.add(query.id)
        if any(_SURROGATE.search(one["content"]) for one in query.messages):
            raise DataError(
                f"{name}: query {query.id!r} holds half of a surrogate pair, which is no text: "
                "mend its encoding."
            )
    return queries[:limit]


def load_pairs(source: str | Path) -> list[ContrastPair]:
    """Contrast pairs {"prompt", "unsafe", "safe"} from a file, or those of a behaviour.

    Raises:
        DataError: As :func:`load_queries`, or if a field is missing or empty.
    """
    if is_behaviour(source):
        pairs = list(load_behaviour(source).pairs)
    else:
        pairs = pairs_of_rows(read_rows(source))
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
    for number, (place, fields) in enumerate(read_rows(source)):
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
        found[query_id(fields, number)] = weight
    missing = [one for one in query_ids if one not in found]
    if missing:
        raise DataError(f"{source} has no weight of query {missing[0]!r}: give one for each query.")
    return [found[one] for one in query_ids]


def queries_digest(queries: Iterable[Query]) -> str:
    """Digest of ids, messages and targets, for the manifest."""
    rows = [[one.id, one.messages, *([one.target] if one.target else [])] for one in queries]
    text = json.dumps(rows, sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def pairs_digest(source: str | Path) -> str:
    """Digest of contrast pairs, for the manifest: of the file's bytes, or of a behaviour's."""
    path = Path(source)
    if path.is_file():
        return sha256(path.read_bytes()).hexdigest()[:16]
    text = json.dumps([[one.prompt, one.unsafe, one.safe] for one in load_pairs(source)])
    return sha256(text.encode()).hexdigest()[:16]


def _listed(item: object, number: int) -> Query:
    """A query of a list: a prompt, or a query with messages that can be measured."""
    if not isinstance(item, Query):
        return Query.user(f"q{number}", str(item))
    return replace(item, messages=checked_messages(item.messages, f"query {item.id!r}"))
