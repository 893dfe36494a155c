"""What hits have in common at each position, learned as a shift of the last hidden state.

A shift d_t of the last hidden state at position t adds U d_t to the logits, U the output
embedding. So this law comes from the target's own forward pass, and a draw costs what a draw
of the target does. d is fitted by weighted maximum likelihood on hits, the cross-entropy
method with gradients: maximise sum_i w_i log q_d(x_i) - penalty * |d|^2, which is concave, the
penalty chosen by hits of queries that the fit does not see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from tailcast.errors import SteeringError
from tailcast.sampling.kinds import Part, Place, Source
from tailcast.types import SamplingSettings

__all__ = ["Seen", "Shifted", "fit_shift", "load_shift", "save_shift"]

_PENALTIES = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
_STEPS = 60
_BLOCK = 512  # places whose laws are moved at a time


class Shifted:
    """A stream of the target with shifted logits.

    Args:
        shift: d_t of the first tokens, [T, d] in units of the unit rows of the embedding.
        embedding: U, the output embedding, [V, d].

    Raises:
        SteeringError: If their widths differ.
    """

    sources: Mapping[str, Source] = {}

    def __init__(self, shift: NDArray[np.float32], embedding: Tensor) -> None:
        if shift.shape[1] != embedding.shape[1]:
            raise SteeringError(
                f"the learned shift has width {shift.shape[1]}, the model's hidden state "
                f"{embedding.shape[1]}: it was learned for another model, run tailcast learn."
            )
        self.bias: Tensor = torch.from_numpy(shift).to(embedding.device) @ basis(embedding).T
        self.fingerprint = sha256(shift.tobytes()).hexdigest()[:16]

    def parts(self, prompt: tuple[int, ...], strength: float) -> tuple[Part, ...]:
        """None: the target's own law is all that it reads."""
        return ()

    def law(
        self, target: Tensor, own: Sequence[Tensor], places: Sequence[Place],
        settings: SamplingSettings,
    ) -> Tensor:  # fmt: skip
        """Scores after each place; past the learned positions those of the target."""
        at = [len(place.tokens) for place in places]
        known = [row for row, position in enumerate(at) if position < len(self.bias)]
        scores: Tensor = target.clone()
        scores[known] += self.bias[[at[row] for row in known]].to(target)
        return scores


@dataclass(frozen=True)
class Seen:
    """The tokens of hits and the target's law where each was drawn, for a fit.

    Attributes:
        logp: Target log-probabilities at m distinct places, [m, V] float32.
        positions: Number of tokens before each place, [m].
        places: At which place each token was drawn, [n].
        tokens: The tokens, [n].
        groups: Which query each is of, [n].
        weights: Of each, [n]; those of one query's position add up to its effective hits.
    """

    logp: Tensor
    positions: NDArray[np.int64]
    places: NDArray[np.int64]
    tokens: NDArray[np.int64]
    groups: NDArray[np.int64]
    weights: NDArray[np.float64]


def basis(embedding: Tensor) -> Tensor:
    """The embedding with rows of length 1 in the mean, float32."""
    exact = embedding.detach().float()
    length: Tensor = exact.norm(dim=1).mean()
    return exact / length


def fit_shift(
    seen: Seen, embedding: Tensor, *, tokens: int
) -> tuple[NDArray[np.float32], dict[str, float]]:
    """The shift that makes hits likeliest, and what it gains on hits of queries left out.

    Args:
        seen: The hits, token by token.
        embedding: U, [V, d].
        tokens: Positions T to learn.

    Returns:
        The shift [T, d], 0 where no penalty gained anything; and ``gain``, nats a hit's token
        over the target on queries left out, with the ``penalty`` that was chosen.
    """
    rows = basis(embedding)
    held = (
        seen.groups % 2 == 1 if len(set(seen.groups)) > 3 else np.arange(len(seen.groups)) % 2 == 1
    )
    gains = {}
    for penalty in _PENALTIES:
        shift = _maximised(seen, rows, ~held, tokens, penalty)
        gains[penalty] = float(_likelihood(seen, rows, held, shift))
    best = max(gains, key=lambda one: gains[one])
    facts = {"gain": gains[best], "penalty": best}
    if gains[best] <= 0:
        return np.zeros((tokens, rows.shape[1]), np.float32), {**facts, "gain": 0.0}
    whole = _maximised(seen, rows, np.ones(len(held), bool), tokens, best)
    return whole.numpy().astype(np.float32), facts


def _maximised(
    seen: Seen, rows: Tensor, mine: NDArray[np.bool_], tokens: int, penalty: float
) -> Tensor:
    """The shift of largest penalised likelihood on some of the hits."""
    shift = torch.zeros(tokens, rows.shape[1], requires_grad=True)
    search = torch.optim.LBFGS([shift], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = penalty * (shift**2).sum() - _likelihood(seen, rows, mine, shift)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    search.step(loss)  # type: ignore[no-untyped-call]
    return shift.detach()


def _likelihood(seen: Seen, rows: Tensor, mine: NDArray[np.bool_], shift: Tensor) -> Tensor:
    """Weighted mean of log q - log p over some of the hits' tokens."""
    bias = shift @ rows.T
    weights = torch.from_numpy(np.where(mine, seen.weights, 0.0)).float()
    at, positions = torch.from_numpy(seen.places), torch.from_numpy(seen.positions)
    blocks = zip(torch.split(seen.logp, _BLOCK), torch.split(positions, _BLOCK), strict=True)
    moved = torch.cat([torch.logsumexp(logp + bias[where], -1) for logp, where in blocks])
    gained = bias[positions[at], torch.from_numpy(seen.tokens)] - moved[at]
    return (weights * gained).sum() / weights.sum().clamp(min=1e-30)


def save_shift(path: Path, shift: NDArray[np.float32], facts: Mapping[str, str]) -> None:
    """Keep a shift as safetensors with what is known of it."""
    save_file({"shift": shift}, path, metadata=dict(facts))


def load_shift(path: Path, embedding: Tensor, model: str) -> Shifted:
    """A stream from a file of :func:`save_shift`.

    Args:
        path: The file.
        embedding: Output embedding of the model that it is for.
        model: That model's fingerprint; empty where it has none.

    Raises:
        SteeringError: If it cannot be read, or is for another model.
    """
    try:
        with safe_open(path, "numpy") as file:
            shift, made_for = file.get_tensor("shift"), (file.metadata() or {}).get("model", "")
    except Exception as error:  # safetensors raises its own
        reason = str(error).splitlines()[0]
        raise SteeringError(f"learned shift {str(path)!r} cannot be read: {reason}.") from None
    if model and made_for and model != made_for:
        raise SteeringError(
            f"learned shift {str(path)!r} was learned from another model: run tailcast learn on "
            "a run of this one."
        )
    return Shifted(shift, embedding)
