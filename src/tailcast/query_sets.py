"""Which column of a row is the query? Ours, and those of the query sets that people use.

A row of a known set is recognised by its columns, wherever it comes from. Any other row has
its prompt in the first filled one of ``messages``, ``prompt``, ``forbidden_prompt``,
``instruction``, ``goal``, and may have ``id``, ``category`` or ``tags``, ``target``, and ``base``:
the query that it is a paraphrase of. ``paraphrases`` is the set that ships with the package.
"""

import ast
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from tailcast.errors import DataError
from tailcast.rows import Row, read_hub, read_rows
from tailcast.types import Query

__all__ = [
    "PROMPT_COLUMNS",
    "QUERY_SETS",
    "QuerySet",
    "checked_messages",
    "queries_of_rows",
    "query_id",
    "query_rows",
]

PROMPT_COLUMNS = ("messages", "prompt", "forbidden_prompt", "instruction", "goal")


@dataclass(frozen=True)
class QuerySet:
    """A query set that people use: where it is, how it is read, what its licence is.

    Attributes:
        name: What ``--queries`` calls it.
        hub: Its data set id, with subset and split.
        marks: Columns by which its own files are recognised.
        prompt: Column of the prompt in them.
        id: Column of the id; "" numbers the rows.
        categories: Columns that become tags.
        context: Column of a text that the prompt refers to, put before it; "" for none.
        keep: Column and value of the rows that are queries; () keeps all.
        licence: Of the data.
        reference: Paper.
    """

    name: str
    hub: tuple[str, str | None, str]
    marks: tuple[str, ...]
    prompt: str
    licence: str
    reference: str
    id: str = ""
    categories: tuple[str, ...] = ()
    context: str = ""
    keep: tuple[str, ...] = ()


QUERY_SETS = {
    one.name: one
    for one in (
        QuerySet(
            name="strongreject",
            hub=("walledai/StrongREJECT", None, "train"),
            marks=("forbidden_prompt",),
            prompt="forbidden_prompt",
            categories=("category",),
            licence="MIT",
            reference="Souly et al. 2024, arXiv 2402.10260",
        ),
        QuerySet(
            name="harmbench",
            hub=("walledai/HarmBench", "standard", "train"),
            marks=("Behavior", "BehaviorID"),
            prompt="Behavior",
            id="BehaviorID",
            categories=("SemanticCategory", "FunctionalCategory"),
            context="ContextString",
            licence="MIT",
            reference="Mazeika et al. 2024, arXiv 2402.04249",
        ),
        QuerySet(
            name="advbench",
            hub=("walledai/AdvBench", None, "train"),
            marks=("goal", "target"),
            prompt="goal",
            licence="MIT",
            reference="Zou et al. 2023, arXiv 2307.15043",
        ),
        QuerySet(
            name="jailbreakbench",
            hub=("JailbreakBench/JBB-Behaviors", "behaviors", "harmful"),
            marks=("Goal", "Behavior", "Category"),
            prompt="Goal",
            id="Index",
            categories=("Category",),
            licence="MIT",
            reference="Chao et al. 2024, arXiv 2404.01318",
        ),
        QuerySet(
            name="sorry-bench",
            hub=("sorry-bench/sorry-bench-202503", None, "train"),
            marks=("turns", "prompt_style"),
            prompt="turns",
            id="question_id",
            categories=("category",),
            keep=("prompt_style", "base"),
            licence="SORRY-Bench licence agreement (research; the data set is gated)",
            reference="Xie et al. 2024, arXiv 2406.14598",
        ),
    )
}
"""By name; the hub's mirrors of the first three have the columns ``prompt`` and ``category``."""


def query_rows(source: str | Path) -> Iterable[Row]:
    """Rows of a file, of a data set id, or of a query set by NAME or NAME=PATH.

    Raises:
        DataError: As :func:`tailcast.rows.read_rows`; or if a file that is said to be of a
            set lacks one of its columns.
    """
    if str(source) == "paraphrases" and not Path(source).exists():
        return read_rows(str(files("tailcast") / "assets/paraphrases.jsonl"))
    name, _, path = str(source).partition("=")
    known = QUERY_SETS.get(name)
    if known is None or Path(source).exists():
        return read_rows(source)
    return _as(known, read_rows(path)) if path else read_hub(*known.hub)


