"""How does a layer weigh keys against queries, and the tokens of one row against each other?"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Geometry", "causal", "products", "veil_of"]

_BLOCK = 1024
"""Tokens of a prompt that attend at once: the square of a long one would fill the memory."""


@dataclass(frozen=True)
class Geometry:
    """What a layer says of its attention besides queries, keys and values."""

    scaling: float
    window: int | None
    softcap: float | None

    def scores(self, product: Tensor, veil: Tensor | None) -> Tensor:
        """Scaled, capped and masked scores, [..., keys], float32 or better.

        Args:
            product: Of queries and keys, [..., keys].
            veil: What is added to the scores, from :func:`veil_of`, of a shape that fits.
        """
        start = product.new_zeros(1, dtype=torch.float32) if veil is None else veil
        if not self.softcap:
            return torch.add(start, product, alpha=self.scaling)  # in float32, in one pass
        return start + self.softcap * torch.tanh(product.float() * (self.scaling / self.softcap))


def products(query: Tensor, keys: Tensor) -> Tensor:
    """Of every query [batch, queries, width] and key [batch, keys, width]."""
    if query.shape[1] < keys.shape[1] and keys.dtype == torch.float32:
        # such a product runs faster with the longer side first
        return torch.bmm(keys, query.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(query, keys.transpose(1, 2))


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
        product = products(query[:, start:end], keys[:, :end])
        weights = how.scores(product, veil).softmax(-1)
        parts.append(torch.bmm(weights.to(values.dtype), values[:, :end]))
    return torch.cat(parts, 1)


def veil_of(hidden: Tensor) -> Tensor:
    """What hides keys when added to scores: finite, so that a row may see nothing at all."""
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, -1e30)
