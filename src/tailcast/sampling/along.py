"""The target's law at every place that given completions pass through."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from tailcast.sampling.kinds import Part, Place, Streams
from tailcast.sampling.laws import target_law
from tailcast.sampling.prefixes import PrefixTree
from tailcast.types import SamplingSettings, Target

__all__ = ["laws_along"]


def laws_along(
    target: Target, completions: Sequence[Place], settings: SamplingSettings, *, tokens: int,
    slots: int = 128,
) -> Iterator[tuple[Place, Tensor]]:  # fmt: skip
    """Every distinct place before a token of some completions, with the target's law there.

    Args:
        target: The model p.
        completions: Prompts and completions.
        settings: Temperature and truncation.
        tokens: Only so many first tokens are looked at.
        slots: Rows of the batch.

    Yields:
        The place, and log-probabilities of the next token there, [V]; a place may come twice
        where completions that share it are far apart.
    """
    laws = Streams(target)
    for first in range(0, len(completions), slots):
        tree = PrefixTree(laws.open(slots=slots, max_new_tokens=max(tokens, 1)), slots)
        standing = {
            one: tree.root(f"along {one.prompt}", Part(one.prompt))
            for one in completions[first : first + slots]
            if one.tokens
        }
        for position in range(tokens):
            places = {at: one for one, at in standing.items()}
            if not places:
                break
            with laws.untracked():
                tree.step([[at] for at in places])
                found = target_law(tree.logits(list(places)), settings)
            for one, law in zip(places.values(), found, strict=True):
                yield Place(one.prompt, one.tokens[:position]), law
            standing = {
                one: at.then(one.tokens[position])
                for one, at in standing.items()
                if len(one.tokens) > position + 1
            }
