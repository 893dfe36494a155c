"""Attention over a shared prompt and each slot's own tail, for any transformers model.

Transformers lets a model's attention be replaced by name. Ours is called ``tailcast``: a
forward pass made inside :func:`attending` hands the keys and values of its new tokens to
a pass object, which stores them and attends over all that the row has seen. The prompt's
keys and values are stored once and read by all rows that share it, never copied per row.
Outside :func:`attending` the name behaves as transformers' own scaled dot product
attention, so that a model stays usable for everything else.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from tailcast.errors import ModelError
from tailcast.models.slots import compacted

__all__ = ["NAME", "PromptPass", "SlotCache", "Tail", "attending", "register"]

NAME = "tailcast"


Tail = dict[int, tuple[Tensor, Tensor]]
"""Keys and values of one slot's own tokens by layer, each [kv heads, tokens, width]."""


@dataclass(frozen=True)
class Geometry:
    """What a layer says of its attention besides queries, keys and values."""

    scaling: float
    window: int | None
    softcap: float | None

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Scaled and capped scores, [..., queries, keys] in float32."""
        scores = (query @ keys.transpose(-1, -2)).float() * self.scaling
        return self.softcap * torch.tanh(scores / self.softcap) if self.softcap else scores


class Pass(Protocol):
    """Stores new keys and values of a layer and attends over everything before them."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: Geometry
    ) -> Tensor:
        """Attention output, [rows, heads, new tokens, width]."""


_active: ContextVar[Pass | None] = ContextVar("tailcast_attention", default=None)


@contextmanager
def attending(current: Pass) -> Iterator[None]:
    """Route the attention of all models in this context to a pass."""
    token = _active.set(current)
    try:
        yield
    finally:
        _active.reset(token)


def register() -> None:
    """Make the name known to transformers; harmless when repeated."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)


def _mask(*args: Any, **kwargs: Any) -> Any:
    from transformers.masking_utils import sdpa_mask

    return None if _active.get() is not None else sdpa_mask(*args, **kwargs)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    current = _active.get()
    if current is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return output
    if kwargs.get("s_aux") is not None:
        raise ModelError(
            f"{type(module).__name__} uses attention sinks, which tailcast cannot run yet."
        )
    scaling = kwargs.get("scaling")
    how = Geometry(
        scaling=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        window=kwargs.get("sliding_window"),
        softcap=kwargs.get("softcap"),
    )
    return current.attend(module.layer_idx, query, key, value, how).transpose(1, 2), None


@dataclass
class PromptPass:
    """One row of any length, causal; keeps its keys and values, [kv heads, P, width]."""

    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Number of tokens stored; 0 for the empty prefix of a one-token prompt."""
        return next(iter(self.keys.values())).shape[1] if self.keys else 0

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: Geometry
    ) -> Tensor:
        """Causal attention of the row to itself."""
        self.keys[layer], self.values[layer] = key[0], value[0]
        groups = query.shape[1] // key.shape[1]
        rows = torch.arange(query.shape[2], device=query.device)
        distance = rows[:, None] - rows
        hidden = distance < 0
        if how.window:
            hidden |= distance >= how.window
        scores = how.scores(query, key.repeat_interleave(groups, 1))
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1).to(value.dtype)
        return weights @ value.repeat_interleave(groups, 1)


class SlotCache:
    """Keys and values of a batch of slots: a shared prefix and an own tail for each.

    Slots are compact: the first ``len(self.prefix)`` rows of every tail are in use. A
    forward pass appends exactly one token to every one of them.
    """

    def __init__(self, slots: int, length: int) -> None:
        self.slots = slots
        self.length = length
        self.prefixes: list[PromptPass] = []
        self.prefix: list[int] = []  # slot -> index into prefixes
        self.written: list[int] = []  # slot -> tokens in its tail
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self._plan: _Plan | None = None

    def add(self, prefix: int, tail: Tail | None = None) -> None:
        """Open a slot behind a prefix, with a tail that was kept or an empty one."""
        slot = len(self.prefix)
        self.prefix.append(prefix)
        self.written.append(0)
        for layer, (keys, values) in (tail or {}).items():
            self.written[slot] = keys.shape[1]
            self.keys[layer][slot, :, : keys.shape[1]] = keys
            self.values[layer][slot, :, : keys.shape[1]] = values

    def prefix_length(self, prefix: int) -> int:
        """Tokens of a prefix."""
        return self.prefixes[prefix].length

    def tail(self, slot: int) -> Tail:
        """Copies of the keys and values of a slot's tail."""
        end = self.written[slot]
        return {
            layer: (keys[slot, :, :end].clone(), self.values[layer][slot, :, :end].clone())
            for layer, keys in self.keys.items()
        }

    def close(self, slots: list[int]) -> list[int]:
        """Drop slots; later ones move into the gaps. Returns the new order of old slots."""
        order = compacted(len(self.prefix), slots)
        for new, old in enumerate(order):
            if new != old:
                for store in (self.keys, self.values):
                    for tensor in store.values():
                        tensor[new] = tensor[old]
        self.prefix = [self.prefix[old] for old in order]
        self.written = [self.written[old] for old in order]
        return order

    def positions(self) -> list[int]:
        """Absolute position of the next token of each slot."""
        return [
            self.prefix_length(prefix) + written
            for prefix, written in zip(self.prefix, self.written, strict=True)
        ]

    @contextmanager
    def appending(self, device: torch.device) -> Iterator[None]:
        """A forward pass of one new token for each slot."""
        self._plan = _Plan(self, device)
        try:
            with attending(self):
                yield
        finally:
            self._plan = None
        self.written = [written + 1 for written in self.written]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: Geometry
    ) -> Tensor:
        """Attention of one new token a row to its prefix and its tail."""
        plan = self._plan
        assert plan is not None
        if layer not in self.keys:
            self.keys[layer] = key.new_zeros((self.slots, key.shape[1], self.length, key.shape[3]))
            self.values[layer] = value.new_zeros((*self.keys[layer].shape[:3], value.shape[3]))
        rows, kv_heads, _, width = key.shape
        tail_keys = self.keys[layer][:rows, :, : plan.width]
        tail_values = self.values[layer][:rows, :, : plan.width]
        tail_keys[plan.index, :, plan.offsets] = key[:, :, 0]
        tail_values[plan.index, :, plan.offsets] = value[:, :, 0]
        heads = query.reshape(rows, kv_heads, -1, width)
        scores = torch.cat(
            [plan.prefix_scores(self, layer, heads, how), how.scores(heads, tail_keys)], -1
        )
        scores = scores.masked_fill_(plan.hidden(how.window), -math.inf)
        weights = scores.softmax(-1).to(value.dtype)
        output = (
            plan.prefix_values(self, layer, weights)
            + weights[..., plan.prefix_width :] @ tail_values
        )
        return output.reshape(rows, -1, 1, output.shape[-1])


