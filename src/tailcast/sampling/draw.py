"""The twin-stream loop: completions from proposals, with both log-probabilities.

Every draw stands on a prefix of the target and, before its switch, on the same prefix in
whatever its other stream reads; one forward pass gives the laws of both, from which its log p
and log s are read. One uniform number for each (draw, step) decides the token, and comes from
the draw's own seed, so that a draw is the same whatever it shares a batch with, but for
the rounding of the batch's shape; the schedule depends on the list of requests alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tailcast.errors import ConfigError
from tailcast.proposals import Proposal, StreamKey
from tailcast.sampling.kinds import Part, Place, StreamKind, Streams
from tailcast.sampling.laws import batched, inverse_cdf, mixture_law, target_law, target_mass
from tailcast.sampling.prefixes import Prefix, PrefixTree, after, check_laws
from tailcast.sampling.stops import Stops
from tailcast.types import SampleBatch, SamplingSettings, SteeringVector, Target

__all__ = ["DrawRequest", "collected", "draw", "draw_generator"]


@dataclass(frozen=True)
class DrawRequest:
    """One completion to draw.

    Attributes:
        query_id: Which query.
        prompt: Its prompt tokens.
        proposal: The law to draw from.
        index: Number of the draw within (query, stage).
        seed: Name of the draw's random numbers: equal names give equal numbers.
        prefix_seed: Name of those up to the switch, if they are another's: draws of equal
            prefix and other seeds are continuations of one prefix.
    """

    query_id: str
    prompt: tuple[int, ...]
    proposal: Proposal
    index: int
    seed: str
    prefix_seed: str = ""


def draw_generator(seed: str) -> np.random.Generator:
    """The random numbers that belong to a name, counter-based and independent by name."""
    digest = sha256(seed.encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def draw(
    target: Target,
    requests: Sequence[DrawRequest],
    settings: SamplingSettings,
    *,
    steering: SteeringVector | None = None,
    kinds: Mapping[str, StreamKind] | None = None,
    slots: int = 128,
    stops: Stops | None = None,
) -> list[SampleBatch]:
    """Draw completions, of any queries under any proposals, in one batch.

    Args:
        target: The model p.
        requests: What to draw; when slots are short, earlier ones are drawn first.
        settings: Temperature, truncation and length limit, part of what p is.
        steering: The steering operator; needed where a proposal steers.
        kinds: Kinds of streams besides the steered one, by the names that proposals use.
        slots: Rows of the batch, each one prefix in one model's pass.
        stops: What ends completions before the model does.

    Returns:
        One batch for each query, in order of first request; rows in order of request.

    Raises:
        ConfigError: If a proposal needs steering and there is none, or fewer than 2 slots.
        NumericsError: If the model returns logits that are no law.
    """
    streams = Streams(target, steering, kinds)
    for request in requests:
        _check_request(request, settings, streams)
    widest = max((len(streams.passes(one.proposal, one.prompt)) for one in requests), default=2)
    if slots < max(2, widest):
        raise ConfigError(
            f"batch {slots} is too small: a draw takes {max(2, widest)} rows, use as many or more."
        )
    tree = PrefixTree(streams.open(slots=slots, max_new_tokens=settings.max_new_tokens), slots)
    loop = _Loop(streams, settings, tree, stops or Stops())
    with streams.untracked():
        rows = loop.run(requests)
    return collected(target, rows, settings.max_new_tokens, loop.tree.forwards)


def _check_request(request: DrawRequest, settings: SamplingSettings, streams: Streams) -> None:
    proposal = request.proposal
    if proposal.is_target:
        return
    streams.check(proposal.stream)
    if proposal.switch > settings.max_new_tokens:
        raise ConfigError(
            f"switch {proposal.switch} lies beyond the length limit of "
            f"{settings.max_new_tokens} tokens: lower it or raise max_new_tokens."
        )


_Law = tuple[tuple[Prefix, ...], float, StreamKey | None]
"""A next token's law: the prefixes that it reads, the target's share, and the other stream."""


@dataclass(eq=False)
class _Row:
    """A draw in progress."""

    request: DrawRequest
    uniforms: NDArray[np.float64]
    plain: Prefix
    own: tuple[Prefix, ...]  # what its other stream reads
    mixed: bool  # whether the next token is of that stream
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)
    finish: str = ""
    log_roulette: float = 0.0

    @property
    def prefixes(self) -> tuple[Prefix, ...]:
        """What the next token's law is read from."""
        return (self.plain, *self.own)

    @property
    def law(self) -> _Law:
        """The next token's law."""
        phi = self.request.proposal
        return self.prefixes, *((phi.mix, phi.stream) if self.mixed else (1.0, None))

    def advance(self, token: int, logp: float, logs: float, finish: str) -> None:
        """Take a drawn token; leave the steered stream at the switch."""
        self.tokens.append(token)
        self.logp.append(logp)
        if self.mixed:
            self.logs.append(logs)
        self.finish = finish
        if finish:
            return
        self.mixed = self.mixed and not self.switched
        self.own = tuple(prefix.then(token) for prefix in self.own) if self.mixed else ()
        self.plain = self.plain.then(token)

    @property
    def switched(self) -> bool:
        """Whether the next token is the target's alone."""
        return len(self.tokens) >= self.request.proposal.steered_tokens

    def play(self, rate: float) -> None:
        """Roulette, once for each draw."""
        if self.log_roulette == 0.0:
            lives = self.uniforms[-1] < rate
            self.log_roulette = -math.log(rate) if lives else -math.inf
            self.finish = "" if lives else "roulette"


