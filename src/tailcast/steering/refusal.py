"""Which single direction mediates refusal?

The procedure of Arditi et al. 2024 (arXiv 2406.11717).

Candidates are the mean differences of harmful and harmless prompts at every position of
the template after the instruction and every layer; each is scored on held-out prompts:

- bypass: mean refusal score of harmful prompts with the direction ablated everywhere
  (the smaller, the better);
- induce: mean refusal score of harmless prompts with the direction added at its layer;
- kl: mean KL divergence of the next-token law on harmless prompts, plain to ablated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tailcast.errors import SteeringError
from tailcast.models import HuggingFaceTarget
from tailcast.types import Operator, Positions, Query, SteeringVector

__all__ = ["RefusalScores", "fit_refusal_direction", "refusal_score"]

_MAX_KL = 0.1
_DEEPEST = 0.8


@dataclass(frozen=True)
class RefusalScores:
    """Selection scores of one candidate direction."""

    position: int
    layer: int
    bypass: float
    induce: float
    kl: float

    @property
    def admissible(self) -> bool:
        """Whether it induces refusal and leaves harmless prompts alone."""
        return bool(np.isfinite(self.bypass) and self.kl <= _MAX_KL and self.induce >= 0)


def fit_refusal_direction(
    target: HuggingFaceTarget,
    harmful: Sequence[str],
    harmless: Sequence[str],
    *,
    operator: Operator = "ablate",
    positions: Positions = "all",
    refusal_words: Sequence[str] = ("I", "Sorry", "As"),
    held_out: int = 32,
    layer: int | None = None,
) -> SteeringVector:
    """Fit and select the refusal direction.

    Args:
        target: The model.
        harmful: Prompts that it refuses.
        harmless: Prompts that it answers.
        operator: "ablate" removes the direction; "add" adds its reverse, so that strength 1
            of either leads away from refusal.
        positions: Where it will steer.
        refusal_words: The first tokens of these words open a refusal.
        held_out: Prompts of each kind kept for the scores.
        layer: Take this layer and skip the layer's selection.

    Returns:
        The direction, not normalised, with the scores of the selected one and the number
        of candidates in its provenance.

    Raises:
        SteeringError: If too few prompts are refused or answered, or no candidate is
            admissible (KL at most 0.1, induce at least 0, in the first 80% of the layers).
    """
    tokens = [target.encode_response(word)[0] for word in refusal_words]
    bad = _kept(target, harmful, tokens, refused=True)
    good = _kept(target, harmless, tokens, refused=False)
    size = min(held_out, len(bad) // 3, len(good) // 3)
    ends = min(_common_suffix(bad[0], bad[1]), 8)
    differences = _means(target, bad[size:], ends) - _means(target, good[size:], ends)
    deepest = max(1, int(_DEEPEST * target.depth) - 1)
    layers = range(deepest) if layer is None else [layer]
    scored = [
        _scores(
            target, differences[at, place], (place - ends, at), (bad[:size], good[:size]), tokens
        )
        for at in layers
        for place in range(ends)
    ]
    admissible = [one for one in scored if one.admissible]
    if not admissible:
        raise SteeringError(
            f"none of {len(scored)} candidate directions mediates refusal (KL <= {_MAX_KL}, "
            "induce >= 0): give more prompts, or name a layer with --layer."
        )
    best = min(admissible, key=lambda one: one.bypass)
    direction = differences[best.layer, best.position].astype(np.float32)
    provenance = {
        "method": "refusal direction",
        "position": best.position,
        "bypass": best.bypass,
        "induce": best.induce,
        "kl": best.kl,
        "candidates": len(scored),
        "prompts": [len(bad), len(good)],
    }
    sign = np.float32(1 if operator == "ablate" else -1)
    return SteeringVector(
        operator, best.layer, sign * direction, positions, target.weights_fingerprint, provenance
    )


def refusal_score(logits: torch.Tensor, tokens: Sequence[int]) -> NDArray[np.float64]:
    """The log odds that the next token opens a refusal, [n], from logits [n, V]."""
    law = logits.double().softmax(-1)
    refused = law[:, list(set(tokens))].sum(-1)
    odds: NDArray[np.float64] = (torch.log(refused + 1e-8) - torch.log(1 - refused + 1e-8)).numpy()
    return odds


def _kept(
    target: HuggingFaceTarget, prompts: Sequence[str], tokens: Sequence[int], *, refused: bool
) -> list[tuple[int, ...]]:
    """Encoded prompts that the model refuses, or answers."""
    encoded = [target.encode(Query.user(f"prompt {n}", text)) for n, text in enumerate(prompts, 1)]
    scores = refusal_score(_logits(target, encoded, None), tokens)
    kept = [prompt for prompt, score in zip(encoded, scores) if (score > 0) == refused]
    if len(kept) < 6:
        done, kind = ("refuses", "harmful") if refused else ("answers", "harmless")
        raise SteeringError(
            f"the model {done} only {len(kept)} of {len(prompts)} {kind} prompts, 6 are needed: "
            "give other prompts or other refusal words."
        )
    return kept


def _logits(
    target: HuggingFaceTarget, prompts: Sequence[tuple[int, ...]], vector: SteeringVector | None
) -> torch.Tensor:
    """Next-token logits of prompts, steered at strength 1 everywhere if a vector is given."""
    rows = []
    for prompt in prompts:
        stream = target.stream(vector, slots=1, max_new_tokens=1)
        stream.open(prompt, 1.0 if vector else 0.0)
        rows.append(stream.push(torch.tensor(prompt[-1:]))[0].cpu())
    return torch.stack(rows)


def _means(
    target: HuggingFaceTarget, prompts: Sequence[tuple[int, ...]], ends: int
) -> NDArray[np.float64]:
    """Mean activations at the last positions of prompts, [L, ends, d]."""
    total = np.zeros((target.depth, ends, target.width))
    for prompt in prompts:
        total += target.activations(prompt, ())[:, -ends:]
    return total / len(prompts)


def _scores(
    target: HuggingFaceTarget,
    direction: NDArray[np.float64],
    place: tuple[int, int],
    prompts: tuple[Sequence[tuple[int, ...]], Sequence[tuple[int, ...]]],
    tokens: Sequence[int],
) -> RefusalScores:
    """Selection scores of one candidate on held-out (harmful, harmless) prompts."""
    harmful, harmless = prompts
    position, layer = place
    ablate = SteeringVector("ablate", layer, direction.astype(np.float32), "all")
    add = SteeringVector("add", layer, direction.astype(np.float32), "all")
    plain = _logits(target, harmless, None).double().softmax(-1) + 1e-6
    ablated = _logits(target, harmless, ablate).double().softmax(-1) + 1e-6
    divergence = (plain * (plain.log() - ablated.log())).sum(-1).mean()
    return RefusalScores(
        position=position,
        layer=layer,
        bypass=float(refusal_score(_logits(target, harmful, ablate), tokens).mean()),
        induce=float(refusal_score(_logits(target, harmless, add), tokens).mean()),
        kl=float(divergence),
    )


def _common_suffix(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of equal tokens at the end of two prompts: the template after the instruction."""
    count = 0
    for one, other in zip(reversed(first), reversed(second)):
        if one != other:
            break
        count += 1
    return max(count, 1)
