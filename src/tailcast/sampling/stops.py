"""When does a completion need no more tokens, though the model would go on?

Settled: the judge's verdict is the same whatever follows. A hit or a miss is counted as it
would have been; the estimate is the same number, for fewer tokens. (A hit that is settled
before its switch counts with the weight of its first tokens, which is the mean weight of all
that could follow: unbiased, and less noisy.)

Roulette, for judges that cannot say: a completion that opens as a refusal goes on with
probability ``rate`` and then counts 1/rate times, else it ends and counts as no hit. "No ...
however, here is how" keeps its expected share, with more variance.
"""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Stops"]


@dataclass(frozen=True)
class Stops:
    """What ends completions early.

    Attributes:
        settled: Callable (query id, text so far) -> 0 or 1 when the verdict can no longer
            change, else None.
        refused: Callable text so far -> whether it opens as a refusal; asked by roulette.
        rate: Probability with which a refusal goes on; 1 for no roulette.
        at_switch: Whether to end at the switch, for another engine to go on from there.
        not_before: Number of tokens that such a prefix has at least.
    """

    settled: Callable[[str, str], int | None] | None = None
    refused: Callable[[str], bool] | None = None
    rate: float = 1.0
    at_switch: bool = False
    not_before: int = 0

    @property
    def read_text(self) -> bool:
        """Whether anything here depends on the text."""
        return self.settled is not None or self.roulette

    @property
    def roulette(self) -> bool:
        """Whether refusals are followed up by chance only."""
        return self.refused is not None and self.rate < 1.0

    def signs(self, query_id: str, text: str) -> tuple[bool, bool]:
        """Whether a text so far is settled, and whether it opens as a refusal."""
        text = text.rstrip("\ufffd")  # the beginning of a character
        settled = self.settled is not None and self.settled(query_id, text) is not None
        refused = self.roulette and self.refused is not None and self.refused(text)
        return settled, refused