def queries_of_rows(rows: Iterable[Row], column: str | None = None) -> list[Query]:
    """The queries that rows hold; those that their set does not count as one are left out.

    Args:
        rows: Rows with their places.
        column: Column of the prompt, when it has another name.

    Raises:
        DataError: If a row has no prompt, or one that cannot be measured; names the place.
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return []
    found: list[Query] = []
    known = None if column else _recognised(first[1])
    for row in chain([first], rows):
        query = _of_set(known, row, len(found)) if known else _query(row, len(found), column)
        found += [query] if query is not None else []
    return found


def query_id(fields: dict[str, Any], number: int) -> str:
    """Id of the query of a row: what its set or ours calls so, else its number."""
    known = _recognised(fields)
    named = fields.get(known.id) if known and known.id else None
    if named in (None, ""):
        named = fields.get("id") or fields.get("query_id") or f"q{number}"
    return str(named)


def checked_messages(messages: Sequence[Any], place: str) -> tuple[dict[str, str], ...]:
    """Chat messages that can be measured: text, after a system message user and assistant in turn.

    Args:
        messages: Each {"role", "content"}; the content a text or a list of text parts.
        place: Where they stand, for the error's sentence.

    Raises:
        DataError: If a message is malformed or has another role, if two of one role follow
            each other, if the last one is not the user's, or if a part is not text.
    """
    if not messages or not all(
        isinstance(one, dict) and {"role", "content"} <= {*one} for one in messages
    ):
        raise DataError(
            f'{place}: messages must be a list of {{"role","content"}} that ends with a user.'
        )
    roles = [str(one["role"]) for one in messages]
    if roles[-1] != "user":
        raise DataError(
            f"{place}: the last message is of role {roles[-1]!r}: the answer to it is measured, so "
            "messages must be a list that ends with a user."
        )
    first = 1 + (roles[0] == "system")
    for number, role in enumerate(roles[first - 1 :]):
        expected = ("user", "assistant")[number % 2]
        if role != expected:
            raise DataError(
                f"{place}: message {first + number} is of role {role!r} where {expected!r} was "
                "expected: messages go system (if any), user, assistant, user ... in turn."
            )
    return tuple(
        {"role": role, "content": _text(one["content"], place)}
        for role, one in zip(roles, messages)
    )


def _text(content: Any, place: str) -> str:
    """The text of a message, from a text or from text parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    kinds = [one.get("type", "unknown") if isinstance(one, dict) else "unknown" for one in parts]
    other = next((kind for kind in kinds if kind not in ("text", "input_text")), None)
    if other is not None:
        raise DataError(
            f"{place}: only text messages can be measured, this one has a part of type {other!r}: "
            "leave out queries with images or sound."
        )
    return "".join(str(one.get("text", "")) for one in parts)


def _recognised(fields: dict[str, Any]) -> QuerySet | None:
    """The set whose own columns these are; a column ``messages`` or ``prompt`` comes first."""
    if fields.get("messages") or fields.get("prompt"):
        return None
    return next((one for one in QUERY_SETS.values() if {*one.marks} <= {*fields}), None)


def _as(known: QuerySet, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows, if they have the set's columns or those of its mirror."""
    for place, fields in rows:
        missing = [mark for mark in known.marks if mark not in fields]
        if missing and "prompt" not in fields:
            raise DataError(
                f"{place} is not of {known.name}: it has no column {missing[0]!r} "
                f"(its columns are {', '.join(map(str, fields)) or 'none'})."
            )
        yield place, fields


def _of_set(known: QuerySet, row: Row, number: int) -> Query | None:
    """The query of a row of a known set; None for a row that is none."""
    place, fields = row
    if known.keep and fields.get(known.keep[0], known.keep[1]) != known.keep[1]:
        return None
    prompt = _one_turn(fields.get(known.prompt), place)
    if not prompt:
        raise DataError(f"{place} has no prompt: its column {known.prompt!r} is empty.")
    context = fields.get(known.context) if known.context else None
    tags = tuple(str(fields[one]) for one in known.categories if fields.get(one)) or _tags(fields)
    text = f"{context}\n\n---\n\n{prompt}" if context else prompt
    return Query.user(query_id(fields, number), text, tags)


def _one_turn(value: Any, place: str) -> str:
    """A prompt that some files keep as a list of one, or as the text of such a list."""
    if isinstance(value, str) and value.startswith("["):
        with suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
    if isinstance(value, list):
        if len(value) > 1:
            raise DataError(
                f"{place} has {len(value)} user turns and no answers between them: give a "
                "conversation as messages."
            )
        value = value[0] if value else None
    return "" if value is None else str(value)


def _query(row: Row, number: int, column: str | None) -> Query:
    """The query of a row of ours."""
    place, fields = row
    columns = (column,) if column else PROMPT_COLUMNS
    found = next((name for name in columns if fields.get(name) not in (None, "")), None)
    if found is None:
        raise DataError(
            f"{place} has no prompt: none of the columns {', '.join(columns)} is there and filled "
            f"(its columns are {', '.join(map(str, fields)) or 'none'})."
        )
    id, tags, value = query_id(fields, number), _tags(fields), fields[found]
    target = fields.get("target") or ()
    target = (target,) if isinstance(target, str) else tuple(map(str, target))
    if found == "messages" or isinstance(value, list):
        try:
            value = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            value = ()
        value = value if isinstance(value, list | tuple) else ()
        return Query(id, checked_messages(value, place), tags, target)
    return Query(id, ({"role": "user", "content": str(value)},), tags, target)


def _tags(fields: dict[str, Any]) -> tuple[str, ...]:
    tags = fields.get("tags") or fields.get("category") or ()
    base = (f"base:{fields['base']}",) if fields.get("base") else ()
    return ((tags,) if isinstance(tags, str) else tuple(map(str, tags))) + base
