"""What is a behaviour, as data? Queries, contrast pairs or system prompts, and a judge.

Four forms are read: the name of one that ships with the package; a folder with a file
``behaviour.toml``; such a TOML file; and the JSON files of persona vectors (Chen et al. 2025,
arXiv 2507.21509) with ``instruction``, ``questions`` and ``eval_prompt``.
"""

import json
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from tailcast.errors import DataError
from tailcast.judges.build import asks_a_model
from tailcast.query_sets import queries_of_rows
from tailcast.rows import Row, read_rows
from tailcast.types import ContrastPair, Query

__all__ = [
    "Behaviour",
    "SystemPrompts",
    "is_behaviour",
    "judge_fields",
    "load_behaviour",
    "no_judge",
    "pairs_of_rows",
    "shipped_behaviours",
]

_FILE = "behaviour.toml"
_FIELDS = {
    "name", "description", "queries", "pairs", "system_prompts", "judge", "threshold",
    "eval_prompt", "licence",
}  # fmt: skip


@dataclass(frozen=True)
class SystemPrompts:
    """Two system prompts, one that asks for the behaviour and one that asks for its opposite."""

    positive: str
    negative: str


@dataclass(frozen=True)
class Behaviour:
    """A behaviour whose rate is measured.

    Attributes:
        name: What it is called.
        description: What it is, in a sentence.
        queries: What the model is asked.
        pairs: Contrast pairs, on other prompts than the queries'.
        system_prompts: Contrast system prompts.
        judge: Specification of the judge; "" where the file names none.
        threshold: A hit is a score of at least this; None for the judge's own.
        eval_prompt: Template of a model judge of 0 to 100, with {question} and {answer}.
        licence: Of the data.
    """

    name: str
    description: str = ""
    queries: tuple[Query, ...] = ()
    pairs: tuple[ContrastPair, ...] = ()
    system_prompts: tuple[SystemPrompts, ...] = ()
    judge: str = ""
    threshold: float | None = None
    eval_prompt: str = ""
    licence: str = ""

    @property
    def questions(self) -> tuple[str, ...]:
        """What is asked under the system prompts: the prompts of the pairs, else the queries."""
        of_pairs = tuple(dict.fromkeys(pair.prompt for pair in self.pairs))
        return of_pairs or tuple(query.prompt for query in self.queries)


def judge_fields(behaviour: Behaviour, judge: str | None, *, has_model: bool) -> dict[str, Any]:
    """The settings of a judge that a behaviour fills in.

    Args:
        behaviour: The behaviour.
        judge: What was asked for; None for what fits: the behaviour's own judge, or, where a model
            is at hand that this judge would not ask, judge trait with the ``eval_prompt``.
        has_model: Whether the model of a judge, or its server, was named.

    Returns:
        Some of ``judge``, ``threshold`` and ``judge_prompt``; empty where it has nothing to say.
    """
    own = behaviour.judge
    graded = bool(behaviour.eval_prompt) and has_model and not asks_a_model(own)
    if judge == "trait" or (judge is None and graded):
        found: dict[str, Any] = {"judge": "trait", "judge_prompt": behaviour.eval_prompt or None}
        return found if own else {**found, "threshold": behaviour.threshold}
    if judge is not None or not own:
        return {}
    return {"judge": own, "threshold": behaviour.threshold}


def shipped_behaviours() -> tuple[str, ...]:
    """Names of the behaviours that ship with the package."""
    return tuple(sorted(path.parent.name for path in _shipped().glob(f"*/{_FILE}")))


def no_judge(name: str, behaviour: Behaviour) -> str:
    """The sentence for a behaviour that nothing judges."""
    model = behaviour.eval_prompt and (
        ", or a model that answers its eval_prompt with --judge-model or --judge-server"
    )
    return f"behaviour {name!r} names no judge: give one with --judge{model}."


def is_behaviour(source: str | Path) -> bool:
    """Whether a source is a behaviour's name, folder or file, rather than a file of rows."""
    path = Path(source).expanduser()
    if path.suffix.lower() == ".json" and path.is_file():
        text = path.read_text("utf-8-sig", errors="replace")
        return text.lstrip().startswith("{") and '"questions"' in text
    return path.is_dir() or path.suffix.lower() == ".toml" or str(source) in shipped_behaviours()


