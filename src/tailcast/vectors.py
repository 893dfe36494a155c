"""What is done to a model's residual stream, as a record."""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Operator", "Positions", "SteeringVector"]

Operator = Literal["add", "ablate"]
Positions = Literal["response", "all"]


@dataclass(frozen=True)
class SteeringVector:
    """What the steering operator does at strength 1.

    Attributes:
        operator: "add": h += strength * direction at the output of decoder layer ``layer``.
            "ablate": x -= strength * (x . r) r with r = direction / |direction|, at every
            block's input and at every attention and MLP output.
        layer: Decoder layer, from 0; for "ablate" the layer that the direction was read at.
        direction: [d] float32, in the units of the residual stream: for "add" strength 1
            adds one mean difference of unsafe and safe activations.
        positions: "response" steers from the last prompt token on; "all" the prompt too.
        fingerprint: Of the model that it was fitted on; empty when that is unknown.
        provenance: How it was made, for the manifest and the reader.
        also: Other layers with their directions, that are steered at the same time.
        profile: What the strength is multiplied by at each response token, from the first; the
            last one holds on. Empty for the same strength everywhere.
    """

    operator: Operator
    layer: int
    direction: NDArray[np.float32]
    positions: Positions = "response"
    fingerprint: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    also: tuple[tuple[int, NDArray[np.float32]], ...] = ()
    profile: tuple[float, ...] = ()

    @property
    def places(self) -> tuple[tuple[int, NDArray[np.float32]], ...]:
        """Every layer with its direction, [d] each."""
        return ((self.layer, self.direction), *self.also)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that tell it from vectors that steer in another way."""
        facts = repr((self.operator, self.positions, self.profile)).encode()
        facts += b"".join(repr(layer).encode() + way.tobytes() for layer, way in self.places)
        return sha256(facts).hexdigest()[:16]

    def factor(self, step: int) -> float:
        """What the strength is multiplied by where response token ``step``, from 0, is chosen."""
        return self.profile[min(step, len(self.profile) - 1)] if self.profile else 1.0

    @property
    def norm(self) -> float:
        """Euclidean length of the direction, in units of the residual stream."""
        return float(np.linalg.norm(self.direction))
