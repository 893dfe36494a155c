"""Another model with the target's vocabulary, or the target steered by another vector.

An adapter on the target, the base model of a chat model, a smaller sibling: one pass a token
of that model, after the same prompt tokens. A second steering vector (another layer, another
behaviour category) is one more pass of the target.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from tailcast.errors import ConfigError
from tailcast.sampling.kinds import Part, Place, Source
from tailcast.sampling.laws import scores_of
from tailcast.types import SamplingSettings, SteeringVector, Target

__all__ = ["Other", "Vector"]


class Other:
    """A stream of another model.

    Args:
        name: Of the stream; no two of a run share one.
        model: The other model, with the target's tokenizer.
    """

    def __init__(self, name: str, model: Target) -> None:
        self.name = name
        self.sources: Mapping[str, Source] = {name: Source(model)}
        self.fingerprint = model.fingerprint

    def parts(self, prompt: tuple[int, ...], strength: float) -> tuple[Part, ...]:
        """One pass of that model."""
        return (Part(prompt, strength, self.name),)

    def law(
        self, target: Tensor, own: Sequence[Tensor], places: Sequence[Place],
        settings: SamplingSettings,
    ) -> Tensor:  # fmt: skip
        """Its logits over the temperature.

        Raises:
            ConfigError: If it has another vocabulary than the target.
        """
        if own[0].shape[-1] != target.shape[-1]:
            raise ConfigError(
                f"stream {self.name!r} has {own[0].shape[-1]} tokens, the target "
                f"{target.shape[-1]}: a stream needs the target's tokenizer."
            )
        return scores_of(own[0], settings)


class Vector(Other):
    """A stream of the target steered by a vector that is not the run's own.

    Args:
        name: Of the stream.
        target: The target.
        vector: What strength 1 does.
    """

    def __init__(self, name: str, target: Target, vector: SteeringVector) -> None:
        self.name = name
        self.sources = {name: Source(target, vector)}
        self.fingerprint = vector.digest
