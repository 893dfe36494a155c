"""Swarms of completions of the target, drawn token by token and split where their score rises.

The needs are a score of prefixes and the target: no proposal, no weight. All swarms of a call
go from generation to generation together, so that a forward pass serves many of them, and equal
prefixes are computed once, those of copied particles included. The random numbers of a particle
have its name; who shares a batch with it changes nothing but rounding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tailcast.errors import NumericsError
from tailcast.sampling.draw import draw_generator
from tailcast.sampling.kinds import Part, Streams
from tailcast.sampling.laws import batched, inverse_cdf, target_law
from tailcast.sampling.prefixes import Prefix, PrefixTree, after, check_laws
from tailcast.sampling.stops import Stops
from tailcast.sampling.swarm import Particle, Swarm, log_odds, sigmoid
from tailcast.types import SamplingSettings, Stream, Target

__all__ = ["PrefixScore", "SplitRequest", "Splits", "split"]


class PrefixScore(Protocol):
    """How far a prefix has come towards a hit; any function of the prefix gives no bias."""

    @property
    def cap(self) -> float:
        """All scores from here on are equal."""

    def usual(self, query_id: str) -> Sequence[int]:
        """Tokens whose opposite the score is the log-odds of; none if it is something else.

        With such a score swarms are split within tokens too, which matters where a single
        token decides: a prefix that lies one rare token off has nothing in between.
        """

    def stream(self, target: Target, *, slots: int, max_new_tokens: int) -> Stream:
        """The stream of the target that swarms are drawn with."""

    def read(
        self, stream: Any, prefixes: Sequence[tuple[str, tuple[int, ...]]], slots: Sequence[int],
        logits: Tensor,
    ) -> list[float]:  # fmt: skip
        """Scores of prefixes that the stream has just made a step to.

        Args:
            stream: What :meth:`stream` gave.
            prefixes: Query id and response tokens of each, n of them.
            slots: Where each stands in the stream, n of them.
            logits: Of the step, by slot.
        """


@dataclass(frozen=True)
class SplitRequest:
    """A swarm to draw.

    Attributes:
        query_id: Which query.
        prompt: Its prompt tokens.
        replicate: Number of the swarm within the query.
        size: N, its particles.
        floor: Where it ends, see :class:`tailcast.sampling.swarm.Swarm`.
        seed: Name of its random numbers.
    """

    query_id: str
    prompt: tuple[int, ...]
    replicate: int
    size: int
    floor: float
    seed: str


@dataclass(frozen=True)
class Splits:
    """Swarms that have ended.

    Attributes:
        swarms: One for each request.
        token_forwards: Tokens that the model was run on, by query; equal prefixes once.
    """

    swarms: tuple[Swarm, ...]
    token_forwards: dict[str, int]


def split(
    target: Target,
    requests: Sequence[SplitRequest],
    settings: SamplingSettings,
    score: PrefixScore,
    *,
    slots: int = 128,
    stops: Stops | None = None,
) -> Splits:
    """Draw swarms until each has ended.

    Args:
        target: The model p.
        requests: The swarms.
        settings: Temperature, truncation and length limit, part of what p is.
        score: Of prefixes. A prefix that comes again has the score that it had first.
        slots: Rows of the batch.
        stops: What ends completions before the model does; roulette is not played.

    Raises:
        NumericsError: If the model returns logits that are no law, or a score is NaN.
    """
    stream = score.stream(target, slots=slots, max_new_tokens=settings.max_new_tokens)
    loop = _Loop(target, settings, score, PrefixTree({"": stream}, slots), stops or Stops())
    swarms = [_swarm(request) for request in requests]
    young = [(one, request) for swarm, request in zip(swarms, requests) for one in swarm.alive]
    with Streams(target).untracked():
        while young:
            loop.finish([_Row(one, _root(loop.tree, request), request) for one, request in young])
            young = [
                (one, request)
                for swarm, request in zip(swarms, requests)
                if not swarm.ended
                for one in swarm.next_generation()
            ]
    return Splits(tuple(swarms), dict(loop.tree.forwards))


def _swarm(request: SplitRequest) -> Swarm:
    def numbers(generation: int, place: int) -> np.random.Generator:
        return draw_generator(f"{request.seed}/{request.replicate}/{generation}/{place}")

    return Swarm(request.size, request.floor, numbers)


def _root(tree: PrefixTree, request: SplitRequest) -> Prefix:
    return tree.root(request.query_id, Part(request.prompt))


@dataclass(eq=False)
class _Row:
    """A particle that is being drawn: it first walks the tokens that were copied."""

    particle: Particle
    place: Prefix
    request: SplitRequest
    walked: int = 0

    @property
    def key(self) -> tuple[str, tuple[int, ...]]:
        """What its score is a function of."""
        return self.request.query_id, tuple(self.particle.tokens[: self.walked])

    @property
    def walks(self) -> bool:
        """Whether its next token is a copied one."""
        return self.walked < len(self.particle.tokens)

    def advance(self) -> None:
        """Stand on the prefix that is one token longer."""
        self.place = self.place.then(self.particle.tokens[self.walked])
        self.walked += 1


class _Loop:
    """Draws particles to their ends, step after step."""

    def __init__(
        self, target: Target, settings: SamplingSettings, score: PrefixScore, tree: PrefixTree,
        stops: Stops,
    ) -> None:  # fmt: skip
        self.target = target
        self.settings = settings
        self.score = score
        self.tree = tree
        self.stops = stops
        self.known: dict[tuple[str, tuple[int, ...]], float] = {}

    def finish(self, rows: Sequence[_Row]) -> None:
        """Draw all rows to their ends."""
        open_rows = list(rows)
        while open_rows:
            served, logits = self.tree.step([(row.place,) for row in open_rows])
            stepped = [open_rows[index] for index in served]
            self._read_scores(stepped, logits)
            drawing = [row for row in stepped if not row.walks]
            self._draw_tokens(drawing, logits)
            self._end(drawing)
            for row in stepped:
                if not row.particle.finish:
                    row.advance()
            open_rows = [row for row in open_rows if not row.particle.finish]

    def _read_scores(self, rows: Sequence[_Row], logits: Tensor) -> None:
        """The score of every row's prefix; of equal prefixes the first one's."""
        fresh = {row.key: row for row in rows if len(row.particle.scores) == row.walked}
        new = {key: row for key, row in fresh.items() if key not in self.known}
        slots = [row.place.slot for row in new.values()]
        values = self.score.read(self.tree.streams[""], list(new), slots, logits) if new else []
        for (query_id, tokens), value in zip(new, values, strict=True):
            if math.isnan(value):
                raise NumericsError(
                    f"the score of a prefix of {len(tokens)} tokens of query {query_id!r} is NaN: "
                    "load the model with dtype float32, or use another --score."
                )
            self.known[query_id, tokens] = value
        for row in rows:
            if len(row.particle.scores) == row.walked:
                row.particle.scores.append(min(self.score.cap, self.known[row.key]))

    def _draw_tokens(self, rows: Sequence[_Row], logits: Tensor) -> None:
        """One token for every row; a law that rows share is computed once."""
        shared: dict[Prefix, list[_Row]] = {}
        for row in rows:
            shared.setdefault(row.place, []).append(row)
        for places in batched(shared, logits):
            law = target_law(after(logits, places), self.settings)
            check_laws(law, places)
            drawn = [row for place in places for row in shared[place]]
            at = [number for number, place in enumerate(places) for _ in shared[place]]
            uniforms = [row.particle.rng.random() for row in drawn]
            laws, rows_of = law, torch.tensor(at)
            if self.score.usual(places[0].query_id):
                laws = self._parted(law, places)
                part = [self._decide(row, uniform) for row, uniform in zip(drawn, uniforms)]
                rows_of = rows_of + len(places) * torch.tensor([int(off) for off, _ in part])
                uniforms = [rest for _, rest in part]
            uniform = torch.tensor(uniforms, dtype=torch.float64)
            tokens = inverse_cdf(laws.exp(), rows_of, uniform).tolist()
            for row, token, logp in zip(drawn, tokens, law[at, tokens].tolist(), strict=True):
                row.particle.tokens.append(token)
                row.particle.logp.append(logp)

    def _parted(self, law: Tensor, places: Sequence[Prefix]) -> Tensor:
        """The laws of usual tokens alone, then those of all others, [2n, V]."""
        inside, outside = torch.full_like(law, -math.inf), law.clone()
        for number, place in enumerate(places):
            usual = list(self.score.usual(place.query_id))
            inside[number, usual] = law[number, usual]
            outside[number, usual] = -math.inf
            for part in (inside, outside):  # a part that truncation cut whole is never wanted
                if part[number].max() == -math.inf:
                    part[number] = law[number]
        return torch.cat([inside, outside])

    def _decide(self, row: _Row, uniform: float) -> tuple[bool, float]:
        """Whether a row's token is an unusual one, and what is left of its random number.

        The chance is that of the prefix when it was first seen, whatever this step's rounding.
        """
        one = row.particle
        chance = sigmoid(self.known[row.key])
        below = uniform * (one.bound if len(one.tokens) == one.copied else 1.0)
        off = below < chance
        step = math.inf if off or not below else log_odds(chance / below)
        one.steps.append(min(self.score.cap, step))
        return off, below / chance if off else (below - chance) / (1 - chance)

    def _end(self, rows: Sequence[_Row]) -> None:
        """End the rows that are over; a text that rows share is read once."""
        settled: dict[tuple[str, tuple[int, ...]], bool] = {}
        for row in rows:
            one = row.particle
            if one.tokens[-1] in self.target.end_tokens:
                one.finish = "stop"
            elif len(one.tokens) == self.settings.max_new_tokens:
                one.finish = "length"
            elif self.stops.settled is not None:
                key = row.request.query_id, tuple(one.tokens)
                if key not in settled:
                    settled[key] = self.stops.signs(key[0], self.target.decode(one.tokens))[0]
                one.finish = "settled" * settled[key]
