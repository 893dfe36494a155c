"""How near to a hit is a prefix? Two scores for splitting, each a function of the prefix alone.

A score decides how much noise an estimate has, never what it means.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tailcast.errors import ConfigError
from tailcast.models import HuggingFaceTarget
from tailcast.models.projection import ProjectedStream
from tailcast.proposals import Proposal
from tailcast.sampling.draw import DrawRequest, draw
from tailcast.sampling.laws import batched, target_law
from tailcast.sampling.stops import Stops
from tailcast.types import SamplingSettings, SteeringVector, Stream, Target

__all__ = ["OpeningOdds", "Projection", "usual_tokens"]

_OPENING = 8  # tokens of a completion that count as its opening
_DRAWS = 64
_USUAL = 1 / 16  # of those draws have a usual token in their openings
_OFF = 4.0  # log-odds from which a prefix counts as off the track, and no more so than others


@dataclass(frozen=True)
class Projection:
    """Projection of the last residual state at the steering layer on the steering vector.

    Attributes:
        vector: The steering vector; 1 is one of its lengths.
    """

    vector: SteeringVector
    cap: float = math.inf

    def usual(self, query_id: str) -> Sequence[int]:
        """None: a projection says nothing of the next token's random number."""
        return ()

    def stream(self, target: Target, *, slots: int, max_new_tokens: int) -> ProjectedStream:
        """A stream that keeps the projections of its last step.

        Raises:
            ConfigError: If the target has no states to project.
        """
        if not isinstance(target, HuggingFaceTarget):
            raise ConfigError(
                f"score steering needs the states of a transformers model, and {target.fingerprint}"
                " has none: use --score usual."
            )
        return ProjectedStream(target, self.vector, slots, max_new_tokens)

    def read(
        self, stream: Any, prefixes: Sequence[tuple[str, tuple[int, ...]]], slots: Sequence[int],
        logits: Tensor,
    ) -> list[float]:  # fmt: skip
        """See :class:`tailcast.sampling.splitting.PrefixScore`."""
        values: list[float] = stream.projections[list(slots)].tolist()
        return values


@dataclass(frozen=True)
class OpeningOdds:
    """Log-odds that the next token is none of those with which the target usually opens.

    A model that refuses nearly always opens nearly always as a refusal. On that track its next
    token is a usual one, off it seldom. From 4 on (98% for another token) all prefixes are equal:
    how surely it stays off says no more of hits, and a swarm that is off whole has ended. The
    score rises within tokens, because a single one often decides.

    Attributes:
        tokens: Usual tokens by query id, from :func:`usual_tokens`.
        settings: Temperature and truncation.
        cap: Where all scores are equal.
    """

    tokens: Mapping[str, Sequence[int]]
    settings: SamplingSettings
    cap: float = _OFF

    def usual(self, query_id: str) -> Sequence[int]:
        """The usual tokens."""
        return self.tokens[query_id]

    def stream(self, target: Target, *, slots: int, max_new_tokens: int) -> Stream:
        """The target's own."""
        return target.stream(None, slots=slots, max_new_tokens=max_new_tokens)

    def read(
        self, stream: Any, prefixes: Sequence[tuple[str, tuple[int, ...]]], slots: Sequence[int],
        logits: Tensor,
    ) -> list[float]:  # fmt: skip
        """See :class:`tailcast.sampling.splitting.PrefixScore`."""
        values = []
        places = list(zip(prefixes, slots, strict=True))
        for some in batched(places, logits):
            laws = target_law(logits[[slot for _, slot in some]], self.settings).double()
            for ((query_id, _), _), law in zip(some, laws, strict=True):
                usual = list(self.tokens[query_id])
                inside = float(law[usual].logsumexp(-1))
                law[usual] = -math.inf
                outside = float(law.logsumexp(-1))
                values.append(outside - inside if outside > -math.inf else -math.inf)
        return values


def usual_tokens(
    target: Target, prompts: Mapping[str, tuple[int, ...]], settings: SamplingSettings, *,
    seed: str, slots: int, stops: Stops | None = None,
) -> tuple[dict[str, list[int]], dict[str, int]]:  # fmt: skip
    """The tokens in the openings of a few draws of the target, apart from all particles.

    Args:
        target: The model p.
        prompts: Prompt tokens by query id.
        settings: Temperature, truncation and length limit.
        seed: Name of the draws' random numbers.
        slots: Rows of the batch.
        stops: What ends completions before the model does.

    Returns:
        Tokens that at least four of 64 draws have among their first eight, and the token
        forwards that it took, both by query id.
    """
    short = settings.model_copy(update={"max_new_tokens": min(_OPENING, settings.max_new_tokens)})
    requests = [
        DrawRequest(id, prompt, Proposal.target(), number, f"{seed}/{id}/openings/{number}")
        for id, prompt in prompts.items()
        for number in range(_DRAWS)
    ]
    batches = draw(target, requests, short, slots=slots, stops=stops)
    usual = {}
    for batch in batches:
        found = Counter(token for row in batch.tokens.tolist() for token in {*row} - {-1})
        least = min(_USUAL * _DRAWS, max(found.values()))
        usual[batch.query_id] = sorted(token for token, n in found.items() if n >= least)
    return usual, {batch.query_id: batch.token_forwards for batch in batches}
