"""Adding vectors to, or ablating directions from, the residual stream of a batch.

Hooks exist only while a forward pass runs, so the model is what it was before and after,
also when the pass fails. Every row has its own strength; at 0 a row is left exactly as it
was. Which positions are steered is the caller's choice of what it forwards. Layers may lie on
several devices: what is added to a hidden state is sent to where that is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tailcast.errors import SteeringError
from tailcast.models.layers import DecoderLayers
from tailcast.types import SteeringVector

__all__ = ["Steerer"]


class Steerer:
    """A steering vector placed on a model.

    Args:
        vector: What to do at strength 1.
        places: The model's layers.
        like: A parameter of the model, for width, dtype and device.

    Raises:
        SteeringError: If width or layer do not fit the model.
    """

    def __init__(
        self, vector: SteeringVector, places: DecoderLayers, width: int, like: Tensor
    ) -> None:
        for layer, direction in vector.places:
            if direction.shape != (width,):
                raise SteeringError(
                    f"the steering vector has width {direction.shape[-1]}, the model's residual "
                    f"stream {width}: it was made for another model, fit one with tailcast steer."
                )
            if not 0 <= layer < len(places.layers):
                raise SteeringError(
                    f"steering layer {layer} does not exist: the model has layers 0 to "
                    f"{len(places.layers) - 1}."
                )
        self.vector = vector
        self.places = places
        exact = [torch.from_numpy(direction) for _, direction in vector.places]
        self.directions = [one.to(like) for one in exact]
        self.units = [_beside((one / one.norm()).to(like)) for one in exact]

    @contextmanager
    def steering(self, strengths: Tensor) -> Iterator[None]:
        """Steer the rows of the forward passes made inside, [rows] in the model's dtype."""
        if not strengths.any():
            yield
            return
        strength = strengths.to(self.directions[0])[:, None, None]
        handles = self._add(strength) if self.vector.operator == "add" else self._ablate(strength)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _add(self, strength: Tensor) -> list[Any]:
        def adding(direction: Tensor) -> Callable[[nn.Module, Any, Any], Any]:
            step = _beside(strength * direction)
            return lambda module, args, output: _on_first(output, lambda old: old + step(old))

        return [
            self.places.layers[layer].register_forward_hook(adding(direction))
            for (layer, _), direction in zip(self.vector.places, self.directions, strict=True)
        ]

    def _ablate(self, strength: Tensor) -> list[Any]:
        rate = _beside(strength)

        def without(hidden: Tensor) -> Tensor:
            for unit in self.units:
                along = unit(hidden)
                hidden = hidden - rate(hidden) * (hidden @ along)[..., None] * along
            return hidden

        def on_output(module: nn.Module, args: Any, output: Any) -> Any:
            return _on_first(output, without)

        def on_input(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if args:
                return (without(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": without(kwargs["hidden_states"])}

        handles = [
            layer.register_forward_pre_hook(on_input, with_kwargs=True)
            for layer in self.places.layers
        ]
        return handles + [part.register_forward_hook(on_output) for part in self.places.writers]


def _beside(tensor: Tensor) -> Callable[[Tensor], Tensor]:
    """The tensor on the device of another one; it is sent to each device once."""
    on = {tensor.device: tensor}

    def found(other: Tensor) -> Tensor:
        if other.device not in on:
            on[other.device] = tensor.to(other.device)
        return on[other.device]

    return found


def _on_first(output: Any, change: Any) -> Any:
    """Change the hidden state, which is the output or the first part of it."""
    if isinstance(output, tuple):
        return (change(output[0]), *output[1:])
    return change(output)
