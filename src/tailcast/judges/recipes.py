"""What is a judge model asked, and how is its answer read?

A recipe is data: the prompts, the layout in which a model gets them, and the reading of its
answer. Those of the field lie as TOML files in ``recipes/``; a user's own file has the same
fields, may start from one of them (``base``) and fill its blanks (``[fields]``).

How an answer becomes a score, its reading:

    expected    mean of the answers' values under the law of the next token, restricted to them
    argmax      value of the likeliest next token; a failure if it is none of the answers
    text        the answer is written out, and ``pattern`` finds which of the answers it gives
    number      0 to 100, the mean under the law of the next token where it is given, else as
                written
    rubric      ``pattern`` finds refusal, convincingness and specificity (StrongREJECT)
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from tailcast.errors import JudgeError
from tailcast.types import JudgeReading, Query

__all__ = ["Recipe", "known_recipes", "load_recipe", "readable"]

Layout = Literal["plain", "message", "conversation"]


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """A judge model's task.

    Attributes:
        prompts: Templates with {query} and {completion}; the score is the least of theirs.
        layout: plain: the text as it is; message: as a user's message; conversation: query and
            completion themselves, as a conversation, by the model's chat template.
        reading: How an answer becomes a score; the module says what each is.
        answers: Value in [0, 1] of each answer.
        pattern: Regular expression of the readings text and rubric.
        opening: What the judge's answer is made to begin with.
        system: System message of the layout message.
        model: Directory or hub id that it was made for.
        adapter: PEFT adapter that goes with it.
        threshold: A completion is a hit when its score is at least this.
        completion_tokens: Of a completion, only so many of the judge's tokens are judged.
        answer_tokens: Longest answer that is written out.
        source: Where it comes from.
        licence: Of prompt and model.
    """

    layout: Layout
    reading: JudgeReading
    prompts: tuple[str, ...] = ("{completion}",)
    answers: Mapping[str, float] | None = None
    pattern: str = ""
    opening: str = ""
    system: str = ""
    model: str = ""
    adapter: str = ""
    threshold: float = 0.5
    completion_tokens: int = 512
    answer_tokens: int = 16
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked or read."""
        for prompt in self.prompts:
            if "{completion}" not in prompt:
                raise ValueError("a prompt lacks the field {completion}: put it where that goes")
            for blank in set(re.findall(r"\{(\w+)\}", prompt)) - {"query", "completion"}:
                raise ValueError(f"the blank {{{blank}}} is not filled: say it under [fields]")
        if self.reading in ("expected", "argmax", "text") and not self.answers:
            raise ValueError(f"reading {self.reading} needs answers: give each a value in [0, 1]")
        for answer, value in (self.answers or {}).items():
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"answer {answer!r} has value {value}, which is not in [0, 1]")
        groups = {"text": 1, "rubric": 3}.get(self.reading)
        if groups and re.compile(self.pattern).groups != groups:
            raise ValueError(f"reading {self.reading} needs a pattern with {groups} group(s)")
        if not 0.0 < self.threshold <= 1.0:
            raise ValueError(f"threshold {self.threshold} lies outside (0, 1]")

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides a score, the threshold left out."""
        kept = {name: value for name, value in asdict(self).items() if name not in _SILENT}
        return sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]

    def texts(self, query: Query, completion: str) -> list[str]:
        """The prompts about a completion; what stands in it is never taken for a field."""
        parts = [re.split(r"(\{query\}|\{completion\})", prompt) for prompt in self.prompts]
        fields = {"{query}": query.prompt, "{completion}": completion}
        return ["".join(fields.get(part, part) for part in each) for each in parts]


_TRAIT = "trait"
_SILENT = ("threshold", "source", "licence", "model", "adapter")


def known_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    place = files("tailcast.judges") / "recipes"
    return tuple(sorted(one.name.removesuffix(".toml") for one in place.iterdir()))


def load_recipe(name: str, *, reading: str | None = None, prompt: str | None = None) -> Recipe:
    """A recipe by its name, or from a TOML file.

    Args:
        name: One of :func:`known_recipes`, or a path that ends with .toml.
        reading: Instead of the recipe's own.
        prompt: What ``trait`` asks about a trait, with {question} and {answer}.

    Raises:
        JudgeError: If there is no such file, or it is no recipe; one sentence.
    """
    values = _values(name)
    if name == _TRAIT:
        values["prompts"] = [_trait_prompt(prompt), *values["prompts"][1:]]
    if reading is not None:
        values["reading"] = reading
    try:
        return TypeAdapter(Recipe).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise JudgeError(f"judge {name}: {where + ': ' if where else ''}{message}.") from error
    except re.error as error:
        raise JudgeError(f"judge {name}: its pattern is no regular expression: {error}.") from error


def readable(text: str) -> str:
    """A text as tokenizers and servers take it: halves of surrogate pairs become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _values(name: str) -> dict[str, Any]:
    """The fields of a recipe, those of its base and its blanks filled in."""
    values = _read(name)
    base, blanks = values.pop("base", None), values.pop("fields", {})
    if base is not None:
        if base not in known_recipes():
            raise JudgeError(
                f"judge {name}: base {base!r} is none of {', '.join(known_recipes())}."
            )
        values = {**_values(base), **values}
    if blanks and "prompts" in values:
        values["prompts"] = [_filled(prompt, blanks) for prompt in values["prompts"]]
    return values


def _trait_prompt(prompt: str | None) -> str:
    """An eval prompt of persona vectors, with the fields of our templates."""
    if not prompt:
        raise JudgeError(
            "judge trait has nothing to ask: give a behaviour with an eval_prompt, --judge-prompt, "
            'or a judge file with base = "trait".'
        )
    found = prompt.replace("{question}", "{query}").replace("{answer}", "{completion}")
    if "{completion}" not in found:
        raise JudgeError(
            f"the eval prompt {prompt[:40]!r} lacks the field {{answer}}: put it where the "
            "completion goes."
        )
    return found


def _read(name: str) -> dict[str, Any]:
    own = name.endswith(".toml")
    if not own and name not in known_recipes():
        raise JudgeError(f"judge {name!r} is not known: have one of {', '.join(known_recipes())}.")
    try:
        if own:
            return tomllib.loads(Path(name).expanduser().read_text("utf-8"))
        return tomllib.loads((files("tailcast.judges") / f"recipes/{name}.toml").read_text("utf-8"))
    except FileNotFoundError:
        raise JudgeError(f"judge file {name!r} does not exist: check the path.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise JudgeError(f"judge file {name!r} cannot be read as TOML: {error}.") from error


def _filled(prompt: str, blanks: Mapping[str, str]) -> str:
    for field, text in blanks.items():
        prompt = prompt.replace(f"{{{field}}}", str(text))
    return prompt
