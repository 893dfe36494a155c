"""Steps of Llama's layers in fewer operations than transformers' modules take for them.

A step of a small model hands small tensors from module to module, which takes as long as the
arithmetic when there are few rows. Here a layer multiplies what has one input as one, turns
queries and keys together, and adds to the residual stream within the product. The result is
that of transformers' layer but for rounding. Whatever is not as transformers made it (hooks on
inner modules, adapters, weights that are not packed), and all but steps, takes its way.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaMLP,
    LlamaRMSNorm,
)

from tailcast.models.attention import SlotCache, stepping
from tailcast.models.geometry import Geometry
from tailcast.models.packed import PackedLinear

__all__ = ["LeanLayer", "make_lean"]

_SILU = type(ACT2FN["silu"])
_KINDS = [
    LlamaAttention, *[PackedLinear] * 4, LlamaMLP, *[PackedLinear] * 3, _SILU, *[LlamaRMSNorm] * 2,
]  # fmt: skip


def make_lean(layers: Iterable[nn.Module]) -> None:
    """Let layers of transformers' class for Llama make their steps by themselves.

    Args:
        layers: A model's decoder layers; those of other classes, or with another forward, are left.
    """
    for layer in layers:
        if type(layer) is LlamaDecoderLayer and "forward" not in vars(layer):
            layer.__class__ = LeanLayer


class LeanLayer(LlamaDecoderLayer):  # type: ignore[no-untyped-call]
    """Transformers' layer, which makes the steps of a :class:`SlotCache` by itself."""

    _step: "_Step | None" = None

    def forward(
        self, hidden_states: Tensor, *args: Any, position_embeddings: Any = None, **kwargs: Any
    ) -> Any:
        """The residual stream after the layer, [rows, tokens, d]."""
        cache = stepping()
        if cache is not None:
            if self._step is None or not self._step.holds():
                self._step = _Step.of(self)
            if self._step is not None:
                return self._step.made(cache, hidden_states, *position_embeddings)
        return super().forward(
            hidden_states, *args, position_embeddings=position_embeddings, **kwargs
        )

    def __getstate__(self) -> dict[str, Any]:
        return {key: kept for key, kept in self.__dict__.items() if key != "_step"}


class _Step:
    """A layer's modules at hand, for as long as they are the same ones."""

    def __init__(self, layer: LeanLayer) -> None:
        attention: Any = layer.self_attn
        mlp: Any = layer.mlp
        norms: list[Any] = [layer.input_layernorm, layer.post_attention_layernorm]
        self.norms = [(one, torch.tensor(one.variance_epsilon)) for one in norms]
        self.query, self.output = attention.q_proj, attention.o_proj
        self.gate, self.down = mlp.gate_proj, mlp.down_proj
        self.index, self.width = attention.layer_idx, attention.head_dim
        self.heads = self.query.out_features // self.width
        self.how = Geometry(attention.scaling, window=None, softcap=None)
        self._inner = [*layer.modules()][1:]
        self._hooks = [
            hooks for one in self._inner for hooks in (one._forward_hooks, one._forward_pre_hooks)
        ]
        self._facts = [vars(one) for one in self._inner]
        self._children = [
            (part._modules, [*part._modules.values()]) for part in (layer, attention, mlp)
        ]

    @classmethod
    def of(cls, layer: LeanLayer) -> "_Step | None":
        """None where the modules are not Llama's with packed weights, or do something besides."""
        if [type(one) for one in layer.modules()][1:] != _KINDS:
            return None
        found = cls(layer)
        return found if found.holds() else None

    def holds(self) -> bool:
        """Whether the modules are the same, of the same kinds, and nobody hooks into them."""
        return (
            [type(one) for one in self._inner] == _KINDS
            and None not in (self.query.joint, self.gate.joint)
            and not any(self._hooks)
            and not any("forward" in facts for facts in self._facts)
            and all([*now.values()] == before for now, before in self._children)
        )

    def made(self, cache: SlotCache, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The residual stream after the layer, [rows, 1, d]."""
        before_attention, before_mlp = self.norms
        lines = self.query.joint.product(_normed(hidden, *before_attention))
        read = self._read(cache, lines.view(len(hidden), -1, self.width), cos, sin)
        hidden = self.output.product(read, self.output.bias, hidden)
        gate, up = self.gate.joint.product(_normed(hidden, *before_mlp)).chunk(2, -1)
        output: Tensor = self.down.product(silu(gate).mul_(up), self.down.bias, hidden)
        return output

    def _read(self, cache: SlotCache, lines: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """What heads read, [rows, 1, heads * width].

        Args:
            cache: Where what they read is.
            lines: Queries, keys and values, [rows, heads + 2 kv heads, width].
            cos: Of the angles of the rows' positions, [rows, 1, width].
            sin: The same.
        """
        rows, count, _ = lines.shape
        values = (count + self.heads) // 2
        turned = _turned(lines[:, :values], cos, sin)
        queries, keys = turned[:, : self.heads, None], turned[:, self.heads :, None]
        read = cache.attend(self.index, queries, keys, lines[:, values:, None], self.how)
        return read.reshape(rows, 1, -1)


def _normed(hidden: Tensor, norm: Any, least: Tensor) -> Tensor:
    """The residual stream over its root mean square, times a weight, [rows, 1, d].

    Args:
        hidden: The residual stream, [rows, 1, d]; it is normalised in float32.
        norm: Transformers' module, for its weight, [d].
        least: What the module adds to the mean square, a number in float32.
    """
    exact = hidden.float()
    length = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
    scale = torch.addcmul(least, length, length, value=1 / hidden.shape[-1]).rsqrt_()
    normed: Tensor = (exact * scale).to(hidden.dtype).mul_(norm.weight)
    return normed


def _turned(lines: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries or keys turned to their positions, [rows, heads, width].

    As transformers' ``apply_rotary_pos_emb`` does for Llama: the first half of the width is turned
    against the second one.

    Args:
        lines: Queries or keys, [rows, heads, width].
        cos: Of the angles of the rows' positions, [rows, 1, width].
        sin: The same.
    """
    first, second = lines.chunk(2, -1)
    return torch.addcmul(lines * cos, torch.cat((-second, first), -1), sin)
