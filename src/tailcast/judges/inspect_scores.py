"""Which values of an Inspect scorer are hits?

    (none)                C, P, I, N and booleans as "incorrect"; other values must be told
    incorrect             1 - value, where C is 1, P one half, I and N 0, and a number itself
    correct               the value
    >= 0.5, < 3 ...       1 where the number compares so
    anything else         1 where the value is just that: I, N, harmful, 4 ...

``KEY: RULE`` takes that key of a value that is a dictionary, or that scorer where a task has
several; ``SCORER.KEY: RULE`` both.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tailcast.errors import ConfigError, JudgeError

__all__ = ["HitRule", "parse_hit"]

_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_COMPARISON = re.compile(r"(>=|<=|>|<|==)\s*([-+.\deE]+)$")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq,
}  # fmt: skip


@dataclass(frozen=True)
class HitRule:
    """How a scorer's value becomes a score in [0, 1]; 1 is the bad thing that is counted.

    Attributes:
        keys: Which scorer, which key of its value, as far as it was said.
        rule: One of the forms above; empty where nothing was said.
    """

    keys: tuple[str, ...] = ()
    rule: str = ""

    def score(self, value: Any, key: str | None = None) -> float:
        """The score of a value.

        Args:
            value: ``Score.value`` of Inspect.
            key: Of a value that is a dictionary.

        Raises:
            JudgeError: If there is no value.
            ConfigError: If the rule does not say what it means.
        """
        if isinstance(value, Mapping):
            if key not in value:
                known = ", ".join(map(str, value))
                raise ConfigError(
                    f"the scorer gives several values ({known}): say which one, as in "
                    f"--judge-hit '{next(iter(value), 'KEY')}: >= 0.5'."
                )
            value = value[key]
        if value is None or value != value:
            raise JudgeError("the scorer gave no score.")
        return self._of(value)

    def _of(self, value: Any) -> float:
        plain = value in _LETTERS if isinstance(value, str) else isinstance(value, bool)
        if self.rule in ("correct", "incorrect") or (not self.rule and plain):
            grade = _LETTERS[value] if value in ("C", "P", "I", "N") else _number(value)
            if not 0.0 <= grade <= 1.0:
                raise ConfigError(
                    f"the scorer gave {value!r}, which lies outside [0, 1]: say from where on it "
                    "is a hit, as in --judge-hit '>= 3'."
                )
            return grade if self.rule == "correct" else 1.0 - grade
        if not self.rule:
            raise ConfigError(
                f"the scorer gave {value!r}, and nothing says whether that is a hit: give "
                "--judge-hit, a value or a comparison such as '>= 0.5'."
            )
        compared = _COMPARISON.match(self.rule)
        if compared:
            return float(_OPERATORS[compared[1]](_number(value), float(compared[2])))
        if isinstance(value, str) and value in _LETTERS and self.rule not in _LETTERS:
            raise ConfigError(f"the scorer gave {value!r}: --judge-hit {self.rule!r} never comes.")
        return float(str(value) == self.rule or str(value) == f"{self.rule}.0")


def parse_hit(text: str | None) -> HitRule:
    """A rule from its text.

    Raises:
        ConfigError: If a comparison has no number.
    """
    keys, colon, rule = (text or "").rpartition(":")
    rule = rule.strip()
    if colon and (not keys.strip() or not rule):
        raise ConfigError(f"judge_hit {text!r} is neither RULE nor KEY: RULE.")
    if rule[:1] in ("<", ">", "="):
        match = _COMPARISON.match(rule)
        try:
            float(match[2] if match else "")
        except ValueError:
            raise ConfigError(f"judge_hit {text!r} compares with no number.") from None
    return HitRule(tuple(key.strip() for key in keys.split(".")) if colon else (), rule)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"the scorer gave {value!r}, which is no number: give --judge-hit as a value."
        ) from None
