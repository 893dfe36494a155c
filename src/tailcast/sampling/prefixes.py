"""Equal prefixes are computed once, and whoever finds no slot waits without losing work.

Draws of one query begin alike: a refusal has a handful of likely forms, so a thousand
draws visit a few hundred distinct prefixes. A prefix under a strength is one slot of the
model's stream, whichever draws stand on it. When draws part, one branch inherits the slot
and the others start from a copy of its state; when slots run out, that copy waits.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tailcast.errors import NumericsError
from tailcast.sampling.kinds import Part
from tailcast.types import Stream

__all__ = ["Prefix", "PrefixTree", "after", "check_laws"]


@dataclass(eq=False, slots=True)
class Prefix:
    """A prompt and the tokens drawn so far, in one model's pass."""

    query_id: str
    part: Part
    token: int  # the last one, which a step pushes
    parent: "Prefix | None" = None  # until a step has computed this prefix for all who want it
    slot: int = -1  # in the step just made
    state: Any = None  # of the stream after this prefix, while branches wait for it
    branches: dict[int, "Prefix"] = field(default_factory=dict)

    def then(self, token: int) -> "Prefix":
        """This prefix and one more token."""
        if token not in self.branches:
            self.branches[token] = Prefix(self.query_id, self.part, token, self)
        return self.branches[token]


class PrefixTree:
    """Steps models along all prefixes that are wanted, as many at a time as there are slots.

    Args:
        streams: An empty batch of each model, by source; the target's is "".
        slots: Prefixes of a step, of all models together.

    Attributes:
        forwards: Token forwards made, by query; a prompt's tokens but its last one apart.
    """

    def __init__(self, streams: Mapping[str, Stream], slots: int) -> None:
        self.streams = streams
        self.slots = slots
        self.forwards: Counter[str] = Counter()
        self._roots: dict[tuple[str, Part], Prefix] = {}
        self._open: dict[str, list[Prefix]] = {source: [] for source in streams}
        self._logits: dict[str, Tensor] = {}

    def root(self, query_id: str, part: Part) -> Prefix:
        """The empty response to a query, in a model's pass."""
        return self._roots.setdefault((query_id, part), Prefix(query_id, part, part.prompt[-1]))

    def logits(self, prefixes: Sequence[Prefix]) -> Tensor:
        """A copy of what the last step gave after some prefixes of one model, [n, V]."""
        return self._logits[prefixes[0].part.source][[prefix.slot for prefix in prefixes]]

    def step(self, claims: Sequence[Sequence[Prefix]]) -> tuple[list[int], Tensor]:
        """Compute the next-token logits of prefixes.

        Args:
            claims: All that is still to be done: the prefixes that each draw stands on, none
                of them longer than ``slots``. Earlier ones are served first.

        Returns:
            The claims that were served, by index, and the target's logits; the other claims
            are to be made again. :meth:`logits` has those of all models.
        """
        wanted: dict[Prefix, None] = {}
        later: set[Prefix] = set()
        served = []
        for index, prefixes in enumerate(claims):
            new = [prefix for prefix in prefixes if prefix not in wanted]
            if len(wanted) + len(new) > self.slots:
                later.update(prefixes)
                continue
            wanted.update(dict.fromkeys(new))
            served.append(index)
        self._logits.clear()  # before there are new ones, which then take their place in memory
        for source, stream in self.streams.items():
            mine = [prefix for prefix in wanted if prefix.part.source == source]
            waiting = {prefix for prefix in later if prefix.part.source == source}
            seated = self._open[source] = _seat(stream, self._open[source], mine, waiting)
            if seated:
                tokens = torch.tensor([prefix.token for prefix in seated], dtype=torch.int64)
                self._logits[source] = stream.push(tokens)
            self.forwards.update(prefix.query_id for prefix in seated)
        return served, self._logits[""]


def _seat(
    stream: Stream, open_now: Sequence[Prefix], wanted: Sequence[Prefix], later: set[Prefix]
) -> list[Prefix]:
    """Give every wanted prefix the slot of its parent, or a new one with a copy of it."""
    heirs: dict[int, Prefix] = {}
    copies = []
    for prefix in wanted:
        parent = prefix.parent
        if parent is not None and parent.slot >= 0 and parent.slot not in heirs:
            heirs[parent.slot] = prefix
        else:
            copies.append(prefix)
    for prefix in (*copies, *later):
        parent = prefix.parent
        if parent is not None and parent.state is None:
            assert parent.slot >= 0, "a claim was left out of the step before"
            parent.state = stream.save(parent.slot)
    order = stream.close([slot for slot in range(len(open_now)) if slot not in heirs])
    for left in open_now:
        left.slot = -1
    for prefix in copies:
        state = prefix.parent.state if prefix.parent else None
        stream.open(prefix.part.prompt, prefix.part.strength, state)
    seated = [*(heirs[slot] for slot in order), *copies]
    for slot, prefix in enumerate(seated):
        prefix.slot = slot
        if prefix.parent is not None:
            prefix.parent.branches.pop(prefix.token, None)
        if prefix not in later:
            prefix.parent = None
    return seated


def after(logits: Tensor, prefixes: Sequence[Prefix]) -> Tensor:
    """Logits of some prefixes of a step, [n, V]: a view where their slots follow one another.

    It is to be read only: kinds of streams, which may be a user's, get :meth:`PrefixTree.logits`.

    Args:
        logits: Those of all slots.
        prefixes: n of them.
    """
    slots = [prefix.slot for prefix in prefixes]
    first, end = slots[0], slots[0] + len(slots)
    return logits[first:end] if slots == [*range(first, end)] else logits[slots]


def check_laws(laws: Tensor, prefixes: Sequence[Prefix]) -> None:
    """Refuse logits that could not be normalised, which show as rows of NaN.

    Args:
        laws: Probabilities after each prefix or their logarithms, [n, V].
        prefixes: n of them.

    Raises:
        NumericsError: If a row of logits held NaN or +inf, or nothing but -inf.
    """
    bad = laws[:, 0].isnan()
    if bad.any():
        prefix = prefixes[int(bad.nonzero()[0])]
        raise NumericsError(
            f"the model returned non-finite logits for query {prefix.query_id!r} at strength "
            f"{prefix.part.strength:g}: lower the strength, or load the model with dtype float32."
        )
