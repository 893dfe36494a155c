"""Judging many completions: each distinct text once, and no failure stops the run."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tailcast.errors import TailcastError
from tailcast.types import Judge, Query, Verdicts

__all__ = ["judge_texts", "one_by_one", "shortened"]

_HEAD, _TAIL = 120, 240  # characters of a long message: some hold a whole request, then the cause

Many = Callable[[Query, Sequence[str]], Sequence[float | Exception]]

_log = logging.getLogger(__name__)


def judge_texts(
    judge: Judge, query: Query, texts: Sequence[str], *, ended: Sequence[bool] | None = None,
    shares: NDArray[np.float64] | None = None, draws: str = "",
) -> Verdicts:  # fmt: skip
    """Verdicts of one query's completions, in order; equal texts are judged once.

    A judge that fails on a completion, or returns no number in [0, 1], leaves NaN and the
    error's text there; estimates count it on both sides of their interval. A judge is not
    asked about a text that is settled: a completion that was ended there counts the same.

    Args:
        judge: The judge.
        query: The query that they answer.
        texts: The completions, [n].
        ended: Completions that count as no hit without being asked about, [n].
        shares: What a screen says of each, [n]: 0 is not asked about, see :class:`Verdicts`.
        draws: Which draws they are, for a warning's sentence.

    Raises:
        TailcastError: Whatever the judge raises of it about a whole batch: no judge is left.
    """
    shares = np.ones(len(texts)) if shares is None else shares
    over = np.array(ended or [False] * len(texts), dtype=bool) | (shares == 0)
    asked = dict.fromkeys(text for text, past in zip(texts, over, strict=True) if not past)
    known = {text: _settled(judge, query, text) for text in asked}
    rest = [text for text, answer in known.items() if answer is None]
    answers = {text: answer for text, answer in known.items() if answer is not None}
    answers.update(zip(rest, _asked(judge, query, rest), strict=True))
    checked = {text: _checked(answer) for text, answer in answers.items()}
    _warn(judge, f"query {query.id}{draws and ', '}{draws}", checked)
    found = [(0.0, "") if past else checked[text] for text, past in zip(texts, over, strict=True)]
    scores = np.array([score for score, _ in found], dtype=float)
    with np.errstate(invalid="ignore"):
        hits = scores >= judge.threshold
    return Verdicts(scores, hits, tuple(error for _, error in found), shares)


def one_by_one(many: Many) -> Callable[[Query, str], float]:
    """The ``score`` of a judge, from its ``many``; raises what that returns."""

    def score(query: Query, text: str) -> float:
        (found,) = many(query, [text])
        if isinstance(found, Exception):
            raise found
        return found

    return score


def shortened(text: str) -> str:
    """A message that fits a sentence: its beginning and its end."""
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} ... {text[-_TAIL:]}"


def _settled(judge: Judge, query: Query, text: str) -> float | Exception | None:
    """The verdict of a settled text; None where the judge must be asked."""
    try:
        known = judge.settled(query, text) if judge.settled else None
    except Exception as error:  # a judge raises what it likes; the run goes on
        return error
    return None if known is None else float(known)


def _asked(judge: Judge, query: Query, texts: Sequence[str]) -> Iterable[float | Exception]:
    """What the judge says of each text, all at once where it can."""
    if judge.many is not None:
        return judge.many(query, texts) if texts else ()
    return [_ask(judge, query, text) for text in texts]


def _ask(judge: Judge, query: Query, text: str) -> float | Exception:
    try:
        return float(judge.score(query, text))
    except Exception as error:  # as above
        return error


def _checked(answer: float | Exception) -> tuple[float, str]:
    """A score with no message, or NaN with the failure's."""
    if not isinstance(answer, Exception) and not 0.0 <= answer <= 1.0:
        answer = ValueError(f"score {answer} lies outside [0, 1]")
    if not isinstance(answer, Exception):
        return answer, ""
    plain = isinstance(answer, TailcastError)
    return float("nan"), str(answer) if plain else shortened(f"{type(answer).__name__}: {answer}")


def _warn(judge: Judge, place: str, checked: Mapping[str, tuple[float, str]]) -> None:
    """One line for all completions of a call that the judge failed on."""
    errors = [message for _, message in checked.values() if message]
    if errors:
        _log.warning(
            "judge %s failed on %d of %d completions of %s: %s",
            judge.spec, len(errors), len(checked), place, errors[0],
        )  # fmt: skip