class _Plan:
    """What one step's layers share: who attends where, and what is masked."""

    def __init__(self, cache: SlotCache, device: torch.device) -> None:
        self.index = torch.arange(len(cache.prefix), device=device)
        self.offsets = torch.tensor(cache.written, device=device)
        self.width = max(cache.written) + 1
        groups: dict[int, list[int]] = {}
        for slot, prefix in enumerate(cache.prefix):
            groups.setdefault(prefix, []).append(slot)
        lengths = {prefix: cache.prefix_length(prefix) for prefix in groups}
        self.prefix_width = max(lengths.values())
        self.alone = len(groups) == 1 and self.prefix_width > 0
        self.groups = [
            (prefix, torch.tensor(places, device=device))
            for prefix, places in groups.items()
            if lengths[prefix]
        ]
        self.lengths = torch.tensor([lengths[prefix] for prefix in cache.prefix], device=device)
        self._hidden: dict[int | None, Tensor] = {}

    def prefix_scores(self, cache: SlotCache, layer: int, heads: Tensor, how: Geometry) -> Tensor:
        """Scores of every row to its prefix, [rows, kv heads, queries, prefix width]."""
        if self.alone:
            return self._shared(heads, cache.prefixes[self.groups[0][0]].keys[layer], how)
        scores = heads.new_zeros((*heads.shape[:3], self.prefix_width), dtype=torch.float32)
        for prefix, places in self.groups:
            keys = cache.prefixes[prefix].keys[layer]
            scores[places, :, :, : keys.shape[1]] = self._shared(heads[places], keys, how)
        return scores

    @staticmethod
    def _shared(heads: Tensor, keys: Tensor, how: Geometry) -> Tensor:
        """One product of all rows' queries with the keys that they share."""
        rows, kv_heads, queries, width = heads.shape
        flat = heads.transpose(0, 1).reshape(kv_heads, rows * queries, width)
        scores = how.scores(flat, keys)
        return scores.view(kv_heads, rows, queries, -1).transpose(0, 1)

    def prefix_values(self, cache: SlotCache, layer: int, weights: Tensor) -> Tensor:
        """What every row reads from its prefix, [rows, kv heads, queries, width]."""
        if self.alone:
            return self._read(weights[..., : self.prefix_width], cache, self.groups[0][0], layer)
        width = cache.values[layer].shape[-1]
        parts = weights.new_zeros((*weights.shape[:3], width))
        for prefix, places in self.groups:
            length = cache.prefix_length(prefix)
            parts[places] = self._read(weights[places, :, :, :length], cache, prefix, layer)
        return parts

    @staticmethod
    def _read(weights: Tensor, cache: SlotCache, prefix: int, layer: int) -> Tensor:
        rows, kv_heads, queries, length = weights.shape
        flat = weights.transpose(0, 1).reshape(kv_heads, rows * queries, length)
        read = flat @ cache.prefixes[prefix].values[layer]
        return read.view(kv_heads, rows, queries, -1).transpose(0, 1)

    def hidden(self, window: int | None) -> Tensor:
        """True where a key is not to be seen, [rows, 1, 1, prefix width + tail width]."""
        if window not in self._hidden:
            prefix = torch.arange(self.prefix_width, device=self.index.device)
            tail = torch.arange(self.width, device=self.index.device)
            lengths, offsets = self.lengths[:, None], self.offsets[:, None]
            hidden = torch.cat([prefix >= lengths, tail > offsets], -1)
            if window:
                far = torch.cat([lengths + offsets - prefix, offsets - tail], -1) >= window
                hidden |= far
            self._hidden[window] = hidden[:, None, None]
        return self._hidden[window]
