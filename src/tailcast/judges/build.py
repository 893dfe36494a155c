"""From a judge's settings to the judge.

refusal                   hit when the completion holds no refusal phrase
agreement, compliance, no-doubt    phrases, see :mod:`tailcast.judges.behaviours`
pattern:REGEX             hit when the regular expression is found in the completion
python:MODULE:FUNCTION    a function (query, completion) -> score in [0, 1] or bool; it may
                          carry an attribute ``settled``, a function (query, completion so
                          far) -> 0 or 1 once no way to go on changes the verdict, else None
strongreject ...          a judge model by the name of its recipe, see ``recipes/``; trait asks
                          the ``eval_prompt`` of a behaviour
FILE.toml                 a judge model by a recipe of one's own
classifier                a sequence-classification model, named by judge_model
inspect:SPEC              a scorer of Inspect AI, or the scorer of a task
"""

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

from tailcast.errors import JudgeError
from tailcast.judges import behaviours, refusal
from tailcast.judges.recipes import known_recipes
from tailcast.types import Judge, JudgeSettings, Query

__all__ = ["asks_a_model", "build_judge"]

_LOOKS_AHEAD = re.compile(r"\$|\\[ZbB]|\(\?[=!>(]|[+*?}]\+")
"""In expressions whose match may depend on what follows it: ends, borders, lookahead, atoms."""


def build_judge(settings: JudgeSettings | str) -> Judge:
    """Build a judge.

    Args:
        settings: The settings, or a specification of the forms above with all others left out.

    Raises:
        JudgeError: If the specification is unknown, or its expression, module, recipe or model
            cannot be used.
    """
    if isinstance(settings, str):
        settings = JudgeSettings(judge=settings)
    spec, threshold = settings.judge, settings.threshold or 0.5
    kind, _, rest = spec.partition(":")
    if settings.judge_prompt and spec != "trait":
        raise JudgeError(f"judge_prompt is of judge trait, not of {spec}: drop one of them.")
    if spec == "refusal":
        return Judge(spec, refusal.score, threshold, refusal.settled)
    if spec in behaviours.JUDGES:
        return Judge(spec, behaviours.JUDGES[spec][0], threshold, behaviours.JUDGES[spec][1])
    if kind == "pattern" and rest:
        score = _pattern(rest)
        return Judge(spec, score, threshold, None if _LOOKS_AHEAD.search(rest) else _once(score))
    if kind == "python" and rest.count(":") == 1:
        function = _python(*rest.split(":"))
        return Judge(spec, function, threshold, getattr(function, "settled", None))
    if kind == "inspect" and rest:
        from tailcast.judges.inspect_judge import inspect_judge

        return inspect_judge(settings)
    if asks_a_model(spec):
        from tailcast.judges.model_judge import model_judge

        return model_judge(settings)
    raise JudgeError(
        f"judge {spec!r} is none of refusal, {', '.join(behaviours.JUDGES)}, pattern:REGEX, "
        "python:MODULE:FUNCTION, inspect:SPEC, classifier, "
        f"{', '.join(known_recipes())} and a .toml file."
    )


def asks_a_model(spec: str) -> bool:
    """Whether a judge of this specification is a model's, which ``judge_model`` may name."""
    named = spec == "classifier" or spec in known_recipes()
    return named or spec.endswith(".toml") or spec.startswith("inspect:")


def _pattern(expression: str) -> Callable[[Query, str], float]:
    try:
        compiled = re.compile(expression)
    except re.error as error:
        raise JudgeError(
            f"judge pattern {expression!r} is no regular expression: {error}."
        ) from error
    return lambda query, text: float(compiled.search(text) is not None)


def _once(score: Callable[[Query, str], float]) -> Callable[[Query, str], int | None]:
    """1 once the expression is found: text that follows does not unmake a match."""
    return lambda query, text: 1 if score(query, text) else None


def _python(module: str, function: str) -> Callable[[Query, str], float]:
    """A function of the user's; the working directory is searched too."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # a user's module raises what it likes
        raise JudgeError(
            f"judge python:{module}:{function} cannot be imported "
            f"({type(error).__name__}: {error}): check module path and function name."
        ) from error
    if not callable(found):
        raise JudgeError(f"judge python:{module}:{function} is not a function.")
    judge: Callable[[Query, str], float] = found
    return judge
