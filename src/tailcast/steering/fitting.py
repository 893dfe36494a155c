"""Which vector is made of contrast pairs: of which layers, direction and strengths?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tailcast.errors import ConfigError
from tailcast.models import HuggingFaceTarget
from tailcast.steering.choice import choose_layer
from tailcast.steering.mean_difference import Reading, as_vectors, at_once, read_differences
from tailcast.types import ContrastPair, Positions, SteeringVector

__all__ = ["Form", "fit_from_pairs", "read_profile"]


@dataclass(frozen=True)
class Form:
    """What is made of the differences of pairs.

    Attributes:
        layer: "auto" for the best one, "all" for a vector of each, a number, or several as
            "8,12,16" for one vector that steers all of them, each by an equal share.
        reading: What a response is read at.
        component: 0 for the mean of the differences, k for their k-th principal component.
        profile: What the strength is multiplied by at each response token, the last holds on.
    """

    layer: str = "auto"
    reading: Reading = "response"
    component: int = 0
    profile: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        words = self.layer.split(",")
        if self.layer not in ("auto", "all") and not all(one.isdecimal() for one in words):
            raise ConfigError(
                f"--layer {self.layer!r} is none of auto, all, a number from 0 up and several "
                "as 8,12,16."
            )
        if len(set(self.layers)) < len(self.layers):
            raise ConfigError(f"--layer {self.layer} names a layer twice: name it once.")
        if self.component < 0:
            raise ConfigError(
                f"--component {self.component} is negative: 0 is the mean, 1 the first component."
            )
        if not np.isfinite(self.profile).all() or (self.profile and not any(self.profile)):
            raise ConfigError(f"--profile {list(self.profile)} must be finite and not all 0.")

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that are named."""
        return () if self.layer in ("auto", "all") else tuple(map(int, self.layer.split(",")))

    def check(self, target: HuggingFaceTarget) -> None:
        """Refuse a layer that the model does not have."""
        beyond = [one for one in self.layers if one >= target.depth]
        if beyond:
            raise ConfigError(
                f"layer {beyond[0]} does not exist: the layers are 0 to {target.depth - 1}."
            )


def read_profile(text: str) -> tuple[float, ...]:
    """The profile that "1,0.8,0.5" says.

    Raises:
        ConfigError: If it says none.
    """
    try:
        return tuple(map(float, text.split(","))) if text else ()
    except ValueError:
        raise ConfigError(f"--profile {text!r} is no list of numbers such as 1,0.8,0.5.") from None


def fit_from_pairs(
    pairs: Sequence[ContrastPair], target: HuggingFaceTarget, form: Form,
    positions: Positions = "response", differences: NDArray[np.float64] | None = None,
) -> list[SteeringVector]:  # fmt: skip
    """The vector of the layers that are named or of the best one, or one of each layer.

    Args:
        pairs: Unsafe and safe responses to the same prompts.
        target: The model.
        form: What is made of them.
        positions: Where the vectors will steer.
        differences: Activations of the pairs, [pairs, L, d], if they were read before.

    Raises:
        ConfigError: If the model has no such layer.
        SteeringError: If there are too few pairs, or no layer moves the model.
    """
    form.check(target)
    if differences is None:
        differences = read_differences(target, pairs, reading=form.reading)
    if form.layer == "auto":
        best = choose_layer(
            target, pairs, reading=form.reading, positions=positions, differences=differences,
            component=form.component,
        )  # fmt: skip
        return [replace(best, profile=form.profile)]
    vectors = as_vectors(
        target, differences, reading=form.reading, positions=positions, component=form.component
    )
    if form.layers:
        vectors = [at_once([vectors[layer] for layer in form.layers])]
    return [replace(one, profile=form.profile) for one in vectors]
