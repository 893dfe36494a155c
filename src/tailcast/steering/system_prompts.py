"""What separates the answers that two opposite system prompts bring about?

The extraction of persona vectors (Chen et al. 2025, arXiv 2507.21509, section 2.2): the model
answers each question under a system prompt that asks for the behaviour and under one that asks
for its opposite; a judge keeps the rows where the first answer is a hit and the second is not;
the vector is the mean over them of the difference in mean activation over the answer's tokens.
"""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailcast.errors import SteeringError
from tailcast.judges import judge_texts
from tailcast.models import HuggingFaceTarget
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, draw
from tailcast.steering.mean_difference import read_response
from tailcast.types import ContrastPair, Judge, Query, SamplingSettings

__all__ = ["Contrast", "read_contrast"]

Case = tuple[tuple[str, str], str]
"""A positive and a negative system prompt, and a question."""

Answers = MutableMapping[str, tuple[str, ...]]
"""Answers of a case under one side's system prompt, by a name of both."""

_SLOTS = 64
_BLOCK = 16


@dataclass(frozen=True)
class Contrast:
    """Answers under opposite system prompts that the judge kept.

    Attributes:
        pairs: Question, answer of the positive side, answer of the negative side.
        differences: Mean activation of the first minus that of the second, each read after
            the system prompt that brought it about, [rows, L, d].
        asked: Rows before the filter.
        positive_rate: Share of hits under the positive system prompts.
        negative_rate: The same under the negative ones.
    """

    pairs: tuple[ContrastPair, ...]
    differences: NDArray[np.float64]
    asked: int
    positive_rate: float
    negative_rate: float


def read_contrast(
    target: HuggingFaceTarget,
    cases: Sequence[Case],
    judges: tuple[Judge, Judge | None],
    *,
    settings: SamplingSettings,
    rollouts: int,
    seed: int = 0,
    needed: int = 2,
    kept: Answers | None = None,
) -> Contrast:
    """Answer, filter, and read the activations of what is kept.

    Args:
        target: The model.
        cases: (positive, negative) system prompts, and what is asked under them.
        judges: Of the behaviour, and of coherence if both answers must pass that too.
        settings: How the answers are sampled.
        rollouts: Answers to each question under each system prompt.
        seed: Names the random numbers.
        needed: Rows that must survive.
        kept: Answers that are there already; those that are drawn are put into it, before any is
            judged.

    Raises:
        JudgeAway: If a judge answers no request any more.
        SteeringError: If fewer rows survive; says how many, and the hit rates of both sides.
    """
    store = {} if kept is None else kept
    sides = [
        _answers(target, cases, side, store, settings=settings, rollouts=rollouts, seed=seed)
        for side in (0, 1)
    ]
    hits = [_judged(judges[0], cases, answers) for answers in sides]
    good = hits[0] & ~hits[1]
    for answers in sides:
        good &= np.array([[bool(text.strip()) for text in row] for row in answers])
    if (coherence := judges[1]) is not None:
        for answers in sides:
            good = _judged(coherence, cases, answers, good)
    rates = [float(one.mean()) for one in hits]
    if good.sum() < needed:
        raise SteeringError(
            f"only {good.sum()} of {good.size} pairs of answers survive the judge (hits under the "
            f"positive system prompts: {rates[0]:.0%}, negative: {rates[1]:.0%}), {needed} are "
            "needed: raise --rollouts, or give other system prompts or another judge."
        )
    pairs, differences = [], []
    for case, rollout in np.argwhere(good):
        system, question = cases[case]
        texts = [sides[side][case][rollout] for side in (0, 1)]
        read = [
            read_response(
                target, _prompt(target, system[side], question), texts[side], "response",
                name=f"answer {rollout} to {question!r}",
            )
            for side in (0, 1)
        ]  # fmt: skip
        pairs.append(ContrastPair(question, *texts))
        differences.append(read[0] - read[1])
    return Contrast(tuple(pairs), np.stack(differences), int(good.size), *rates)


def _prompt(target: HuggingFaceTarget, system: str, question: str) -> tuple[int, ...]:
    """Prompt tokens of a question under a system prompt."""
    messages = ({"role": "system", "content": system}, {"role": "user", "content": question})
    return target.encode(Query("question", messages))


def _answers(
    target: HuggingFaceTarget, cases: Sequence[Case], side: int,
    kept: Answers, *, settings: SamplingSettings, rollouts: int, seed: int,
) -> list[tuple[str, ...]]:  # fmt: skip
    """Answers of each case under one side's system prompt, cases of rollouts."""
    for first in range(0, len(cases), _BLOCK):  # a stream keeps every prompt that it has opened
        block = range(first, min(first + _BLOCK, len(cases)))
        if all(f"{side}/{number}" in kept for number in block):
            continue
        requests = [
            DrawRequest(
                f"case {number}", _prompt(target, cases[number][0][side], cases[number][1]),
                Proposal.target(), rollout,
                f"{seed}/system prompts/{side}/{number}/{rollout}",
            )
            for number in block
            for rollout in range(rollouts)
        ]  # fmt: skip
        batches = draw(target, requests, settings, slots=_SLOTS)
        for number, batch in zip(block, batches, strict=True):
            kept[f"{side}/{number}"] = tuple(batch.texts)
    return [kept[f"{side}/{number}"] for number in range(len(cases))]


def _judged(
    judge: Judge, cases: Sequence[Case], answers: Sequence[Sequence[str]],
    asked: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:  # fmt: skip
    """Hits, [cases, rollouts]; no hit where the judge failed, or was not to be asked."""
    rows = np.zeros((len(cases), len(answers[0])), dtype=bool)
    for number, ((_, question), texts) in enumerate(zip(cases, answers, strict=True)):
        ended = [False] * len(texts) if asked is None else (~asked[number]).tolist()
        query = Query.user(f"case {number}", question)
        rows[number] = judge_texts(judge, query, texts, ended=ended).hits
    return rows
