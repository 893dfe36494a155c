"""Judging many completions: each distinct text once, and no failure stops the run."""

import logging
from collections.abc import Sequence

import numpy as np

from tailcast.types import Judge, Query, Verdicts

__all__ = ["judge_texts"]

_log = logging.getLogger(__name__)


def judge_texts(judge: Judge, query: Query, texts: Sequence[str]) -> Verdicts:
    """Verdicts of one query's completions, in order; equal texts are judged once.

    A judge that raises, or returns no number in [0, 1], leaves NaN and the error's text
    for that completion; estimates count it on both sides of their interval.
    """
    answers: dict[str, tuple[float, str]] = {}
    for text in texts:
        if text not in answers:
            answers[text] = _ask(judge, query, text)
    scores = np.array([answers[text][0] for text in texts], dtype=float)
    with np.errstate(invalid="ignore"):
        hits = scores >= judge.threshold
    return Verdicts(scores, hits, tuple(answers[text][1] for text in texts))


def _ask(judge: Judge, query: Query, text: str) -> tuple[float, str]:
    try:
        score = float(judge.score(query, text))
        if not 0.0 <= score <= 1.0:
            raise ValueError(f"score {score} lies outside [0, 1]")
    except Exception as error:  # a judge raises what it likes; the run goes on
        message = f"{type(error).__name__}: {error}"
        _log.warning(
            "judge %s failed on a completion of query %s: %s", judge.spec, query.id, message
        )
        return float("nan"), message
    return score, ""
