"""Matrix products whose weights lie in the processor's own order, on CPUs.

A product of few rows with a large weight spends much of its time on bringing the weight into
the order in which the processor multiplies. oneDNN, which torch brings along, takes weights
that were brought there once; the operations are those of a model that torch.compile has frozen.
They cost a second copy of the weights.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

__all__ = ["MOST_BYTES", "Joint", "PackedLinear", "pack_products", "packed"]

MOST_BYTES = 2**31
"""Of weights; a model with more keeps its products as they are, to have room."""

_ROWS = 128  # that the order is best for

_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""What transformers calls modules of one parent that read the same input."""

_Version = tuple[int, int]
"""Of a weight: its address, and how often torch saw it change."""


class PackedLinear(nn.Linear):
    """A linear module that keeps its weight in oneDNN's order, too, and follows its changes.

    It sees those that torch counts: steps of an optimizer, ``load_state_dict``, another tensor.
    """

    _kept: tuple[_Version, Tensor] | None = None
    joint: "Joint | None" = None

    def forward(self, input: Tensor) -> Tensor:
        """From [..., in] to [..., out] as torch does, but for rounding; plain with gradients."""
        if torch.is_grad_enabled():
            return super().forward(input)
        if self.joint is not None and _packable(self.weight):
            return self.joint.output(self, input)
        return self.product(input, self.bias)

    def product(self, input: Tensor, bias: Tensor | None, plus: Tensor | None = None) -> Tensor:
        """Of an input and what is kept of the weight, [..., out].

        Args:
            input: [..., in].
            bias: [out], in the dtype of what is kept.
            plus: What is added to the product within the operation, [..., out].
        """
        version = _version(self.weight)
        if self._kept is None or self._kept[0] != version:
            self._kept = version, self.prepared()
        return _product(input, self._kept[1], bias, plus)

    def prepared(self) -> Tensor:
        """What to keep of the weight."""
        return packed(self.weight.detach())

    def forget(self) -> None:
        """Let go of what is kept."""
        self._kept = self.joint = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: kept for key, kept in self.__dict__.items() if key not in ("_kept", "joint")}


class Joint:
    """Modules that read one input: the first one that gets it multiplies it for all of them."""

    def __init__(self, modules: Sequence[PackedLinear]) -> None:
        self.modules = modules
        self._kept: tuple[list[_Version], Tensor] | None = None
        self._input: Tensor | None = None
        self._outputs: dict[PackedLinear, Tensor] = {}  # of that input, until they are fetched

    def output(self, module: PackedLinear, input: Tensor) -> Tensor:
        """A module's output [..., out], a view of a wider one."""
        if input is not self._input or module not in self._outputs:
            self._input = input
            sizes = [one.out_features for one in self.modules]
            parts = self.product(input).split_with_sizes(sizes, -1)
            self._outputs = dict(zip(self.modules, parts, strict=True))
        output = self._outputs.pop(module)
        if not self._outputs:
            self._input = None
        return output

    def product(self, input: Tensor) -> Tensor:
        """The outputs of all of them, one after the other, [..., sum of their widths]."""
        versions = [_version(one.weight) for one in self.modules]
        if self._kept is None or self._kept[0] != versions:
            self._kept = versions, packed(torch.cat([one.weight.detach() for one in self.modules]))
        without = self.modules[0].bias is None  # as all of them are, or none
        bias = None if without else torch.cat([one.bias for one in self.modules])
        return _product(input, self._kept[1], bias)


def _product(
    input: Tensor, weight: Tensor, bias: Tensor | None, plus: Tensor | None = None
) -> Tensor:
    """An input [..., in] by a weight that :func:`packed` gave, and something more, [..., out]."""
    if not weight.is_mkldnn:
        output: Tensor = linear(input, weight, bias)
        return output if plus is None else output + plus
    if input.numel() == 0:
        return input.new_zeros((*input.shape[:-1], weight.shape[0]))
    operation = torch.ops.mkldnn._linear_pointwise
    if plus is None:
        output = operation(input, weight, bias, "none", [], "")
    else:
        output = operation.binary(input, plus, weight, bias, "add")
    return output


def _version(weight: Tensor) -> _Version:
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def pack_products(model: nn.Module, most: int = MOST_BYTES) -> None:
    """Let the linear modules of a model multiply by packed weights, where this machine can.

    Parameters stay as they are. Modules that are no plain :class:`torch.nn.Linear`, or whose
    forward something else has replaced, are left alone. Those that were packed before are packed
    anew: what is written to ``weight.data`` in place, as PEFT merges adapters, cannot be seen.
    Those that read the same input, by transformers' names, are multiplied as one.

    Args:
        model: The model.
        most: Bytes of weights up to which they are packed.
    """
    for one in model.modules():
        if isinstance(one, PackedLinear):
            one.forget()
    found = [
        one for one in model.modules()
        if type(one) is nn.Linear and "forward" not in vars(one) and _packable(one.weight)
    ]  # fmt: skip
    if sum(one.weight.numel() * one.weight.element_size() for one in found) > most:
        return
    for one in found:
        one.__class__ = PackedLinear
    for parent in model.modules():
        for names in _TOGETHER:
            _join([getattr(parent, name, None) for name in names])


def _join(modules: Sequence[nn.Module | None]) -> None:
    """Let modules of one kind multiply their input together; others are left as they are."""
    some = [one for one in modules if type(one) is PackedLinear]
    kinds = {(one.in_features, one.weight.dtype, one.bias is None) for one in some}
    if len(some) == len(modules) and len(kinds) == 1:
        joint = Joint(some)
        for one in some:
            one.joint = joint


def packed(weight: Tensor) -> Tensor:
    """A weight [out, in] in oneDNN's order, or as it is where that cannot be or is too large."""
    if not _packable(weight) or weight.numel() * weight.element_size() > MOST_BYTES:
        return weight
    ordered: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
    return ordered


def _packable(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and _works(weight.dtype)


@cache
def _works(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there, and gives what torch gives."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    with torch.no_grad():
        exact = torch.arange(-32, 32).reshape(8, 8) / 32
        numbers = exact.to(dtype)
        try:
            weight = torch.ops.mkldnn._reorder_linear_weight(numbers, _ROWS)
            found = [_product(numbers, weight, None), _product(numbers, weight, None, numbers)]
        except (AttributeError, RuntimeError, NotImplementedError):
            return False
        wanted = [exact @ exact.T, exact @ exact.T + exact]
        gaps = [(one.float() - two).abs().max() for one, two in zip(found, wanted, strict=True)]
        return bool(max(gaps) < 0.02)
