"""What log-probabilities would other streams have given to completions already drawn?

Teacher forcing by stepping: the given tokens are pushed through the same models that
draw, one slot for the target and one for whatever else a stream reads. In bf16 a one-pass scoring
differs from stepping by 0.04 a token (method.md section 9), so every number that enters
one weight comes from one call of :func:`score`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tailcast.proposals import StreamKey
from tailcast.sampling.kinds import Part, Place, Streams
from tailcast.sampling.laws import batched, target_law
from tailcast.sampling.prefixes import Prefix, PrefixTree, check_laws
from tailcast.types import SamplingSettings

__all__ = ["score"]


def score(
    laws: Streams,
    prompts: Sequence[tuple[int, ...]],
    completions: Sequence[Sequence[int]],
    streams: Sequence[StreamKey],
    settings: SamplingSettings,
    *,
    tokens: int,
    slots: int = 128,
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Per-token log-probabilities of given completions under several streams.

    Args:
        laws: The target, and what other streams are made of.
        prompts: Prompt tokens of each completion, n of them.
        completions: Response tokens, end token included, n of them.
        streams: What to score under.
        settings: Temperature and truncation of the target.
        tokens: Only the first this many tokens are scored: the largest switch.
        slots: Rows of the batch.

    Returns:
        ``token_logp`` [n, tokens] and ``token_logs`` [n, streams, tokens]; 0 past the
        end of a completion. -inf marks tokens that the target's truncation forbids. And the
        number of token forwards that it took.
    """
    for key in streams:
        laws.check(key)
    given = [
        (prompt, tuple(completion)[:tokens])
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    passes = {one: _passes(laws, streams, one) for one in dict.fromkeys(prompts)}
    slots = max([slots, *(len(parts) for parts, _ in passes.values())])
    tree = PrefixTree(laws.open(slots=slots, max_new_tokens=max(tokens, 1)), slots)
    rows = {
        one: _Scored.begin(tree, *one, *passes[one[0]]) for one in dict.fromkeys(given) if one[1]
    }
    open_rows = list(rows.values())
    with laws.untracked():
        while open_rows:
            served, logits = tree.step([row.prefixes for row in open_rows])
            _read(tree, laws, [open_rows[index] for index in served], logits, settings, streams)
            open_rows = [row for row in open_rows if len(row.logs) < len(row.tokens)]
    table = np.zeros((len(given), 1 + len(streams), tokens))
    found = {one: np.array(row.logs).T for one, row in rows.items()}
    for line, one in zip(table, given, strict=True):
        if one in found:
            line[:, : len(one[1])] = found[one]
    return table[:, 0], table[:, 1:], tree.forwards.total()


_Reads = tuple[tuple[int, ...], ...]
"""Which of a row's passes every stream reads, in its order."""


def _passes(
    laws: Streams, streams: Sequence[StreamKey], prompt: tuple[int, ...]
) -> tuple[tuple[Part, ...], _Reads]:
    """All distinct passes of the streams, the target's first, and which of them each reads."""
    parts = [laws.parts(key, prompt) for key in streams]
    every = tuple(dict.fromkeys([Part(prompt), *(one for some in parts for one in some)]))
    return every, tuple(tuple(every.index(one) for one in some) for some in parts)


@dataclass
class _Scored:
    """A completion under way: where it stands in every pass, the target's first."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    prefixes: tuple[Prefix, ...]
    reads: _Reads
    logs: list[Sequence[float]] = field(default_factory=list)

    @classmethod
    def begin(
        cls, tree: PrefixTree, prompt: tuple[int, ...], tokens: tuple[int, ...],
        parts: Sequence[Part], reads: _Reads,
    ) -> "_Scored":  # fmt: skip
        """Before the first token."""
        roots = tuple(tree.root(f"scored {prompt}", part) for part in parts)
        return cls(prompt, tokens, roots, reads)

    @property
    def place(self) -> Place:
        """Where the next token's law is asked for."""
        return Place(self.prompt, self.tokens[: len(self.logs)])

    def advance(self, token: int, values: Sequence[float]) -> None:
        """Keep the log-probabilities of a token and go on to the next one."""
        self.logs.append(values)
        if len(self.logs) < len(self.tokens):
            self.prefixes = tuple(prefix.then(token) for prefix in self.prefixes)


def _read(
    tree: PrefixTree, laws: Streams, rows: Sequence[_Scored], logits: Tensor,
    settings: SamplingSettings, streams: Sequence[StreamKey],
) -> None:  # fmt: skip
    """Log-probabilities of every row's next token, and one step on."""
    shared: dict[tuple[Prefix, ...], list[_Scored]] = {}
    for row in rows:
        shared.setdefault(row.prefixes, []).append(row)
    for some in batched(shared, logits):
        firsts = [shared[prefixes][0] for prefixes in some]
        readers = [row for prefixes in some for row in shared[prefixes]]
        at = [number for number, prefixes in enumerate(some) for _ in shared[prefixes]]
        tokens = [row.tokens[len(row.logs)] for row in readers]
        plain = [row.prefixes[0] for row in firsts]
        target = target_law(tree.logits(plain), settings)
        check_laws(target, plain)
        columns, places = [target[at, tokens].tolist()], [row.place for row in firsts]
        for number, key in enumerate(streams):
            read = zip(*([row.prefixes[at] for at in row.reads[number]] for row in firsts))
            parts = list(read)
            heat = target.new_full((len(firsts),), key.heat)
            own = [tree.logits(one) for one in parts]
            law = laws.law(key.kind, target, own, places, settings, heat)
            check_laws(law, parts[-1] if parts else plain)
            columns.append(law[at, tokens].tolist())
        for row, token, values in zip(readers, tokens, zip(*columns, strict=True), strict=True):
            row.advance(token, values)
