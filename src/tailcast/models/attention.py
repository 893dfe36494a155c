"""Attention over a shared prompt and each slot's own tail, for any transformers model.

Transformers lets a model's attention be replaced by name. Ours is called ``tailcast``: a
forward pass made inside :func:`attending` hands the keys and values of its new tokens to
a pass object, which stores them and attends over all that the row has seen. The prompt's
keys and values are stored once and read by all rows that share it, never copied per row.
Outside :func:`attending` the name behaves as transformers' own scaled dot product
attention, so that a model stays usable for everything else.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from tailcast.errors import ModelError
from tailcast.models.geometry import Geometry, causal, products, veil_of
from tailcast.models.slots import compacted

__all__ = ["NAME", "PromptPass", "SlotCache", "Tail", "attending", "register", "stepping"]

NAME = "tailcast"

_COLUMNS = 8
"""Tokens by which tails grow: products read a table of tails as it lies, without a copy."""

Tail = dict[int, tuple[Tensor, Tensor]]
"""Keys and values of one slot's own tokens by layer, each [kv heads, tokens, width]."""


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


def stepping() -> "SlotCache | None":
    """The cache whose step is being made; None outside, and while a prompt is read."""
    current = _active.get()
    return current if isinstance(current, SlotCache) else None


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
        self.keys[layer], self.values[layer] = key[0].contiguous(), value[0].contiguous()
        groups = query.shape[1] // key.shape[1]
        keys, values = (one[0].repeat_interleave(groups, 0) for one in (key, value))
        return causal(query[0], keys, values, how)[None]


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
        self._plans: dict[torch.device, _Plan] = {}
        self._stacked: tuple[int, ...] = ()
        self._stacks: dict[int, tuple[Tensor, Tensor]] = {}

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
    def appending(self) -> Iterator[None]:
        """A forward pass of one new token for each slot."""
        try:
            with attending(self):
                yield
        finally:
            self._plans = {}
        self.written = [written + 1 for written in self.written]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: Geometry
    ) -> Tensor:
        """Attention of one new token a row to its prefix and its tail, on the layer's device."""
        if key.device not in self._plans:
            self._plans[key.device] = _Plan(self, key.device)
        plan = self._plans[key.device]
        room = plan.columns if key.device.type == "cpu" else self.length  # others read strides
        for store, new in ((self.keys, key), (self.values, value)):
            self._make_room(store, layer, new, room)
            if plan.ragged:
                store[layer][plan.index, :, plan.offsets] = new[:, :, 0]
            else:
                store[layer].select(2, plan.width - 1)[: len(new)].copy_(new.select(2, 0))
        rows, kv_heads, _, width = key.shape
        output = plan.attend(self, layer, query.reshape(rows, kv_heads, -1, width), how)
        return output.reshape(rows, -1, 1, output.shape[-1])

    def _make_room(self, store: dict[int, Tensor], layer: int, new: Tensor, columns: int) -> None:
        """Let every tail of a layer hold so many tokens; what is there is copied."""
        before = store.get(layer)
        if before is None or before.shape[2] < columns:
            store[layer] = new.new_zeros((self.slots, new.shape[1], columns, new.shape[3]))
            if before is not None:
                store[layer][:, :, : before.shape[2]] = before

    def stack(self, layer: int, prefixes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Keys and values of several prefixes, [prefixes * kv heads, longest, width].

        One prefix is taken as it is; several are put together once for as long as no other
        ones are in use.
        """
        if len(prefixes) == 1:
            one = self.prefixes[prefixes[0]]
            return one.keys[layer], one.values[layer]
        if self._stacked != prefixes:
            self._stacked, self._stacks = prefixes, {}
        if layer not in self._stacks:
            parts = [self.prefixes[prefix] for prefix in prefixes]
            longest = max(part.length for part in parts)
            self._stacks[layer] = (
                _stacked([part.keys.get(layer) for part in parts], longest),
                _stacked([part.values.get(layer) for part in parts], longest),
            )
        return self._stacks[layer]


class _Plan:
    """What one step's layers of a device share: who attends where, and what is masked.

    Rows that share a prefix are one batch of queries to it; batches of several prefixes are
    filled up to equal length with their own first row.
    """

    def __init__(self, cache: SlotCache, device: torch.device) -> None:
        self.index = torch.arange(len(cache.prefix), device=device)
        self.offsets = torch.tensor(cache.written, device=device)
        self.width = max(cache.written) + 1
        self.columns = min(cache.length, -(-self.width // _COLUMNS) * _COLUMNS)
        self.ragged = min(cache.written) + 1 < self.width
        groups: dict[int, list[int]] = {}
        for slot, prefix in enumerate(cache.prefix):
            groups.setdefault(prefix, []).append(slot)
        groups = dict(sorted(groups.items()))  # the order of stacks that are kept
        self.prefixes = tuple(groups)
        self.lengths = [cache.prefix_length(prefix) for prefix in groups]
        self.starts = torch.tensor(
            [cache.prefix_length(one) for one in cache.prefix], device=device
        )
        self.bare = max(self.lengths) == 0
        self.alone = len(groups) == 1
        longest = max(map(len, groups.values()))
        filled = [slots + slots[:1] * (longest - len(slots)) for slots in groups.values()]
        self.places = torch.tensor(filled, device=device)
        place = {
            slot: number * longest + at
            for number, slots in enumerate(groups.values())
            for at, slot in enumerate(slots)
        }
        self.back = torch.tensor([place[slot] for slot in range(len(place))], device=device)
        self._veils: dict[int | None, Tensor | None] = {}

    def attend(self, cache: SlotCache, layer: int, heads: Tensor, how: Geometry) -> Tensor:
        """What every row reads from its prefix and its own tokens.

        Args:
            cache: Where these are.
            layer: Of which layer.
            heads: Queries, [rows, kv heads, queries, width].
            how: The layer's attention.

        Returns:
            The same shape, with the width of a value.
        """
        keys, values = (
            store[layer][: len(heads), :, : self.columns].flatten(0, 1)
            for store in (cache.keys, cache.values)
        )
        product = products(heads.flatten(0, 1), keys).view(*heads.shape[:3], -1)
        if not self.bare:
            prefix_keys, prefix_values = cache.stack(layer, self.prefixes)
            first = products(self._by_prefix(heads, heads.dtype), prefix_keys)
            product = torch.cat([self._by_row(first, heads), product], -1)
        weights = how.scores(product, self._veil(how.window)).softmax(-1)
        shares = weights[..., -self.columns :].to(values.dtype)
        read = torch.bmm(shares.flatten(0, 1), values).view(*heads.shape[:3], -1)
        if not self.bare:
            shares = self._by_prefix(weights[..., : -self.columns], values.dtype)
            read += self._by_row(torch.bmm(shares, prefix_values), heads)
        return read

    def _by_prefix(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """From [rows, kv heads, queries, ...] to one batch a prefix and head of keys."""
        grouped = (tensor[None] if self.alone else tensor[self.places]).transpose(1, 2)
        whole = grouped.to(dtype, memory_format=torch.contiguous_format)  # one pass for both
        return whole.flatten(2, 3).flatten(0, 1)

    def _by_row(self, tensor: Tensor, heads: Tensor) -> Tensor:
        """Back to [rows, kv heads, queries, ...], the shape of ``heads``."""
        _, kv_heads, queries, _ = heads.shape
        shape = (len(self.prefixes), kv_heads, -1, queries, tensor.shape[-1])
        shaped = tensor.view(shape).transpose(1, 2)
        return shaped[0] if self.alone else shaped.flatten(0, 1)[self.back]

    def _veil(self, window: int | None) -> Tensor | None:
        """For keys past a prefix's end, not written, or out of the window, [rows, 1, 1, P + T]."""
        if window not in self._veils:
            longest = max(self.lengths)
            uneven = min(self.lengths) < longest or self.ragged or self.width < self.columns
            far = window and longest + self.width > window
            self._veils[window] = self._made_veil(longest, window) if uneven or far else None
        return self._veils[window]

    def _made_veil(self, longest: int, window: int | None) -> Tensor:
        """The same, where P = ``longest`` and some keys are hidden from some rows."""
        device = self.offsets.device
        starts, offsets = self.starts[:, None], self.offsets[:, None]
        places = torch.arange(longest, device=device)
        columns = torch.arange(self.columns, device=device)
        hidden = torch.cat([places >= starts, columns > offsets], 1)
        if window:
            hidden |= torch.cat([starts + offsets - places, offsets - columns], 1) >= window
        return veil_of(hidden)[:, None, None]


def _stacked(parts: Sequence[Tensor | None], longest: int) -> Tensor:
    """Parts [kv heads, length, width] one after the other, filled up with zeros."""
    like = next(part for part in parts if part is not None)
    table = like.new_zeros((len(parts), like.shape[0], longest, like.shape[2]))
    for line, part in zip(table, parts, strict=True):
        if part is not None:
            line[:, : part.shape[1]] = part
    return table.flatten(0, 1)
