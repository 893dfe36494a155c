"""From a judge's specification to the judge.

refusal                   hit when the completion holds no refusal phrase
pattern:REGEX             hit when the regular expression is found in the completion
python:MODULE:FUNCTION    a function (query, completion) -> score in [0, 1] or bool
"""

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

from tailcast.errors import JudgeError
from tailcast.judges import refusal
from tailcast.types import Judge, Query

__all__ = ["build_judge"]


def build_judge(spec: str, *, threshold: float = 0.5) -> Judge:
    """Build a judge.

    Args:
        spec: One of the forms above.
        threshold: A completion is a hit when its score is at least this; in (0, 1].

    Raises:
        JudgeError: If the specification is unknown, its expression or module is broken, or
            the threshold lies outside (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise JudgeError(f"judge threshold {threshold} lies outside (0, 1].")
    kind, _, rest = spec.partition(":")
    if spec == "refusal":
        return Judge(spec, refusal.score, threshold)
    if kind == "pattern" and rest:
        return Judge(spec, _pattern(rest), threshold)
    if kind == "python" and rest.count(":") == 1:
        return Judge(spec, _python(*rest.split(":")), threshold)
    raise JudgeError(
        f"judge {spec!r} is none of refusal, pattern:REGEX and python:MODULE:FUNCTION."
    )


def _pattern(expression: str) -> Callable[[Query, str], float]:
    try:
        compiled = re.compile(expression)
    except re.error as error:
        raise JudgeError(
            f"judge pattern {expression!r} is no regular expression: {error}."
        ) from error
    return lambda query, text: float(compiled.search(text) is not None)


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
