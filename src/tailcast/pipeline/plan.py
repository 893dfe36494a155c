"""What would a run cost? Token forwards, judge calls, memory and hours, before it is begun.

Draws of the target are counted as a ten-second trial makes them on this machine, equal
prefixes computed once and settled completions ended. Steered draws comply, which is the
point of them: each is counted up to the length limit. So a plan is an upper estimate.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tailcast.analysis.planned import expected_draws, pilot_number
from tailcast.config import RunConfig
from tailcast.data import load_queries
from tailcast.errors import ConfigError
from tailcast.judges import build_judge
from tailcast.models import load_target, planned_rows, shape_of
from tailcast.pipeline.tasks import stops_of
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, Stops, draw
from tailcast.types import Query, SampleBatch, SamplingSettings, Target

__all__ = ["DEVICES", "Plan", "Stage", "plan"]

DEVICES = {
    "a100": (80, 2.0e12, 312e12),
    "h100": (80, 3.35e12, 989e12),
    "h200": (141, 4.8e12, 989e12),
}
"""GB of memory, bytes a second, and bf16 products and sums a second, by the makers' sheets."""

_TRIAL = 5.0  # seconds that the last, longest trial takes at least
_TRIAL_QUERIES = 8
_OF_ROOFLINE = 0.5  # share of a device's limits that is counted on
_LAUNCH = 8e-4  # seconds that Python and torch take to launch the kernels of one layer
_GIB = 2**30


@dataclass(frozen=True)
class Stage:
    """One stage of a run: draws, and at most so many token forwards and judge calls."""

    name: str
    draws: int
    token_forwards: int
    judge_calls: int
    hours: float


@dataclass(frozen=True)
class Plan:
    """The cost of a run.

    Attributes:
        stages: Pilot, sampling, comparison, those of them that the run has.
        rate: Token forwards a second.
        rows: Rows of a forward pass.
        weights_gib: Memory of the weights.
        rows_gib: Memory of the rows.
        where: What the rate was measured on, or whose sheet it is from.
    """

    stages: tuple[Stage, ...]
    rate: float
    rows: int
    weights_gib: float
    rows_gib: float
    where: str

    @property
    def hours(self) -> float:
        """Of all stages, loading and steering apart."""
        return sum(stage.hours for stage in self.stages)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "hours": self.hours}


@dataclass(frozen=True)
class _Speed:
    """What draws cost.

    Attributes:
        forwards: Token forwards of a draw of the target.
        judged: Share of them that the judge must read.
        seconds: Time of one.
        rate: Token forwards a second when every row of the batch is in use.
    """

    forwards: float
    judged: float
    seconds: float
    rate: float


def plan(config: RunConfig) -> Plan:
    """Count what a run would take; on paper where its device is one of :data:`DEVICES`.

    Raises:
        TailcastError: As the run would.
    """
    if config.shows_no_laws:
        raise ConfigError(
            "a target at a server, or in vLLM, cannot be planned for, because only our own loop is "
            "timed here: it draws at most samples times max_new_tokens tokens of each query."
        )
    queries = load_queries(config.queries, column=config.column, limit=config.limit)
    if config.device in DEVICES:
        return _on_paper(config, queries, config.device)
    return _measured(config, queries)


def _measured(config: RunConfig, queries: Sequence[Query]) -> Plan:
    target = load_target(config.model_settings)
    rows = config.batch or planned_rows(target, config.max_new_tokens, config.memory)
    speed = _trial(target, queries[:_TRIAL_QUERIES], config, rows)
    weights = sum(one.numel() * one.element_size() for one in target.model.parameters())
    return Plan(
        stages=_stages(config, queries, speed),
        rate=speed.rate,
        rows=rows,
        weights_gib=weights / _GIB,
        rows_gib=rows * target.slot_bytes(config.max_new_tokens) / _GIB,
        where=f"{target.like.device.type} here, {str(target.like.dtype).removeprefix('torch.')}",
    )