_NOWHERE = Prefix("", Part(()), -1)


class _Loop:
    """All draws, step after step."""

    def __init__(
        self, streams: Streams, settings: SamplingSettings, tree: PrefixTree, stops: Stops
    ) -> None:
        self.streams = streams
        self.target = streams.target
        self.settings = settings
        self.tree = tree
        self.stops = stops

    def run(self, requests: Sequence[DrawRequest]) -> list[_Row]:
        rows = [self._row(request) for request in requests]
        open_rows = self._end_early(rows) if self.stops.at_switch else rows
        while open_rows:
            self._step(open_rows)
            open_rows = [row for row in open_rows if not row.finish]
        return rows

    def _step(self, open_rows: Sequence[_Row]) -> None:
        """One token for as many rows as there are slots for."""
        served, logits = self.tree.step([row.prefixes for row in open_rows])
        drawn = [open_rows[index] for index in served]
        self._draw_tokens(drawn, logits)
        self._end_early(drawn)
        for row in drawn:
            if row.finish:
                row.plain, row.own = _NOWHERE, ()  # lets go of the saved states

    def _row(self, request: DrawRequest) -> _Row:
        numbers = self.settings.max_new_tokens + 1  # the last one is for roulette
        uniforms = draw_generator(request.seed).random(numbers)
        if request.prefix_seed:
            shared = draw_generator(request.prefix_seed).random(numbers)
            switch = request.proposal.steered_tokens
            uniforms[:switch] = shared[:switch]
        parts = self.streams.passes(request.proposal, request.prompt)
        plain, *own = (self.tree.root(request.query_id, part) for part in parts)
        return _Row(request, uniforms, plain, tuple(own), not request.proposal.is_target)

    def _end_early(self, rows: Sequence[_Row]) -> list[_Row]:
        """End the rows that need no more tokens; a text that rows share is read once."""
        signs: dict[Prefix, tuple[bool, bool]] = {}
        for row in rows:
            if row.finish:
                continue
            if self.stops.at_switch and row.switched and len(row.tokens) >= self.stops.not_before:
                row.finish = "switch"
            elif self.stops.read_text:
                if row.plain not in signs:
                    text = self.target.decode(row.tokens)
                    signs[row.plain] = self.stops.signs(row.request.query_id, text)
                settled, refused = signs[row.plain]
                if settled:
                    row.finish = "settled"
                elif refused:
                    row.play(self.stops.rate)
        return [row for row in rows if not row.finish]

    def _draw_tokens(self, rows: Sequence[_Row], logits: Tensor) -> None:
        """One token for every row; a law that rows share is computed once."""
        shared: dict[_Law, list[_Row]] = {}
        for row in rows:
            shared.setdefault(row.law, []).append(row)
        alike: dict[str | None, list[_Law]] = {}
        for law in shared:
            alike.setdefault(law[2] and law[2].kind, []).append(law)
        for kind, laws in alike.items():
            laws.sort(key=lambda law: law[0][0].slot)
            for some in batched(laws, logits):
                self._draw_some(kind, some, [shared[law] for law in some], logits)

    def _draw_some(
        self, kind: str | None, laws: Sequence[_Law], sharers: Sequence[Sequence[_Row]],
        logits: Tensor,
    ) -> None:  # fmt: skip
        """One token for each of the rows that share some laws of one kind of stream."""
        rows = [row for group in sharers for row in group]
        at = torch.tensor([number for number, group in enumerate(sharers) for _ in group])
        uniforms = torch.tensor([row.uniforms[len(row.tokens)] for row in rows])
        if kind is None:
            plain = [prefixes[0] for prefixes, _, _ in laws]
            mass = target_mass(after(logits, plain), self.settings)
            check_laws(mass, plain)
            tokens = inverse_cdf(mass, at, uniforms)
            logp = logs = mass[at, tokens].log().tolist()
        else:
            places = [Place(group[0].request.prompt, tuple(group[0].tokens)) for group in sharers]
            target, other, mix = self._streams_laws(kind, laws, places)
            mass = mixture_law(target, other, mix).exp()
            tokens = inverse_cdf(mass, at, uniforms)
            logp, logs = target[at, tokens].tolist(), other[at, tokens].tolist()
        for row, token, p, s in zip(rows, tokens.tolist(), logp, logs, strict=True):
            full = len(row.tokens) + 1 == self.settings.max_new_tokens
            row.advance(token, p, s, "stop" if token in self.target.end_tokens else "length" * full)

    def _streams_laws(
        self, kind: str, laws: Sequence[_Law], places: Sequence[Place]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The target's law and that of a kind of stream, [n, V] each, and the mix of each, [n]."""
        columns = list(zip(*(prefixes for prefixes, _, _ in laws), strict=True))
        plain, *own = (self.tree.logits(column) for column in columns)
        target = target_law(plain, self.settings)
        check_laws(target, columns[0])
        heat = torch.tensor([key.heat for _, _, key in laws if key])
        other = self.streams.law(kind, target, own, places, self.settings, heat)
        check_laws(other, columns[-1])
        return target, other, target.new_tensor([mix for _, mix, _ in laws])


class Ended(Protocol):
    """A draw that takes no more tokens here."""

    request: DrawRequest
    tokens: list[int]
    logp: list[float]
    logs: list[float]
    finish: str
    log_roulette: float


def collected(
    target: Target, rows: Sequence[Ended], width: int, forwards: Mapping[str, int]
) -> list[SampleBatch]:
    """Draws as one batch for each query.

    Args:
        target: The model, for texts.
        rows: The draws.
        width: Longest completion.
        forwards: Token forwards of each query.
    """
    by_query: dict[str, list[Ended]] = {}
    for row in rows:
        by_query.setdefault(row.request.query_id, []).append(row)
    return [
        _batch(target, query_id, group, width, forwards[query_id])
        for query_id, group in by_query.items()
    ]


def _batch(
    target: Target, query_id: str, rows: Sequence[Ended], width: int, forwards: int
) -> SampleBatch:
    def padded(values: list[list[float]], fill: float) -> NDArray[np.float64]:
        table = np.full((len(values), width), fill)
        for line, value in zip(table, values, strict=True):
            line[: len(value)] = value
        return table

    return SampleBatch(
        query_id=query_id,
        draws=np.array([row.request.index for row in rows], dtype=np.int64),
        proposals=tuple(row.request.proposal for row in rows),
        tokens=padded([[*map(float, row.tokens)] for row in rows], -1).astype(np.int32),
        lengths=np.array([len(row.tokens) for row in rows], dtype=np.int64),
        token_logp=padded([row.logp for row in rows], 0.0).astype(np.float32),
        token_logs=padded([row.logs for row in rows], 0.0).astype(np.float32),
        texts=tuple(target.decode(row.tokens) for row in rows),
        finish=tuple(row.finish for row in rows),
        token_forwards=forwards,
        log_roulette=np.array([row.log_roulette for row in rows]),
    )
