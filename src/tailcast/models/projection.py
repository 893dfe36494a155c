"""How far along a steering vector does the residual stream of every prefix lie?"""

from typing import Any

import torch
from torch import Tensor

from tailcast.models.huggingface import HuggingFaceStream, HuggingFaceTarget
from tailcast.models.steerer import Steerer
from tailcast.types import SteeringVector

__all__ = ["ProjectedStream"]


class ProjectedStream(HuggingFaceStream):
    """The unsteered target, which tells of every step where its last states lie.

    Args:
        target: The model.
        vector: The direction, read at the output of its layer. Its length is the unit, and the
            sign is such that more is further from refusal.
        slots: Rows of the batch.
        max_new_tokens: Longest response.

    Raises:
        SteeringError: If the vector does not fit the model.
    """

    def __init__(
        self, target: HuggingFaceTarget, vector: SteeringVector, slots: int, max_new_tokens: int
    ) -> None:
        super().__init__(target, None, slots, max_new_tokens)
        Steerer(vector, target.layers, target.width, target.like)  # says what does not fit
        away = -1.0 if vector.operator == "ablate" else 1.0
        unit = torch.from_numpy(vector.direction) * (away / vector.norm**2)
        self.layer = target.layers.layers[vector.layer]
        self.unit = unit.to(next(self.layer.parameters()).device)
        self.projections = torch.empty(0)

    def push(self, tokens: Tensor) -> Tensor:
        """As of the target; :attr:`projections` has one number for each slot then, [n]."""

        def keep(module: Any, args: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            self.projections = (hidden[:, -1].float() @ self.unit).cpu()

        handle = self.layer.register_forward_hook(keep)
        try:
            return super().push(tokens)
        finally:
            handle.remove()
