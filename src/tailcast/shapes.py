"""What may stand in the JSON files of a run directory?

The directory may be a stranger's, or cut short: what is read of it is checked here before any
number is used. Fields that are not named are left alone.
"""

import json
from typing import Annotated, Any, Literal, NoReturn, NotRequired

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

__all__ = ["parsed", "parsed_lines"]

Number = Annotated[float, Field(allow_inf_nan=False)]
Risk = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**53)]


class _Settings(TypedDict, total=False):
    """Of a manifest's config what is used without :class:`tailcast.config.RunConfig`."""

    model: str
    queries: str
    judge: str
    engine: str
    screen: str | None
    roulette: Annotated[float, Field(gt=0, le=1)]
    continuations: Annotated[int, Field(ge=1, le=2**20)]


class _Size(TypedDict):
    samples: Count
    monte_carlo: Count
    budget: list[str | float] | None


class _Session(TypedDict):
    host: str
    pid: Annotated[int, Field(ge=1, lt=2**31)]
    began: Number
    ended: NotRequired[Number]
    size: NotRequired[_Size]


class _Manifest(TypedDict):
    config: _Settings
    facts: NotRequired[dict[str, str]]
    versions: NotRequired[dict[str, str]]
    sessions: NotRequired[list[_Session]]


class _Estimate(TypedDict):
    query_id: str
    prompt: str
    method: str
    p: Risk | None
    stderr: Risk | None
    ci_low: Risk
    ci_high: Risk
    p_low: Risk
    p_high_guaranteed: Risk
    level: Annotated[float, Field(gt=0, lt=1)]
    n: Count
    n_hits: Count
    ess: Risk | None
    ess_hits: Risk
    khat: Number | None
    max_share: Risk | None
    verdict: Literal["ok", "weak", "unreliable"]
    reasons: list[str]
    cost: NotRequired[dict[str, Count]]
    ended: NotRequired[str]


class _Message(TypedDict):
    role: str
    content: str


class _Query(TypedDict):
    id: str
    messages: Annotated[list[_Message], Field(min_length=1)]
    tags: list[str]
    target: list[str]


class _Round(TypedDict):
    size: Count
    streams: list[Count]
    counts: dict[str, list[Annotated[int, Field(ge=0, le=2**31)]]]
    components: list[list[float | str]]
    seconds: NotRequired[Risk]


class _Audit(TypedDict):
    name: str
    fires: bool
    sentence: str


class _Swarm(TypedDict):
    drawn: Count


class _Swarms(TypedDict):
    swarms: list[_Swarm]
    generation: list[Count]
    ancestor: list[Annotated[int, Field(ge=-1, le=2**53)]]


class _Selection(TypedDict):
    given_up: bool
    proposals: NotRequired[dict[str, list[Number]]]


class _Label(TypedDict):
    id: str
    label: str


_WHOLE: dict[str, TypeAdapter[Any]] = {
    "manifest.json": TypeAdapter(_Manifest),
    "audit.json": TypeAdapter(list[_Audit]),
    "finished.json": TypeAdapter(_Size),
    "judge.json": TypeAdapter(dict[str, Count]),
    "openings.json": TypeAdapter(dict[str, list[Count | list[Count]]]),
    "rounds": TypeAdapter(_Round),
    "selection.json": TypeAdapter(_Selection),
    "swarms": TypeAdapter(_Swarms),
}
"""By a file's name, or by its folder."""

_LINES: dict[str, TypeAdapter[Any]] = {
    "estimates.jsonl": TypeAdapter(_Estimate),
    "queries.jsonl": TypeAdapter(_Query),
    "labels.jsonl": TypeAdapter(_Label),
}


def parsed(name: str, content: bytes) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: If it is no JSON, or not what such a file holds; one line.
    """
    return _checked(_json(content.decode("utf-8")), _WHOLE.get(name.split("/")[0]))


def parsed_lines(name: str, content: bytes) -> list[Any]:
    """The content of a file of one JSON object a line.

    Raises:
        ValueError: As :func:`parsed`; names the line.
    """
    shape, rows = _LINES.get(name.split("/")[-1]), []
    for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
        try:
            rows.append(_checked(_json(line), shape))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    if not rows:
        raise ValueError("it is empty")
    return rows


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refused)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _checked(value: Any, shape: TypeAdapter[Any] | None) -> Any:
    try:
        if shape is not None:
            shape.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part)[:60] for part in first["loc"])
        text = first["msg"][:1].lower() + first["msg"][1:]
        raise ValueError(f"{where}: {text}" if where else text) from None
    return value
