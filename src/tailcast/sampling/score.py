"""What log-probabilities would other strengths have given to completions already drawn?

Teacher forcing by stepping: the given tokens are pushed through the same stream that
draws, one slot for the target and one for each strength. In bf16 a one-pass scoring
differs from stepping by 0.04 a token (method.md section 9), so every number that enters
one weight comes from one call of :func:`score`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tailcast.sampling.draw import checked
from tailcast.sampling.laws import steered_law, target_law
from tailcast.types import SamplingSettings, SteeringVector, Target

__all__ = ["score"]


def score(
    target: Target,
    prompt: tuple[int, ...],
    completions: Sequence[Sequence[int]],
    strengths: Sequence[float],
    settings: SamplingSettings,
    *,
    steering: SteeringVector | None,
    tokens: int,
    slots: int = 128,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per-token log-probabilities of completions of one prompt at several strengths.

    Args:
        target: The model p.
        prompt: Prompt tokens.
        completions: Response tokens, end token included, n of them.
        strengths: Steering strengths to score at.
        settings: Temperature and truncation of the target.
        steering: The steering operator; may be None when there are no strengths.
        tokens: Only the first this many tokens are scored: the largest switch.
        slots: Rows of the batch.

    Returns:
        ``token_logp`` [n, tokens] and ``token_logs`` [n, strengths, tokens]; 0 past the
        end of a completion. -inf marks tokens that the target's truncation forbids.
    """
    width = len(strengths) + 1
    table = np.zeros((len(completions), width, tokens))
    group = max(1, slots // width)
    for start in range(0, len(completions), group):
        part = [list(completion)[:tokens] for completion in completions[start : start + group]]
        stream = target.stream(steering, slots=len(part) * width, max_new_tokens=max(tokens, 1))
        with torch.no_grad():
            for _ in part:
                for strength in (0.0, *strengths):
                    stream.open(prompt, strength)
            alive = [(place, row) for row in range(len(part)) for place in range(width)]
            for step in range(tokens):
                over = [slot for slot, (_, row) in enumerate(alive) if len(part[row]) <= step]
                alive = [alive[slot] for slot in stream.close(over)]
                if not alive:
                    break
                logits = checked(stream.logits(), ("scored completions" for _ in alive))
                given = torch.tensor([part[row][step] for _, row in alive], dtype=torch.int64)
                plain = {row: slot for slot, (place, row) in enumerate(alive) if place == 0}
                law = target_law(logits[[plain[row] for _, row in alive]], settings)
                steered = steered_law(logits, settings, law)
                values = steered.gather(-1, given.to(law.device)[:, None]).squeeze(-1).tolist()
                for (place, row), value in zip(alive, values, strict=True):
                    table[start + row, place, step] = value
                if step + 1 < tokens:
                    stream.push(given)
    return table[:, 0], table[:, 1:]
