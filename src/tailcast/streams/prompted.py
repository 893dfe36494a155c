"""The target after another prompt: a system prompt that asks for it, or the request reworded.

It reads the target itself, with a prompt cache of its own, so it costs one pass a token. What
it says is scored by the target after the query's own prompt, as for every stream.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from hashlib import sha256

from torch import Tensor

from tailcast.errors import ConfigError
from tailcast.sampling.kinds import Part, Place, Source, Sparse
from tailcast.sampling.laws import scores_of
from tailcast.types import Query, SamplingSettings, Target

__all__ = ["Prompted"]

_SLOT = "{query}"


class Prompted:
    """A stream of the target under another prompt.

    Args:
        target: The target, for its chat format.
        queries: The queries of the run.
        text: A system prompt, which takes the place of the run's and of the query's own; or,
            where it holds ``{query}``, what the last message is reworded to.

    Raises:
        ConfigError: If the text is empty.
        ModelError: If the chat format has no place for it.
    """

    def __init__(self, target: Target, queries: Sequence[Query], text: str) -> None:
        if not text.strip():
            raise ConfigError("the text of a prompted stream is empty: write prompt:TEXT.")
        self.sources: Mapping[str, Source] = {}
        self.fingerprint = sha256(text.encode()).hexdigest()[:16]
        other = target if _SLOT in text else _bare(target)
        self.prompts = {
            target.encode(query): other.encode(_reworded(query, text)) for query in queries
        }

    def parts(self, prompt: tuple[int, ...], strength: float) -> tuple[Part, ...]:
        """One pass, after the other prompt."""
        return (Part(self.prompts[prompt]),)

    def law(
        self, target: Tensor, own: Sequence[Tensor], places: Sequence[Place],
        settings: SamplingSettings,
    ) -> Tensor:  # fmt: skip
        """Its logits over the temperature."""
        return scores_of(own[0], settings)

    def sparse(self, place: Place) -> Sparse:
        """Nothing but the law after the other prompt."""
        return Sparse(1.0, {})


def _bare(target: Target) -> Target:
    """The target's chat format without the run's system prompt."""
    if getattr(target, "system_prompt", None) is None:
        return target
    bare = copy(target)
    vars(bare)["system_prompt"] = None
    return bare


def _reworded(query: Query, text: str) -> Query:
    *before, last = query.messages
    if _SLOT in text:
        said = {**last, "content": text.replace(_SLOT, last["content"])}
        return replace(query, messages=(*before, said))
    others = [message for message in before if message["role"] != "system"]
    return replace(query, messages=({"role": "system", "content": text}, *others, last))
