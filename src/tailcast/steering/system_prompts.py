"""What separates the answers that two opposite system prompts bring about?

The extraction of persona vectors (Chen et al. 2025, arXiv 2507.21509, section 2.2): the model
answers each question under a system prompt that asks for the behaviour and under one that asks
for its opposite; a judge keeps the rows where the first answer is a hit and the second is not;
the vector is the mean over them of the difference in mean activation over the answer's tokens.
"""

from collections.abc import Sequence
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
    prompts: Sequence[tuple[str, str]],
    questions: Sequence[str],
    judges: tuple[Judge, Judge | None],
    *,
    settings: SamplingSettings,
    rollouts: int,
    seed: int = 0,
    needed: int = 2,
) -> Contrast:
    """Answer, filter, and read the activations of what is kept.

    Args:
        target: The model.
        prompts: (positive, negative) system prompts.
        questions: What is asked under each of them.
        judges: Of the behaviour, and of coherence if both answers must pass that too.
        settings: How the answers are sampled.
        rollouts: Answers to each question under each system prompt.
        seed: Names the random numbers.
        needed: Rows that must survive.

    Raises:
        SteeringError: If fewer rows survive; says how many, and the hit rates of both sides.
    """
    cases = [(pair, question) for pair in prompts for question in questions]
    sides = [
        _answers(target, cases, side, settings=settings, rollouts=rollouts, seed=seed)
        for side in (0, 1)
    ]
    hits = [_judged(judges[0], cases, answers) for answers in sides]
    kept = hits[0] & ~hits[1]
    for answers in sides:
        kept &= np.array([[bool(text.strip()) for text in row] for row in answers])
        if judges[1] is not None:
            kept &= _judged(judges[1], cases, answers)
    rates = [float(one.mean()) for one in hits]
    if kept.sum() < needed:
        raise SteeringError(
            f"only {kept.sum()} of {kept.size} pairs of answers survive the judge (hits under the "
            f"positive system prompts: {rates[0]:.0%}, negative: {rates[1]:.0%}), {needed} are "
            "needed: raise --rollouts, or give other system prompts or another judge."
        )
    pairs, differences = [], []
    for case, rollout in np.argwhere(kept):
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
    return Contrast(tuple(pairs), np.stack(differences), int(kept.size), *rates)


def _prompt(target: HuggingFaceTarget, system: str, question: str) -> tuple[int, ...]:
    """Prompt tokens of a question under a system prompt."""
    messages = ({"role": "system", "content": system}, {"role": "user", "content": question})
    return target.encode(Query("question", messages))


def _answers(
    target: HuggingFaceTarget, cases: Sequence[tuple[tuple[str, str], str]], side: int,
    *, settings: SamplingSettings, rollouts: int, seed: int,
) -> list[tuple[str, ...]]:  # fmt: skip
    """Answers of each case under one side's system prompt, cases of rollouts."""
    requests = [
        DrawRequest(
            f"case {number}", _prompt(target, system[side], question), Proposal.target(), rollout,
            f"{seed}/system prompts/{side}/{number}/{rollout}",
        )
        for number, (system, question) in enumerate(cases)
        for rollout in range(rollouts)
    ]  # fmt: skip
    block = _BLOCK * rollouts  # a stream keeps every prompt that it has opened
    return [
        batch.texts
        for first in range(0, len(requests), block)
        for batch in draw(target, requests[first : first + block], settings, slots=_SLOTS)
    ]


def _judged(
    judge: Judge, cases: Sequence[tuple[tuple[str, str], str]], answers: Sequence[Sequence[str]]
) -> NDArray[np.bool_]:
    """Hits, [cases, rollouts]; no hit where the judge failed."""
    rows = []
    for number, ((_, question), texts) in enumerate(zip(cases, answers, strict=True)):
        rows.append(judge_texts(judge, Query.user(f"case {number}", question), texts).hits)
    return np.stack(rows)