def _trial(target: Target, queries: Sequence[Query], config: RunConfig, rows: int) -> _Speed:
    """Draw twice as many completions of the target until that takes a few seconds."""
    judge = build_judge(config.judge_settings)
    settings, stops = config.sampling_settings, stops_of(judge, queries, config)
    draws, taken = 8, 0.0
    while taken < _TRIAL:
        draws *= 2
        batches, taken = _timed(target, queries, draws, settings, rows, stops)
    count = draws * len(queries)
    forwards = sum(batch.token_forwards for batch in batches)
    unsettled = sum(finish != "settled" for batch in batches for finish in batch.finish)
    full = settings.model_copy(update={"temperature": 3.0, "max_new_tokens": 8})  # no two alike
    some, busy = _timed(target, queries, max(1, rows // len(queries)), full, rows, None)
    rate = sum(batch.token_forwards for batch in some) / busy
    return _Speed(forwards / count, unsettled / count, taken / count, rate)


def _timed(
    target: Target, queries: Sequence[Query], draws: int, settings: SamplingSettings, rows: int,
    stops: Stops | None,
) -> tuple[list[SampleBatch], float]:  # fmt: skip
    """Draws of the target for every query, and the seconds that they took."""
    requests = [
        DrawRequest(query.id, target.encode(query), Proposal.target(), number, f"plan/{number}")
        for query in queries
        for number in range(draws)
    ]
    begun = time.perf_counter()
    batches = draw(target, requests, settings, slots=rows, stops=stops)
    return batches, time.perf_counter() - begun


def _on_paper(config: RunConfig, queries: Sequence[Query], device: str) -> Plan:
    """From the model's shape and a device's sheet: memory-bound steps, at a share of both."""
    gigabytes, bandwidth, products = DEVICES[device]
    shape = shape_of(config.model_settings)
    weights = 2 * shape.parameters
    room = 0.9 * gigabytes * 1e9 - weights
    if room <= 0:
        raise ConfigError(
            f"the weights take {weights / 1e9:.0f} GB, more than {device} has: reckon for another "
            "device, or load fewer bits."
        )
    a_row = 2 * shape.cache_numbers * config.max_new_tokens + 16 * shape.vocabulary
    rows = config.batch or min(1024, 1 << (int(room / 2 / a_row).bit_length() - 1))
    limit = max((weights + rows * a_row) / bandwidth, 2 * shape.parameters * rows / products)
    step = max(limit / _OF_ROOFLINE, _LAUNCH * shape.layers)
    seconds = config.max_new_tokens * step / rows
    speed = _Speed(config.max_new_tokens, 1.0, seconds, rows / step)
    return Plan(
        stages=_stages(config, queries, speed),
        rate=speed.rate,
        rows=rows,
        weights_gib=weights / _GIB,
        rows_gib=rows * a_row / _GIB,
        where=f"{device} on paper, at most {_OF_ROOFLINE:.0%} of its roofline, bfloat16",
    )


def _stages(config: RunConfig, queries: Sequence[Query], speed: _Speed) -> tuple[Stage, ...]:
    def stage(name: str, draws: int, each: int, judged: int = 1) -> Stage:
        total = draws * each
        return Stage(name, draws, total, draws * judged, total / speed.rate / 3600)

    switch = max(config.grid.switches)
    if config.proposal:
        switch = Proposal.parse(config.proposal).steered_tokens
    steered = config.max_new_tokens + switch
    stages = []
    if config.selects:
        draws = pilot_number(config, len(queries)) * config.pilot_samples
        streams = 1 + len(config.grid.strengths)
        stages += [stage("pilot", draws, steered), stage("scoring", draws, switch * streams, 0)]
    if config.steers:
        stages.append(stage("is", len(queries) * config.draws, steered))
    if config.splits:
        count = len(queries) * expected_draws(config.draws, config.floor)
        stages.append(stage("splitting", count, config.max_new_tokens))
    alone = not (config.steers or config.splits)
    plain = len(queries) * (config.draws if alone else config.monte_carlo)
    if plain:
        numbers = round(plain * speed.forwards), round(plain * speed.judged)
        stages.append(Stage("mc", plain, *numbers, plain * speed.seconds / 3600))
    return tuple(stages)
