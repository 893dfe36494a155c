"""The target tilted along the difference of two streams: log q = log p + beta (log a - log b).

With a the target under an unsafe prompt and b the target, beta above 1 exaggerates what the
prompt does (contrastive decoding); a small beta is a mild push. It costs the passes of both.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tailcast.errors import ConfigError
from tailcast.sampling.kinds import Part, Place, Source, StreamKind
from tailcast.types import SamplingSettings

__all__ = ["Tilted"]


class Tilted:
    """A stream along the difference of two others.

    Args:
        beta: How far; 0 is the target.
        towards: The stream a.
        away: The stream b; the target if None.

    Raises:
        ConfigError: If beta is not a finite number.
    """

    def __init__(self, beta: float, towards: StreamKind, away: StreamKind | None = None) -> None:
        if not -float("inf") < beta < float("inf"):
            raise ConfigError(f"tilt {beta} is not a finite number: 0 is the target, try 1.5.")
        self.beta = beta
        self.towards = towards
        self.away = away
        self.sources: Mapping[str, Source] = {**towards.sources, **(away.sources if away else {})}
        self.fingerprint = f"{beta} {towards.fingerprint} {away.fingerprint if away else ''}"

    def parts(self, prompt: tuple[int, ...], strength: float) -> tuple[Part, ...]:
        """The passes of a, then those of b; the strength is for both."""
        behind = self.away.parts(prompt, strength) if self.away else ()
        return *self.towards.parts(prompt, strength), *behind

    def law(
        self, target: Tensor, own: Sequence[Tensor], places: Sequence[Place],
        settings: SamplingSettings,
    ) -> Tensor:  # fmt: skip
        """Scores of the tilted law; a token that a or b rules out is ruled out."""
        count = len(self.towards.parts(places[0].prompt, 0.0))
        ahead = self.towards.law(target, own[:count], places, settings).log_softmax(-1)
        behind = target
        if self.away:
            behind = self.away.law(target, own[count:], places, settings).log_softmax(-1)
        tilted = target + self.beta * (ahead - behind)
        return tilted.masked_fill(torch.isnan(tilted) | torch.isposinf(tilted), -torch.inf)