def load_behaviour(source: str | Path) -> Behaviour:
    """A behaviour by name, or from a folder, a TOML file or a persona-vectors JSON file.

    Raises:
        DataError: If there is none of that name or place, or it lacks what it needs.
    """
    path = Path(source).expanduser()
    if str(source) in shipped_behaviours() and not path.is_dir():
        path = _shipped() / str(source)
    path = path / _FILE if path.is_dir() else path
    if not path.is_file():
        raise DataError(
            f"behaviour {str(source)!r} is neither a file or folder with {_FILE} nor one of "
            f"{', '.join(shipped_behaviours())}."
        )
    if path.suffix.lower() == ".json":
        return _persona(path)
    if path.suffix.lower() != ".toml":
        raise DataError(f"behaviour {path} is neither a TOML nor a JSON file.")
    try:
        fields = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"behaviour {path} is not TOML: {error}.") from None
    return _behaviour(fields, path)


def pairs_of_rows(rows: Iterable[Row]) -> list[ContrastPair]:
    """Contrast pairs {"prompt", "unsafe", "safe"} of rows.

    Raises:
        DataError: If a field is missing or empty; names the place.
    """
    pairs = []
    for place, row in rows:
        missing = [key for key in ("prompt", "unsafe", "safe") if not row.get(key)]
        if missing:
            raise DataError(
                f'{place} has no {missing[0]!r}: a pair is {{"prompt","unsafe","safe"}}.'
            )
        pairs.append(ContrastPair(str(row["prompt"]), str(row["unsafe"]), str(row["safe"])))
    return pairs


def _shipped() -> Path:
    return Path(str(files("tailcast"))) / "assets" / "behaviours"


def _behaviour(fields: dict[str, Any], path: Path) -> Behaviour:
    """From the fields of a TOML file."""
    unknown = sorted({*fields} - _FIELDS)
    if unknown:
        raise DataError(
            f"behaviour {path} has a field {unknown[0]!r}: the fields are "
            f"{', '.join(sorted(_FIELDS))}."
        )
    threshold = fields.get("threshold")
    if threshold is not None and not (isinstance(threshold, int | float) and 0 < threshold <= 1):
        raise DataError(f"behaviour {path}: threshold {threshold!r} lies outside (0, 1].")
    name = str(fields.get("name") or path.parent.name)
    queries = queries_of_rows(_rows(fields.get("queries", []), path, "queries"))
    if not queries:
        raise DataError(f"behaviour {path} holds no query: give queries, a list or a file's name.")
    return Behaviour(
        name=name,
        description=str(fields.get("description", "")),
        queries=tuple(queries),
        pairs=tuple(pairs_of_rows(_rows(fields.get("pairs", []), path, "pairs"))),
        system_prompts=_prompts(fields.get("system_prompts", []), path),
        judge=str(fields.get("judge", "")),
        threshold=threshold,
        eval_prompt=str(fields.get("eval_prompt", "")).strip(),
        licence=str(fields.get("licence", "")),
    )


def _rows(value: Any, path: Path, field: str) -> Iterable[Row]:
    """Rows of a field: a list of texts or tables, or the name of a file beside this one."""
    if isinstance(value, str):
        return read_rows(path.parent / value)
    if not isinstance(value, list):
        raise DataError(f"behaviour {path}: {field} must be a list, or the name of a file.")
    return [
        (f"{path} {field} {number}", one if isinstance(one, dict) else {"prompt": one})
        for number, one in enumerate(value, 1)
    ]


def _prompts(
    value: Any, path: Path, names: Sequence[str] = ("positive", "negative")
) -> tuple[SystemPrompts, ...]:
    """Pairs of system prompts of a list of tables."""
    found = []
    for number, one in enumerate(value if isinstance(value, list) else [value], 1):
        if not isinstance(one, dict) or not all(one.get(name) for name in names):
            raise DataError(f"{path}: system prompts {number} must have {' and '.join(names)}.")
        found.append(SystemPrompts(*(str(one[name]) for name in names)))
    return tuple(found)


def _persona(path: Path) -> Behaviour:
    """From a JSON file of persona vectors; the file's name is the trait's adjective."""
    try:
        fields = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"behaviour {path} is not JSON: {error}.") from None
    questions = fields.get("questions") if isinstance(fields, dict) else None
    if not isinstance(questions, list) or not questions:
        raise DataError(
            f"behaviour {path} has no list 'questions': a persona-vectors file holds "
            "'instruction', 'questions' and 'eval_prompt'."
        )
    trait = path.stem
    article = "an" if trait[:1].lower() in "aeiou" else "a"
    prompts = _prompts(fields.get("instruction", []), path, ("pos", "neg"))
    return Behaviour(
        name=trait,
        description=f"The trait {trait!r}, from a persona-vectors file.",
        queries=tuple(queries_of_rows(_rows(questions, path, "questions"))),
        system_prompts=tuple(
            SystemPrompts(
                f"You are {article} {trait} assistant. {one.positive}",
                f"You are a helpful assistant. {one.negative}",
            )
            for one in prompts
        ),
        eval_prompt=str(fields.get("eval_prompt", "")),
    )
