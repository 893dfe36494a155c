"""Matrix products whose weights lie in the processor's own order, on CPUs.

A product of few rows with a large weight spends much of its time on bringing the weight into
the order in which the processor multiplies. oneDNN, which torch brings along, takes weights
that were brought there once; the operations are those of a model that torch.compile has frozen.
They cost a second copy of the weights.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MOST_BYTES", "PackedLinear", "pack_products"]

MOST_BYTES = 2**31
"""Of weights; a model with more keeps its products as they are, to have room."""

_ROWS = 128  # that the order is best for


class PackedLinear(nn.Linear):
    """A linear module that keeps its weight in oneDNN's order, too, and follows its changes."""

    _kept: tuple[tuple[int, int], Tensor] | None = None  # address and version, packed weight

    def forward(self, input: Tensor) -> Tensor:
        """From [..., in] to [..., out] as torch does, but for rounding; plain with gradients."""
        if torch.is_grad_enabled() or not _packable(self.weight) or input.numel() == 0:
            return super().forward(input)
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            input, self._packed(), self.bias, "none", [], ""
        )
        return output

    def _packed(self) -> Tensor:
        version = (self.weight.data_ptr(), self.weight._version)
        if self._kept is None or self._kept[0] != version:
            packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), _ROWS)
            self._kept = version, packed
        return self._kept[1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}


def pack_products(model: nn.Module, most: int = MOST_BYTES) -> None:
    """Let the linear modules of a model multiply by packed weights, where this machine can.

    Parameters stay as they are. Modules that are no plain :class:`torch.nn.Linear`, or whose
    forward something else has replaced, are left alone.

    Args:
        model: The model.
        most: Bytes of weights up to which they are packed.
    """
    found = [
        one for one in model.modules()
        if type(one) is nn.Linear and "forward" not in vars(one) and _packable(one.weight)
    ]  # fmt: skip
    if sum(one.weight.numel() * one.weight.element_size() for one in found) > most:
        return
    for one in found:
        one.__class__ = PackedLinear


def _packable(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and not weight.is_inference() and _works(weight.dtype)


@cache
def _works(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there, and gives what torch gives."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    with torch.no_grad():
        numbers = torch.arange(-32, 32).reshape(8, 8) / 32
        try:
            weight = torch.ops.mkldnn._reorder_linear_weight(numbers.to(dtype), _ROWS)
            product = torch.ops.mkldnn._linear_pointwise(
                numbers.to(dtype), weight, None, "none", [], ""
            )
        except (AttributeError, RuntimeError, NotImplementedError):
            return False
        return bool((product.float() - numbers @ numbers.T).abs().max() < 0.02)
