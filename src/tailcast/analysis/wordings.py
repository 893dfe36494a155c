"""Which rewordings of a request are new, and are they still about the same thing?

Similarity is the cosine of letter trigrams within words, function words apart: 1 for the same
words in any order, 0 for none in common. It needs no model. It tells another topic, an answer or
a refusal from a rewording; a lost "not" it does not see, which is why every rewording is shown
with its changes, to be read.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

__all__ = ["THRESHOLD", "Wording", "changes", "plain_words", "sift", "similarity"]

THRESHOLD = 0.5
"""Least similarity: 99% of our own 300 paraphrases reach it, none of other base queries' does."""

_LONGER = 3  # times as many words as the request, and 10 more: an answer, not a rewording
_FUNCTION_WORDS = """
a an the of to in on at for from by with and or is are be it its that this these those i me my we
us our you your he she they them his her how what which who whoever can could would should do does
did will so as if please tell give write make some need want like help get there here when where
why then than into out up about
"""


@dataclass(frozen=True)
class Wording:
    """A rewording of a request, kept or dropped.

    Attributes:
        text: What it says.
        similarity: To the request, in [0, 1].
        dropped: Why it is dropped; empty if it is kept.
    """

    text: str
    similarity: float
    dropped: str = ""


def plain_words(text: str) -> tuple[str, ...]:
    """The words of a text without case and punctuation; equal for duplicates."""
    return tuple(re.findall(r"\w+", text.casefold().replace("'", "").replace("’", "")))


def similarity(one: str, other: str) -> float:
    """Cosine of the letter trigrams of two texts, in [0, 1]."""
    first, second = _trigrams(one), _trigrams(other)
    product = sum(count * second[gram] for gram, count in first.items())
    squares = [sum(count**2 for count in each.values()) for each in (first, second)]
    return product / (squares[0] * squares[1]) ** 0.5 if all(squares) else 0.0


def sift(
    request: str, candidates: Iterable[str], *, threshold: float, known: Sequence[str] = ()
) -> list[Wording]:
    """Each candidate, and why it is dropped if it is.

    Args:
        request: What is to be reworded.
        candidates: Rewordings, in order.
        threshold: Least similarity.
        known: Rewordings that are there already.
    """
    seen = {plain_words(one): one for one in (*known, request)}
    most = _LONGER * len(plain_words(request)) + 10
    found = []
    for text in candidates:
        words, close = plain_words(text), similarity(request, text)
        why = ""
        if not words:
            why = "empty"
        elif words in seen:
            why = "the request itself" if seen[words] == request else f"same as: {seen[words]}"
        elif len(words) > most:
            why = f"{len(words)} words, an answer rather than a rewording"
        elif close < threshold:
            why = f"similarity {close:.2f} is below {threshold:g}"
        seen.setdefault(words, text)
        found.append(Wording(text, close, why))
    return found


def changes(request: str, text: str) -> str:
    """The text with what it changes: [-taken out-] and {+put in+}, word by word."""
    old, new = request.split(), text.split()
    parts = []
    for kind, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(" ".join(new[k:m]))
            continue
        if i < j:
            parts.append(f"[-{' '.join(old[i:j])}-]")
        if k < m:
            parts.append(f"{{+{' '.join(new[k:m])}+}}")
    return " ".join(parts)


def _trigrams(text: str) -> Counter[str]:
    function_words = frozenset(_FUNCTION_WORDS.split())
    words = plain_words(text)
    kept = [word for word in words if word not in function_words]
    padded = [f" {word} " for word in kept or words]
    return Counter(word[at : at + 3] for word in padded for at in range(len(word) - 2))
