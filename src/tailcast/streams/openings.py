"""Openings that are known to lead somewhere: hits so far, or what is put in the model's mouth.

A trie of openings with weights, which gives way to the target where it knows little: after
tokens that c effective openings went through, of which c_a went on with token a,

    s(a) = (1 - share) c_a / c + share * p(a),   share = reserve / (c + reserve).

It reads no model beside the target's own law, so a draw costs what a draw of the target does.
A query's own openings are backed by those of all queries, those by the target. The reserves are
those under which hits left out were likeliest on the embedded model, flat between 3 and 30.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tailcast.errors import ConfigError
from tailcast.sampling.kinds import Part, Place, Source, Sparse
from tailcast.types import SamplingSettings

__all__ = ["Hit", "Openings"]

_RESERVES = 10.0, 3.0  # of all queries' openings, of a query's own
_NOTHING = 1e-9  # openings that rounding leaves when all are taken away


class Hit(NamedTuple):
    """A completion that hit.

    Attributes:
        prompt: Prompt tokens of its query.
        tokens: Its first tokens, or all.
        weight: w*h, over the sum of its query's: effective hits are made of it.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    weight: float


@dataclass
class _Node:
    """Some first tokens, and how many openings go on with which token."""

    counts: dict[int, float] = field(default_factory=dict)
    after: dict[int, "_Node"] = field(default_factory=dict)

    def add(self, tokens: Iterable[int], count: float) -> None:
        node = self
        for token in tokens:
            node.counts[token] = node.counts.get(token, 0.0) + count
            node = node.after.setdefault(token, _Node())

    def find(self, tokens: Iterable[int]) -> "_Node | None":
        node: _Node | None = self
        for token in tokens:
            node = node.after.get(token) if node else None
        return node


class Openings:
    """A stream that follows openings.

    Args:
        hits: Openings with weights. Those of a query count as many as their effective number.
        reserves: Effective openings that the law behind is worth, for the openings of all queries
            and for a query's own: the smaller, the bolder.
        least: Least share of the law behind.
    """

    sources: Mapping[str, Source] = {}

    def __init__(
        self, hits: Sequence[Hit] = (), *, reserves: tuple[float, float] = _RESERVES,
        least: float = 0.0,
    ) -> None:  # fmt: skip
        self.reserves = reserves
        self.least = least
        self.pooled = _Node()
        self.own: dict[tuple[int, ...], _Node] = {}
        self.effective: dict[tuple[int, ...], float] = {}
        by_prompt: dict[tuple[int, ...], list[Hit]] = {}
        for hit in hits:
            by_prompt.setdefault(hit.prompt, []).append(hit)
        for prompt, mine in by_prompt.items():
            weights = np.array([hit.weight for hit in mine])
            effective = float(weights.sum() / (weights**2).sum())
            self.effective[prompt] = effective
            for hit in mine:
                self.own.setdefault(prompt, _Node()).add(hit.tokens, hit.weight * effective)
                self.pooled.add(hit.tokens, hit.weight * effective)
        self.fingerprint = sha256(repr((reserves, least, list(hits))).encode()).hexdigest()[:16]

    @classmethod
    def prefilled(cls, openings: Sequence[tuple[int, ...]], *, share: float = 0.1) -> "Openings":
        """Openings for all queries alike, each as likely; a share of every token is the target's.

        Raises:
            ConfigError: If one is empty, or there is none.
        """
        if not openings or not all(openings):
            raise ConfigError("an opening has no tokens: write one opening a line.")
        found = cls(reserves=(0.0, 0.0), least=share)
        for tokens in openings:
            found.pooled.add(tokens, 1.0)
        found.fingerprint = sha256(repr((share, openings)).encode()).hexdigest()[:16]
        return found

    def refitted(self, hits: Sequence[Hit]) -> "Openings":
        """The same kind of stream from other hits."""
        return Openings(hits, reserves=self.reserves, least=self.least)

    def ratio_without(self, hit: Hit, logp: NDArray[np.float64]) -> float:
        """Log q - log p of one of the hits that the law was made of, were it not among them.

        Args:
            hit: The hit, as it was given.
            logp: Log-probabilities of its tokens under the target, [len(hit.tokens)].
        """
        own, total = hit.weight * self.effective.get(hit.prompt, 0.0), 0.0
        nodes = self._roots(hit.prompt)
        for token, log in zip(hit.tokens, logp, strict=True):
            law = np.exp(log)
            for node, reserve in nodes:
                count = sum(node.counts.values()) - own
                if count > _NOTHING:
                    share = self._share(reserve, count)
                    ahead = max(node.counts.get(token, 0.0) - own, 0.0)
                    law = share * law + (1 - share) * ahead / count
            total += float(np.log(law) - log)
            nodes = [(one.after[token], two) for one, two in nodes if token in one.after]
        return total

    def parts(self, prompt: tuple[int, ...], strength: float) -> tuple[Part, ...]:
        """None: the target's own law is all that it reads."""
        return ()

    def law(
        self, target: Tensor, own: Sequence[Tensor], places: Sequence[Place],
        settings: SamplingSettings,
    ) -> Tensor:  # fmt: skip
        """Log-probabilities after each place."""
        mass = target.exp()
        for row, place in zip(mass, places, strict=True):
            rest, added = self.sparse(place)
            if added:
                row *= rest
                row[list(added)] += row.new_tensor(list(added.values()))
        return mass.log()

    def sparse(self, place: Place) -> Sparse:
        """What openings did after a place, in shares, and the share of the target."""
        rest, added = 1.0, dict[int, float]()
        for root, reserve in self._roots(place.prompt):
            node = root.find(place.tokens)
            if node is None or not node.counts:
                continue
            total = sum(node.counts.values())
            share = self._share(reserve, total)
            rest *= share
            added = {token: share * mass for token, mass in added.items()}
            for token, count in node.counts.items():
                added[token] = added.get(token, 0.0) + (1 - share) * count / total
        return Sparse(rest, added)

    def _roots(self, prompt: tuple[int, ...]) -> list[tuple[_Node, float]]:
        """The openings of all queries and those of one, with their reserves."""
        mine = self.own.get(prompt)
        return [(self.pooled, self.reserves[0]), *([(mine, self.reserves[1])] if mine else [])]

    def _share(self, reserve: float, count: float) -> float:
        """Share of the law behind, where so many effective openings went."""
        return max(self.least, reserve / (count + reserve))
