"""Logits in float32 from a model that runs in 16 bits.

A bfloat16 number near 16 moves in steps of 1/8, so logits rounded to it shift whole decades
of risk, and by how much depends on the rows of the batch. The last product alone, from hidden
state to logits, is made in float32: its inputs are the model's own, only its result is exact.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

__all__ = ["widen_head"]


def widen_head(model: Any) -> None:
    """Let a model's output embeddings give float32 logits; costs a float32 copy of them.

    Parameters stay as they are, and so does what the model makes of its logits (softcaps,
    scales). Heads that are no plain 16-bit product stay untouched.
    """
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        return
    if head.weight.dtype not in (torch.bfloat16, torch.float16):
        return
    weight = head.weight.detach().float()
    bias = None if head.bias is None else head.bias.detach().float()
    products = _bfloat16_products if head.weight.dtype == torch.bfloat16 else nullcontext

    def forward(hidden: Tensor) -> Tensor:
        with products():
            # in place of accelerate's hook, which brings it to a head on another device
            return linear(hidden.to(weight.device).float(), weight, bias)

    head.forward = forward  # type: ignore[assignment,method-assign]


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
