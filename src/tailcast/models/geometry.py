"""How does a layer weigh keys against queries, and the tokens of one row against each other?"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Geometry", "causal", "veil_of"]

_BLOCK = 1024
"""Tokens of a prompt that attend at once: the square of a long one would fill the memory."""


@dataclass(frozen=True)
class Geometry:
    """What a layer says of its attention besides queries, keys and values."""

    scaling: float
    window: int | None
    softcap: float | None

    def scores(self, query: Tensor, keys: Tensor, veil: Tensor | None) -> Tensor:
        """Scaled, capped and masked scores, [batch, queries, keys], as exact as their product.

        They are in float32, or in bfloat16 where scaling rounds nothing: half the memory to read.

        Args:
            query: [batch, queries, width].
            keys: [batch, keys, width].
            veil: What is added to the scores, from :func:`veil_of`; [batch, 1 or queries, keys].
        """
        if query.shape[1] < keys.shape[1] and keys.dtype == torch.float32:
            # such a product runs faster with the longer side first
            scores = torch.bmm(keys, query.transpose(1, 2)).transpose(1, 2)
        else:
            scores = torch.bmm(query, keys.transpose(1, 2))
        power_of_two = math.frexp(self.scaling)[0] == 0.5
        if scores.dtype != torch.bfloat16 or not power_of_two or self.softcap:
            scores = scores.float()
        scores = scores.mul_(self.scaling)
        if self.softcap:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        return scores if veil is None else scores.add_(veil)


def causal(query: Tensor, keys: Tensor, values: Tensor, how: Geometry) -> Tensor:
    """Attention of one row's tokens to themselves and what comes before them.

    Args:
        query: [heads, tokens, width].
        keys: The same of the keys.
        values: The same of the values.
        how: The layer's attention.
    """
    parts = []
    for start in range(0, query.shape[1], _BLOCK):
        end = min(start + _BLOCK, query.shape[1])
        places = torch.arange(end, device=query.device)
        distance = places[start:, None] - places
        hidden = distance < 0
        if how.window:
            hidden |= distance >= how.window
        veil = veil_of(hidden[None])
        weights = how.scores(query[:, start:end], keys[:, :end], veil).softmax(-1)
        parts.append(torch.bmm(weights.to(values.dtype), values[:, :end]))
    return torch.cat(parts, 1)


def veil_of(hidden: Tensor) -> Tensor:
    """What hides keys when added to scores: finite, so that a row may see nothing at all."""
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, -1e30)
