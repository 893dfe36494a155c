"""A stream of your own: any law of the next token can be a component of the mixture."""

import os
from collections.abc import Mapping, Sequence

import torch

import tailcast
from small_world import STEERING, STEPS, says_four_twice, small_model
from tailcast.sampling import Part, Place, Source
from tailcast.types import SamplingSettings


class Nudged:
    """The target with one token made likelier, until it has been said twice."""

    sources: Mapping[str, Source] = {}  # models that it reads besides the target: none

    def __init__(self, token: int, nats: float) -> None:
        self.token, self.nats = token, nats
        self.fingerprint = f"nudged {token} {nats}"

    def parts(self, prompt: tuple[int, ...], strength: float) -> tuple[Part, ...]:
        """No forward pass besides the target's own."""
        return ()

    def law(
        self, target: torch.Tensor, own: Sequence[torch.Tensor], places: Sequence[Place],
        settings: SamplingSettings,
    ) -> torch.Tensor:  # fmt: skip
        """Scores of the next token at each place."""
        scores = target.clone()
        wanted = [place.tokens.count(self.token) < 2 for place in places]
        scores[wanted, self.token] += self.nats
        return scores


samples = int(os.environ.get("EXAMPLE_SAMPLES", "2000"))
target, query = small_model(rarer=1.5), tailcast.Query.user("q", "hello")
truth = target.exact_risk(query, lambda answer: says_four_twice(query, answer) > 0, STEPS)
print(f"exact risk: {truth:.2e}")
for name, more in {
    "steering alone": {"steering": STEERING},
    "with the stream": {"steering": STEERING, "streams": {"nudged": Nudged(4, 3.0)}},
    "no steering at all": {"streams": {"nudged": Nudged(4, 3.0)}},
}.items():
    (found,) = tailcast.estimate(
        target, [query], says_four_twice, samples=samples, max_new_tokens=STEPS,
        switches=(2, 4, 6), **more,
    )  # fmt: skip
    print(f"{name}: {found.p or 0:.2e} +- {found.stderr or 0:.1e}")
