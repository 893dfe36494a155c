"""Logits in float32 from a model that runs in 16 bits.

A bfloat16 number near 16 moves in steps of 1/8, so logits rounded to it shift whole decades
of risk, and by how much depends on the rows of the batch. The last product alone, from hidden
state to logits, is made in float32: its inputs are the model's own, only its result is exact.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from tailcast.models.packed import PackedLinear, packed

__all__ = ["widen_head"]


def widen_head(model: Any) -> None:
    """Let a model's output embeddings give float32 logits; costs a float32 copy of them.

    Parameters stay as they are, and so does what the model makes of its logits (softcaps,
    scales). Heads that are no plain 16-bit product stay untouched.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.weight.dtype not in (torch.bfloat16, torch.float16):
        return
    vars(head).pop("forward", None)  # accelerate's hook: the new one brings the input here, too
    head.__class__ = _WideHead


class _WideHead(PackedLinear):
    """Output embeddings in 16 bits that multiply in float32, and follow changes of the weight."""

    def forward(self, input: Tensor) -> Tensor:
        """From hidden states [..., d], on whatever device, to logits [..., V]."""
        hidden = input.to(self.weight.device).float()
        bias = None if self.bias is None else self.bias.float()
        if torch.is_grad_enabled():
            return linear(hidden, self.weight.float(), bias)
        with _bfloat16_products() if self._in_tiles else nullcontext():
            return self.product(hidden, bias)

    def prepared(self) -> Tensor:
        """The weight in float32."""
        wide = self.weight.detach().float()
        return wide if self._in_tiles else packed(wide)

    @property
    def _in_tiles(self) -> bool:
        """Whether this processor multiplies bfloat16 several times as fast as float32."""
        return self.weight.dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()


@contextmanager
def _bfloat16_products() -> Iterator[None]:
    """A CPU may multiply float32 in bfloat16: exact here, where both factors came from it."""
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
