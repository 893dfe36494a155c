"""Weighted prefixes by our loop, the rest of each completion by another engine.

The weight of a draw depends on its first ``switch`` tokens alone; what follows is plain
sampling from the target, which any engine may do that runs the same weights at the same
temperature and truncation (method.md section 5).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np

from tailcast.sampling.draw import DrawRequest, draw
from tailcast.sampling.kinds import StreamKind
from tailcast.sampling.stops import Stops
from tailcast.types import (
    Continuation,
    Engine,
    SampleBatch,
    SamplingSettings,
    SteeringVector,
    Target,
)

__all__ = ["continued", "draw_with_engine", "engine_seed"]


def draw_with_engine(
    target: Target,
    requests: Sequence[DrawRequest],
    settings: SamplingSettings,
    engine: Engine,
    *,
    steering: SteeringVector | None = None,
    kinds: Mapping[str, StreamKind] | None = None,
    slots: int = 128,
    own_tokens: int = 0,
) -> list[SampleBatch]:
    """As :func:`tailcast.sampling.draw`, with an engine that samples past every switch.

    Draws of the target itself have no prefix, so that the engine samples all of them, but for
    the first ``own_tokens`` tokens: as many as are scored under other proposals later, which
    an engine that gives texts alone would not tell.
    """
    stops = Stops(at_switch=True, not_before=own_tokens)
    prefixes = draw(
        target, requests, settings, steering=steering, kinds=kinds, slots=slots, stops=stops
    )
    return continued(target, prefixes, requests, settings, engine)


def continued(
    target: Target,
    prefixes: Sequence[SampleBatch],
    requests: Sequence[DrawRequest],
    settings: SamplingSettings,
    engine: Engine,
) -> list[SampleBatch]:
    """Batches with every row that ends at its switch continued by an engine.

    Args:
        target: The model p.
        prefixes: What was drawn of the requests.
        requests: What was to be drawn.
        settings: Temperature, truncation and length limit.
        engine: Samples from the target.
    """
    prompts = {request.query_id: request.prompt for request in requests}
    seeds = {(request.query_id, request.index): request.seed for request in requests}
    open_rows = [
        (batch, row)
        for batch in prefixes
        for row, finish in enumerate(batch.finish)
        if finish == "switch"
    ]
    found = engine.sample(
        [prompts[batch.query_id] + _tokens(batch, row) for batch, row in open_rows],
        settings,
        limits=[settings.max_new_tokens - int(batch.lengths[row]) for batch, row in open_rows],
        seeds=[
            engine_seed(seeds[batch.query_id, int(batch.draws[row])]) for batch, row in open_rows
        ],
    )
    by_query: dict[str, dict[int, Continuation]] = {}
    for (batch, row), one in zip(open_rows, found, strict=True):
        by_query.setdefault(batch.query_id, {})[row] = one
    return [_continued(target, batch, by_query.get(batch.query_id, {})) for batch in prefixes]


def _tokens(batch: SampleBatch, row: int) -> tuple[int, ...]:
    return tuple(batch.tokens[row, : batch.lengths[row]].tolist())


def engine_seed(name: str) -> int:
    """A number for engines that take no names."""
    return int.from_bytes(sha256(f"{name}/engine".encode()).digest()[:4], "little") >> 1


def _continued(target: Target, batch: SampleBatch, rest: dict[int, Continuation]) -> SampleBatch:
    """The batch with its open rows continued; their log-probabilities stay those of the prefix."""
    tokens, lengths = batch.tokens.copy(), batch.lengths.copy()
    texts, finish = list(batch.texts), list(batch.finish)
    for row, one in rest.items():
        end = int(lengths[row]) + len(one.tokens)
        tokens[row, lengths[row] : end] = one.tokens
        lengths[row] = end
        finish[row] = one.finish
        if one.text is None or one.tokens:
            texts[row] = target.decode(tokens[row, :end].tolist())
        else:
            texts[row] += one.text
    return replace(
        batch,
        tokens=tokens,
        lengths=np.asarray(lengths),
        texts=tuple(texts),
        finish=tuple(finish),
        token_forwards=batch.token_forwards + sum(one.length for one in rest.values()),
    )
