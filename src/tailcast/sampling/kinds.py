"""What laws of the next token may stand beside the target's, and what does each of them read?

A stream is any law of the next token over the target's vocabulary, given a prompt and the
tokens so far. It may read models (the target steered, under another prompt, another model with
the same tokenizer), the target's own law, both, or neither: weights make up for whatever it is,
as long as a completion's log-probability under it can be computed.

A kind of stream says which model passes its law is made of (:meth:`StreamKind.parts`) and how
(:meth:`StreamKind.law`). Truncation, heat and normalisation are done here, for all of them.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from tailcast.errors import ConfigError
from tailcast.proposals import Proposal, StreamKey
from tailcast.sampling.laws import scores_of
from tailcast.types import SamplingSettings, SteeringVector, Stream, Target

__all__ = ["Part", "Place", "Source", "Sparse", "SparseKind", "StreamKind", "Streams"]


class Part(NamedTuple):
    """One model pass that a law reads.

    Attributes:
        prompt: Prompt tokens of that pass.
        strength: Of the source's steering vector.
        source: Name of the model and vector; "" is the target with the run's own vector.
    """

    prompt: tuple[int, ...]
    strength: float = 0.0
    source: str = ""


class Place(NamedTuple):
    """Where a law is asked for: after a query's prompt and the tokens so far."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]


class Source(NamedTuple):
    """A model with the target's vocabulary, and the vector that its passes are steered by."""

    target: Target
    steering: SteeringVector | None = None


class StreamKind(Protocol):
    """A family of streams, one for each strength; what a new kind must be."""

    @property
    def sources(self) -> Mapping[str, Source]:
        """Models that it reads besides the target, by names of its own."""

    @property
    def fingerprint(self) -> str:
        """What decides its law besides its name; part of a run's manifest."""

    def parts(self, prompt: tuple[int, ...], strength: float) -> tuple[Part, ...]:
        """The passes that its law after a query's prompt is made of, in order; may be none."""

    def law(
        self,
        target: Tensor,
        own: Sequence[Tensor],
        places: Sequence[Place],
        settings: SamplingSettings,
    ) -> Tensor:
        """Scores of the next token, log-probabilities up to a constant of each row, [n, V].

        Args:
            target: Log-probabilities under the target, [n, V]; -inf where it is truncated.
            own: Raw logits of each part, [n, V] each.
            places: Where each row is, n of them.
            settings: Temperature and truncation of the target.
        """


class Sparse(NamedTuple):
    """A law of the next token that is known without seeing the whole of another one.

    Attributes:
        rest: Share of the law that it stands on: of its only part, or of the target.
        added: What it gives to some tokens besides; with ``rest`` it adds up to 1.
    """

    rest: float
    added: Mapping[int, float]


@runtime_checkable
class SparseKind(Protocol):
    """A family of streams that can be drawn from, and scored, by a target that shows no laws."""

    def sparse(self, place: Place) -> Sparse:
        """Its law after a place, as a share of the law that it stands on and what it adds."""


@dataclass(frozen=True)
class Steered:
    """The target steered by the run's vector; at strength 0 the target, for its heats."""

    sources: Mapping[str, Source] = field(default_factory=dict)
    fingerprint: str = ""

    def parts(self, prompt: tuple[int, ...], strength: float) -> tuple[Part, ...]:
        """One pass, shared with the target's own at strength 0."""
        return (Part(prompt, strength),)

    def law(
        self, target: Tensor, own: Sequence[Tensor], places: Sequence[Place],
        settings: SamplingSettings,
    ) -> Tensor:  # fmt: skip
        """Its logits over the temperature."""
        return scores_of(own[0], settings)

    def sparse(self, place: Place) -> Sparse:
        """Nothing but the law of its one pass."""
        return Sparse(1.0, {})


class Streams:
    """All that a run's laws are made of: the target, its vector, and kinds of streams by name.

    Args:
        target: The model p.
        steering: The run's vector; None where nothing is steered.
        kinds: Kinds of streams besides the steered one, by the names that proposals use.
    """

    def __init__(
        self, target: Target, steering: SteeringVector | None = None,
        kinds: Mapping[str, StreamKind] | None = None,
    ) -> None:  # fmt: skip
        self.target = target
        self.steering = steering
        self.kinds: dict[str, StreamKind] = {"": Steered(), **(kinds or {})}
        self.sources = {"": Source(target, steering)}
        for kind in self.kinds.values():
            self.sources |= kind.sources

    def open(self, *, slots: int, max_new_tokens: int) -> dict[str, Stream]:
        """An empty batch of every model, by source."""
        return {
            name: one.target.stream(one.steering, slots=slots, max_new_tokens=max_new_tokens)
            for name, one in self.sources.items()
        }

    def untracked(self) -> AbstractContextManager[None]:
        """No bookkeeping for gradients: torch's inference mode, where the models bear it.

        A target says that it does not by an attribute ``plain_weights`` that is false.
        """
        bear = all(getattr(one.target, "plain_weights", True) for one in self.sources.values())
        return torch.inference_mode() if bear else torch.no_grad()

    def parts(self, key: StreamKey, prompt: tuple[int, ...]) -> tuple[Part, ...]:
        """The passes that a stream reads after a query's prompt."""
        return self.kinds[key.kind].parts(prompt, key.strength)

    def passes(self, proposal: Proposal, prompt: tuple[int, ...]) -> tuple[Part, ...]:
        """All passes that a proposal's draw begins with, the target's own first."""
        own = () if proposal.is_target else self.parts(proposal.stream, prompt)
        return Part(prompt), *own

    def own_passes(self, proposal: Proposal, prompt: tuple[int, ...]) -> int:
        """How many passes a proposal's draw takes besides the target's own."""
        return len(set(self.passes(proposal, prompt)) - {Part(prompt)})

    def check(self, key: StreamKey) -> None:
        """Refuse a stream that cannot be made.

        Raises:
            ConfigError: If its kind is not there, or it needs a steering vector.
        """
        if key.kind not in self.kinds:
            raise ConfigError(f"stream {key.kind!r} is unknown here: give it with --streams.")
        if key.kind == "" and key.strength and self.steering is None:
            raise ConfigError(
                f"strength {key.strength:g} needs a steering vector: give one, or strength 0."
            )

    def law(
        self, kind: str, target: Tensor, own: Sequence[Tensor], places: Sequence[Place],
        settings: SamplingSettings, heat: Tensor,
    ) -> Tensor:  # fmt: skip
        """Log-probabilities of the next token under a kind of stream, [n, V].

        Only tokens that the target keeps have any: no draw is spent on one that it forbids.

        Args:
            kind: Its name.
            target: The target's law, [n, V].
            own: Raw logits of its parts.
            places: Where the rows are.
            settings: Temperature and truncation of the target.
            heat: What the temperature of each row is multiplied by, [n].
        """
        scores = self.kinds[kind].law(target, own, places, settings)
        if (heat != 1.0).any():
            scores = scores / heat.to(scores)[:, None]
        if settings.top_k or settings.top_p < 1.0:
            scores = scores.masked_fill(target == -math.inf, -math.inf)
        return scores.log_softmax(-1)
