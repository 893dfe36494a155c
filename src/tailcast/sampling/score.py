"""What log-probabilities would other streams have given to completions already drawn?

Teacher forcing by stepping: the given tokens are pushed through the same stream that
draws, one slot for the target and one for each strength. In bf16 a one-pass scoring
differs from stepping by 0.04 a token (method.md section 9), so every number that enters
one weight comes from one call of :func:`score`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tailcast.proposals import StreamKey
from tailcast.sampling.laws import batched, steered_law, target_law
from tailcast.sampling.prefixes import Prefix, PrefixTree, check_laws
from tailcast.types import SamplingSettings, SteeringVector, Target

__all__ = ["score"]


def score(
    target: Target,
    prompts: Sequence[tuple[int, ...]],
    completions: Sequence[Sequence[int]],
    streams: Sequence[StreamKey],
    settings: SamplingSettings,
    *,
    steering: SteeringVector | None,
    tokens: int,
    slots: int = 128,
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Per-token log-probabilities of given completions under several streams.

    Args:
        target: The model p.
        prompts: Prompt tokens of each completion, n of them.
        completions: Response tokens, end token included, n of them.
        streams: Strengths and heats to score at.
        settings: Temperature and truncation of the target.
        steering: The steering operator; may be None when no strength is above 0.
        tokens: Only the first this many tokens are scored: the largest switch.
        slots: Rows of the batch.

    Returns:
        ``token_logp`` [n, tokens] and ``token_logs`` [n, streams, tokens]; 0 past the
        end of a completion. -inf marks tokens that the target's truncation forbids. And the
        number of token forwards that it took.
    """
    every = (StreamKey(0.0), *streams)
    slots = max(slots, len(every))
    tree = PrefixTree(target.stream(steering, slots=slots, max_new_tokens=max(tokens, 1)), slots)
    given = [list(completion)[:tokens] for completion in completions]
    rows = [
        _Scored(known, tuple(tree.root(f"scored {prompt}", prompt, one.strength) for one in every))
        for prompt, known in zip(prompts, given, strict=True)
        if known
    ]
    open_rows = rows
    with torch.no_grad():
        while open_rows:
            served, logits = tree.step([row.prefixes for row in open_rows])
            _read([open_rows[index] for index in served], logits, settings, streams)
            open_rows = [row for row in open_rows if len(row.logs) < len(row.tokens)]
    table = np.zeros((len(given), len(every), tokens))
    read = iter(rows)
    for line, known in zip(table, given, strict=True):
        if known:
            line[:, : len(known)] = np.array(next(read).logs).T
    return table[:, 0], table[:, 1:], tree.forwards.total()


@dataclass
class _Scored:
    """A completion under way: where it stands in every stream, the target's first."""

    tokens: list[int]
    prefixes: tuple[Prefix, ...]
    logs: list[Sequence[float]] = field(default_factory=list)

    def advance(self, token: int, values: Sequence[float]) -> None:
        """Keep the log-probabilities of a token and go on to the next one."""
        self.logs.append(values)
        if len(self.logs) < len(self.tokens):
            self.prefixes = tuple(prefix.then(token) for prefix in self.prefixes)


def _read(
    rows: Sequence[_Scored], logits: Tensor, settings: SamplingSettings,
    streams: Sequence[StreamKey],
) -> None:  # fmt: skip
    """Log-probabilities of every row's next token, and one step on."""
    shared: dict[tuple[Prefix, ...], list[_Scored]] = {}
    for row in rows:
        shared.setdefault(row.prefixes, []).append(row)
    for places in batched(shared, logits):
        readers = [row for place in places for row in shared[place]]
        at = [number for number, place in enumerate(places) for _ in shared[place]]
        tokens = [row.tokens[len(row.logs)] for row in readers]
        plain, *others = zip(*places, strict=True)
        target = target_law(logits[[one.slot for one in plain]], settings)
        check_laws(target, plain)
        columns = [target[at, tokens].tolist()]
        for stream, steered in zip(streams, others, strict=True):
            heat = target.new_full((len(steered),), stream.heat)
            law = steered_law(logits[[one.slot for one in steered]], settings, target, heat)
            check_laws(law, steered)
            columns.append(law[at, tokens].tolist())
        for row, token, values in zip(readers, tokens, zip(*columns, strict=True), strict=True):
            row.advance(token, values)
