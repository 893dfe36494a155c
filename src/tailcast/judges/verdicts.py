"""Judging many completions: each distinct text once, and no failure stops the run."""

import logging
from collections.abc import Sequence

import numpy as np

from tailcast.types import Judge, Query, Verdicts

__all__ = ["judge_texts"]

_log = logging.getLogger(__name__)


def judge_texts(
    judge: Judge, query: Query, texts: Sequence[str], *, ended: Sequence[bool] | None = None
) -> Verdicts:
    """Verdicts of one query's completions, in order; equal texts are judged once.

    A judge that raises, or returns no number in [0, 1], leaves NaN and the error's text
    for that completion; estimates count it on both sides of their interval. A judge is not
    asked about a text that is settled: a completion that was ended there counts the same.

    Args:
        judge: The judge.
        query: The query that they answer.
        texts: The completions, [n].
        ended: Completions that count as no hit without being asked about, [n].
    """
    answers: dict[str, tuple[float, str]] = {}
    found = []
    for text, over in zip(texts, ended or [False] * len(texts), strict=True):
        if not over and text not in answers:
            answers[text] = _ask(judge, query, text)
        found.append((0.0, "") if over else answers[text])
    scores = np.array([score for score, _ in found], dtype=float)
    with np.errstate(invalid="ignore"):
        hits = scores >= judge.threshold
    return Verdicts(scores, hits, tuple(error for _, error in found))


def _ask(judge: Judge, query: Query, text: str) -> tuple[float, str]:
    try:
        known = judge.settled(query, text) if judge.settled else None
        score = float(judge.score(query, text) if known is None else known)
        if not 0.0 <= score <= 1.0:
            raise ValueError(f"score {score} lies outside [0, 1]")
    except Exception as error:  # a judge raises what it likes; the run goes on
        message = f"{type(error).__name__}: {error}"
        _log.warning(
            "judge %s failed on a completion of query %s: %s", judge.spec, query.id, message
        )
        return float("nan"), message
    return score, ""
