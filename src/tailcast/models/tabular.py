"""A model small enough to enumerate, behind the same seam as the large ones.

Its law of the next token depends on the position and the previous token, through a table
of logits; steering adds ``strength`` times a second table. Every completion can be listed
with its exact probability, so every estimator can be held against the truth.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tailcast.models.slots import compacted
from tailcast.types import Query, SteeringVector

__all__ = ["TabularTarget"]


@dataclass(frozen=True, eq=False)
class TabularTarget:
    """An enumerable target.

    Attributes:
        table: Logits by position, previous token and next token, [T, V, V]; the previous
            token of position 0 is the prompt's last one.
        shift: What strength 1 adds to the logits, same shape.
        end: The token that ends a response.
    """

    table: NDArray[np.float64]
    shift: NDArray[np.float64]
    end: int = 0

    @property
    def fingerprint(self) -> str:
        """Digest of both tables."""
        return "tabular:" + sha256(self.table.tobytes() + self.shift.tobytes()).hexdigest()[:16]

    @property
    def end_tokens(self) -> frozenset[int]:
        """The one end token."""
        return frozenset({self.end})

    @property
    def unembedding(self) -> torch.Tensor:
        """Its logits are its hidden state, so the identity, [V, V]."""
        return torch.eye(self.table.shape[-1])

    def encode_response(self, text: str) -> tuple[int, ...]:
        """Tokens of what :meth:`decode` gave."""
        return tuple(int(token) for token in text.split())

    def encode(self, query: Query) -> tuple[int, ...]:
        """One token: the digits of the prompt modulo the vocabulary."""
        return (sum(map(ord, query.prompt)) % self.table.shape[1],)

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens as numbers with blanks between, the end token left out."""
        return " ".join(str(token) for token in tokens if token != self.end)

    def stream(
        self, steering: SteeringVector | None, *, slots: int, max_new_tokens: int
    ) -> "_TabularStream":
        """An empty batch; the steering vector is the table's own, only strengths count."""
        return _TabularStream(self)

    def completions(
        self, prompt: tuple[int, ...], max_new_tokens: int, *, strength: float = 0.0
    ) -> Iterator[tuple[tuple[int, ...], float]]:
        """Every completion of at most ``max_new_tokens`` tokens with its log-probability."""
        table = self.table + strength * self.shift
        law = table - np.logaddexp.reduce(table, axis=-1, keepdims=True)

        def extend(tokens: tuple[int, ...], logp: float) -> Iterator[tuple[tuple[int, ...], float]]:
            if len(tokens) == max_new_tokens or (tokens and tokens[-1] == self.end):
                yield tokens, logp
                return
            previous = tokens[-1] if tokens else prompt[-1]
            for token, step in enumerate(law[len(tokens), previous]):
                yield from extend((*tokens, token), logp + float(step))

        return extend((), 0.0)

    def exact_risk(self, query: Query, hit: Callable[[str], bool], max_new_tokens: int) -> float:
        """QRISK by enumeration: the probability of all completions that are hits."""
        prompt = self.encode(query)
        listed = self.completions(prompt, max_new_tokens)
        return float(sum(np.exp(logp) for tokens, logp in listed if hit(self.decode(tokens))))


class _TabularStream:
    """Slots of a tabular target: a strength, a position and a previous token each."""

    def __init__(self, target: TabularTarget) -> None:
        self.target = target
        self.state: list[tuple[float, int, int]] = []

    def open(self, prompt: tuple[int, ...], strength: float, state: Any = None) -> None:
        self.state.append(state or (strength, -1, 0))

    def save(self, slot: int) -> Any:
        return self.state[slot]

    def close(self, slots: Sequence[int]) -> list[int]:
        order = compacted(len(self.state), slots)
        self.state = [self.state[slot] for slot in order]
        return order

    def push(self, tokens: torch.Tensor) -> torch.Tensor:
        self.state = [
            (strength, position + 1, token)
            for (strength, position, _), token in zip(self.state, tokens.tolist(), strict=True)
        ]
        strengths, positions, previous = (np.array(column) for column in zip(*self.state))
        rows = self.target.table[positions, previous]
        return torch.from_numpy(rows + strengths[:, None] * self.target.shift[positions, previous])
