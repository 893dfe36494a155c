"""The twin-stream loop: completions from proposals, with both log-probabilities.

Every draw owns one slot of the target's stream and, before its switch, a second slot
steered at its strength; both advance in the same forward pass, from which its log p and
log s are read. A draw that ends, or passes its switch, gives its slots to the next one
in the queue. One uniform number for each (draw, step) decides the token, and comes from
the draw's own seed, so that a draw is the same whatever it shares a batch with, but for
the rounding of the batch's shape; the schedule depends on the list of requests alone.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tailcast.errors import ConfigError, NumericsError
from tailcast.proposals import Proposal
from tailcast.sampling.laws import inverse_cdf, mixture_law, steered_law, target_law
from tailcast.types import SampleBatch, SamplingSettings, SteeringVector, Stream, Target

__all__ = ["DrawRequest", "draw", "draw_generator"]


@dataclass(frozen=True)
class DrawRequest:
    """One completion to draw.

    Attributes:
        query_id: Which query.
        prompt: Its prompt tokens.
        proposal: The law to draw from.
        index: Number of the draw within (query, stage).
        seed: Name of the draw's random numbers: equal names give equal numbers.
    """

    query_id: str
    prompt: tuple[int, ...]
    proposal: Proposal
    index: int
    seed: str


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
    slots: int = 128,
) -> list[SampleBatch]:
    """Draw completions, of any queries under any proposals, in one batch.

    Args:
        target: The model p.
        requests: What to draw, in the order in which slots are given.
        settings: Temperature, truncation and length limit, part of what p is.
        steering: The steering operator; needed unless every proposal is the target.
        slots: Rows of the batch; a draw before its switch takes two of them.

    Returns:
        One batch for each query, in order of first request; rows in order of request.

    Raises:
        ConfigError: If a proposal needs steering and there is none, or fewer than 2 slots.
        NumericsError: If the model returns logits that are no law.
    """
    if slots < 2:
        raise ConfigError(f"batch {slots} is too small: a steered draw takes two rows, use 2 up.")
    for request in requests:
        _check_request(request, settings, steering)
    loop = _Loop(target, settings, target.stream(steering, slots=slots,
                 max_new_tokens=settings.max_new_tokens), slots)  # fmt: skip
    with torch.no_grad():
        rows = loop.run(requests)
    return _collect(target, rows, settings.max_new_tokens)


def _check_request(
    request: DrawRequest, settings: SamplingSettings, steering: SteeringVector | None
) -> None:
    proposal = request.proposal
    if not proposal.is_target and steering is None:
        raise ConfigError(f"proposal {proposal} needs a steering vector: give one, or none of it.")
    if not proposal.is_target and proposal.switch > settings.max_new_tokens:
        raise ConfigError(
            f"switch {proposal.switch} lies beyond the length limit of "
            f"{settings.max_new_tokens} tokens: lower it or raise max_new_tokens."
        )


@dataclass
class _Row:
    """A draw in progress."""

    request: DrawRequest
    uniforms: NDArray[np.float64]
    twin: bool
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)
    finish: str = ""

    def advance(self, token: int, logp: float, logs: float | None, ends: bool, limit: int) -> None:
        """Take a drawn token; leave the twin at the switch, finish at an end or the limit."""
        self.tokens.append(token)
        self.logp.append(logp)
        if logs is not None:
            self.logs.append(logs)
        self.finish = "stop" if ends else "length" if len(self.tokens) == limit else ""
        self.twin = self.twin and len(self.tokens) < self.request.proposal.switch


class _Loop:
    """Which draw holds which slots, step after step."""

    def __init__(
        self, target: Target, settings: SamplingSettings, stream: Stream, slots: int
    ) -> None:
        self.settings = settings
        self.stream = stream
        self.slots = slots
        self.ends = target.end_tokens
        self.open: list[tuple[_Row, bool]] = []  # slot -> (draw, is it the steered one)

    def run(self, requests: Sequence[DrawRequest]) -> list[_Row]:
        rows = [self._row(request) for request in requests]
        queue = deque(rows)
        while queue or self.open:
            self._admit(queue)
            self._draw_tokens()
            self._close_and_push()
        return rows

    def _row(self, request: DrawRequest) -> _Row:
        uniforms = draw_generator(request.seed).random(self.settings.max_new_tokens)
        return _Row(request, uniforms, twin=not request.proposal.is_target)

    def _admit(self, queue: deque[_Row]) -> None:
        while queue and len(self.open) + 1 + queue[0].twin <= self.slots:
            row = queue.popleft()
            self._open(row, steered=False)
            if row.twin:
                self._open(row, steered=True)

    def _open(self, row: _Row, *, steered: bool) -> None:
        strength = row.request.proposal.strength if steered else 0.0
        self.stream.open(row.request.prompt, strength)
        self.open.append((row, steered))

    def _draw_tokens(self) -> None:
        """One token for every draw, from its mixture or from the target."""
        logits = checked(self.stream.logits(), (row.request.query_id for row, _ in self.open))
        plain = [slot for slot, (_, steered) in enumerate(self.open) if not steered]
        rows = [self.open[slot][0] for slot in plain]
        law = target_law(logits[plain], self.settings)
        proposal, steered = law, None
        where = [place for place, row in enumerate(rows) if row.twin]
        if where:
            steered_slot = {id(row): slot for slot, (row, twin) in enumerate(self.open) if twin}
            slots = [steered_slot[id(rows[place])] for place in where]
            steered = steered_law(logits[slots], self.settings, law[where])
            mix = law.new_tensor([rows[place].request.proposal.mix for place in where])
            proposal = law.clone()
            proposal[where] = mixture_law(law[where], steered, mix)
        uniforms = np.array([row.uniforms[len(row.tokens)] for row in rows])
        tokens = inverse_cdf(proposal, torch.from_numpy(uniforms).to(law.device))
        self._record(rows, tokens, _at(law, tokens), where, steered)

    def _record(
        self, rows: list[_Row], tokens: Tensor, logp: Tensor, where: list[int],
        steered: Tensor | None,
    ) -> None:  # fmt: skip
        logs = dict(zip(where, _at(steered, tokens[where]).tolist())) if steered is not None else {}
        for place, (row, token, value) in enumerate(zip(rows, tokens.tolist(), logp.tolist())):
            limit = self.settings.max_new_tokens
            row.advance(token, value, logs.get(place), token in self.ends, limit)

    def _close_and_push(self) -> None:
        done = [
            slot
            for slot, (row, steered) in enumerate(self.open)
            if row.finish or (steered and not row.twin)
        ]
        self.open = [self.open[slot] for slot in self.stream.close(done)]
        if self.open:
            tokens = [row.tokens[-1] for row, _ in self.open]
            self.stream.push(torch.tensor(tokens, dtype=torch.int64))


def checked(logits: Tensor, query_ids: Iterable[str]) -> Tensor:
    """The logits, once every row of them can be normalised to a law.

    Raises:
        NumericsError: If a row holds NaN or +inf, or nothing but -inf; names its query.
    """
    bad = ~torch.isfinite(logits.amax(-1))
    if bad.any():
        first = bad.nonzero()[0].item()
        query = [*query_ids][int(first)]
        raise NumericsError(
            f"the model returned non-finite logits for query {query!r}: "
            "lower the steering strength, or load the model with dtype float32."
        )
    return logits


def _at(law: Tensor, tokens: Tensor) -> Tensor:
    """Values of each row at its token, [n]."""
    return law.gather(-1, tokens[:, None]).squeeze(-1)


def _collect(target: Target, rows: Sequence[_Row], width: int) -> list[SampleBatch]:
    """Finished draws as one batch for each query."""
    by_query: dict[str, list[_Row]] = {}
    for row in rows:
        by_query.setdefault(row.request.query_id, []).append(row)
    return [_batch(target, query_id, group, width) for query_id, group in by_query.items()]


def _batch(target: Target, query_id: str, rows: Sequence[_Row], width: int) -> SampleBatch:
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
    )
