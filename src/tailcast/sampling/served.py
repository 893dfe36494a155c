"""Draws and scores of a target that samples but shows no whole law: at a server, or in vLLM.

The law of a sparse stream is ``rest`` times the law it stands on, which the target samples, and
known shares of known tokens besides. So a draw tosses a coin at every token: with probability
``rest`` it is the target's next token, else one of the known ones. What the target sampled
further ahead is used for as long as the coin falls its way. The draws follow the same law, and
have the same weights, as those of a model that our own loop runs.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tailcast.errors import ConfigError, ModelError
from tailcast.models import Given, Served
from tailcast.proposals import Proposal, StreamKey
from tailcast.sampling.continuations import continued, engine_seed
from tailcast.sampling.draw import DrawRequest, collected, draw_generator
from tailcast.sampling.kinds import Part, Place, SparseKind, StreamKind, Streams
from tailcast.types import SampleBatch, SamplingSettings, SteeringVector

__all__ = ["draw_served", "score_served"]


def draw_served(
    target: Served,
    requests: Sequence[DrawRequest],
    settings: SamplingSettings,
    *,
    steering: SteeringVector | None = None,
    kinds: Mapping[str, StreamKind] | None = None,
) -> list[SampleBatch]:
    """As :func:`tailcast.sampling.draw`, with log-probabilities left for :func:`score_served`.

    Raises:
        ConfigError: If a proposal needs whole laws.
        TailcastError: If the target fails, or cannot be steered.
    """
    laws = _laws(target, steering, kinds)
    walks: dict[str, _Walk] = {}
    for one in requests:
        name = one.prefix_seed or one.seed
        if name not in walks:
            walks[name] = _begun(laws, one, settings.max_new_tokens)
    forwards: Counter[str] = Counter()
    while waiting := [walk for walk in walks.values() if not walk.finish]:
        found = target.sample(
            [walk.base.prompt + tuple(walk.tokens) for walk in waiting], settings,
            limits=[walk.end - len(walk.tokens) for walk in waiting],
            seeds=[engine_seed(f"{walk.name}/{len(walk.tokens)}") for walk in waiting],
            strengths=[walk.base.strength for walk in waiting],
        )  # fmt: skip
        for walk, more in zip(waiting, found, strict=True):
            if not more.tokens:
                raise ModelError(
                    "the target gave no tokens where one was asked for: serve the model with vLLM."
                )
            walk.ahead.extend(more.tokens)
            walk.go_on()
            forwards[walk.request.query_id] += more.length
    rows = [replace(walks[one.prefix_seed or one.seed], request=one) for one in requests]
    prefixes = collected(target, rows, settings.max_new_tokens, forwards)
    return continued(target, prefixes, requests, settings, target)


@dataclass
class _Walk:
    """The first tokens of a draw, up to its switch.

    Attributes:
        request: The draw, or the first one of those that share the prefix.
        kind: Its stream; None for the target.
        base: The target's pass that the stream's law stands on.
        ends: End tokens.
        end: Where it switches to the target, in tokens.
        full: Longest completion.
        uniforms: The coins, [end].
        ahead: What the target sampled and no coin has been tossed for.
    """

    request: DrawRequest
    kind: SparseKind | None
    base: Part
    ends: frozenset[int]
    end: int
    full: int
    uniforms: NDArray[np.float64]
    ahead: deque[int] = field(default_factory=deque)
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)
    finish: str = ""
    log_roulette: float = 0.0

    @property
    def name(self) -> str:
        """Of its random numbers."""
        return self.request.prefix_seed or self.request.seed

    def go_on(self) -> None:
        """Take tokens until the target is to be asked for more, or the walk is over."""
        while self.kind is not None and not self.finish and len(self.tokens) < self.end:
            rest, added = self.kind.sparse(Place(self.request.prompt, tuple(self.tokens)))
            coin = self.uniforms[len(self.tokens)] - rest
            if coin >= 0 and added:
                self.ahead.clear()
                self._take(_passed(added, coin))
            elif self.ahead:
                self._take(self.ahead.popleft())
            else:
                return
        self.finish = self.finish or "switch"

    def _take(self, token: int) -> None:
        self.tokens.append(token)
        if token in self.ends:
            self.finish = "stop"
        elif len(self.tokens) == self.full:
            self.finish = "length"


def _begun(laws: Streams, request: DrawRequest, full: int) -> _Walk:
    """A draw before its first token from the target."""
    proposal, kind, base = request.proposal, None, Part(request.prompt)
    if not proposal.is_target:
        if proposal.mix:
            raise ConfigError(
                f"proposal {str(proposal)!r} mixes laws token by token, which needs whole laws: "
                "take mix 0, or the own engine."
            )
        kind, base = _stands_on(laws, proposal.stream, request.prompt)
    end = min(proposal.steered_tokens, full)
    uniforms = draw_generator(request.prefix_seed or request.seed).random(end)
    walk = _Walk(request, kind, base, laws.target.end_tokens, end, full, uniforms)
    walk.go_on()
    return walk


def _laws(
    target: Served, steering: SteeringVector | None, kinds: Mapping[str, StreamKind] | None
) -> Streams:
    """All that laws are made of, the target ready to be steered."""
    if steering is not None:
        target.steer(steering)
    return Streams(target, steering, kinds)


def _stands_on(laws: Streams, key: StreamKey, prompt: tuple[int, ...]) -> tuple[SparseKind, Part]:
    """A stream's kind, and the target's pass that its law stands on.

    Raises:
        ConfigError: If its law is not to be had from given tokens.
    """
    laws.check(key)
    kind = laws.kinds[key.kind]
    if not isinstance(kind, SparseKind) or key.heat != 1.0:
        raise ConfigError(
            f"stream {str(Proposal(key.strength, 1, 0.0, key.heat, key.kind))!r} needs whole laws "
            "of the next token, which neither servers nor vLLM show: leave it out, or take the "
            "own engine."
        )
    parts = laws.parts(key, prompt)
    return kind, parts[0] if parts else Part(prompt)


def _passed(added: Mapping[int, float], coin: float) -> int:
    """The token at which the running sum of shares passes a coin."""
    tokens = list(added)
    sums = np.cumsum(list(added.values()))
    return tokens[min(int(np.searchsorted(sums, coin, side="right")), len(tokens) - 1)]


def score_served(
    target: Served,
    prompts: Sequence[tuple[int, ...]],
    completions: Sequence[Sequence[int]],
    streams: Sequence[StreamKey],
    *,
    tokens: int,
    steering: SteeringVector | None = None,
    kinds: Mapping[str, StreamKind] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """As :func:`tailcast.sampling.score`, from the target's log-probabilities of given tokens.

    Equal first tokens after equal prompts are asked for once.
    """
    laws = _laws(target, steering, kinds)
    rows = [
        (prompt, tuple(one)[:tokens], [_stands_on(laws, key, prompt) for key in streams])
        for prompt, one in zip(prompts, completions, strict=True)
    ]
    asked = dict.fromkeys(
        Given(base.prompt, mine, base.strength)
        for prompt, mine, stands in rows
        for base in (Part(prompt), *(base for _, base in stands))
        if mine
    )
    found, forwards = target.given(list(asked)) if asked else ([], 0)
    known = dict(zip(asked, found, strict=True))
    table = np.zeros((len(rows), 1 + len(streams), tokens))
    for line, (prompt, mine, stands) in zip(table, rows, strict=True):
        if mine:
            line[0, : len(mine)] = known[Given(prompt, mine)]
            for column, (kind, base) in zip(line[1:], stands, strict=True):
                logs = known[Given(base.prompt, mine, base.strength)]
                column[: len(mine)] = _under(kind, Place(prompt, mine), logs)
    return table[:, 0], table[:, 1:], forwards


def _under(kind: SparseKind, given: Place, logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-probabilities of given tokens under a sparse stream, from those it stands on."""
    found = logs.copy()
    for number, token in enumerate(given.tokens):
        rest, added = kind.sparse(Place(given.prompt, given.tokens[:number]))
        if added:
            with np.errstate(divide="ignore"):
                found[number] = np.log(rest * np.exp(logs[number]) + added.get(token, 0.0))
    return found
