"""What is done with the model: the functions that a run's workers are given.

Each takes the kit and a task that says all that the outcome depends on, touches no run
directory, and can be done anywhere and again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tailcast.config import RunConfig
from tailcast.errors import ModelError, SteeringError
from tailcast.judges import is_refusal
from tailcast.models import HuggingFaceTarget, Served, is_out_of_memory, planned_rows
from tailcast.proposals import Proposal, StreamKey
from tailcast.sampling import (
    DrawRequest,
    Stops,
    StreamKind,
    Streams,
    draw,
    draw_served,
    draw_with_engine,
    score,
    score_served,
)
from tailcast.steering.fitting import Form, fit_from_pairs
from tailcast.types import ContrastPair, Judge, Query, SampleBatch, SteeringVector
from tailcast.workers import Kit, Task, Workers

__all__ = [
    "DrawTask",
    "Drawn",
    "EncodeTask",
    "FitTask",
    "ModelFacts",
    "ReadTask",
    "ScoreTask",
    "Scored",
    "Todo",
    "draw_ranges",
    "encode_queries",
    "fit_vector",
    "in_memory",
    "outcome_of",
    "read_model",
    "score_completions",
    "stops_of",
]

Todo = Sequence[tuple[Query, tuple[int, int]]]
"""Queries with the range of draws that each is to get, all from the same first one."""

AnyTask = TypeVar("AnyTask", bound=Task)
Found = TypeVar("Found")
Made = TypeVar("Made")


def outcome_of(workers: Workers, work: Callable[[Kit, AnyTask], Found], task: AnyTask) -> Found:
    """The outcome of a single task."""
    [(_, found)] = workers.map(work, [task])
    return found


@dataclass(frozen=True)
class ReadTask:
    """Load the model and say what it is."""

    name: str = "reading the model"


@dataclass(frozen=True)
class ModelFacts:
    """What a run records of its model.

    Attributes:
        fingerprint: Of weights, prompt format and dtype.
        revision: Commit that the hub gave it at.
        weights: Fingerprint that steering vectors are bound to; empty if it has none.
        rows: Rows of a forward pass that memory has room for.
    """

    fingerprint: str
    revision: str
    weights: str
    rows: int


def read_model(kit: Kit, task: ReadTask) -> ModelFacts:
    """The facts of the kit's model."""
    target, config = kit.target, kit.config
    rows = config.batch or planned_rows(target, config.max_new_tokens, config.memory)
    revision, weights = (getattr(target, a, "") for a in ("revision", "weights_fingerprint"))
    return ModelFacts(target.fingerprint, revision, weights, rows)


@dataclass(frozen=True)
class EncodeTask:
    """Say what the prompt tokens of some queries are."""

    queries: Sequence[Query]
    name: str = "reading the prompts"


def encode_queries(kit: Kit, task: EncodeTask) -> dict[str, tuple[int, ...]]:
    """Prompt tokens of every query, by its id."""
    return {query.id: kit.target.encode(query) for query in task.queries}


@dataclass(frozen=True)
class FitTask:
    """Fit a steering vector, as the config says."""

    pairs: Sequence[ContrastPair]
    name: str = "fitting the steering vector"


def fit_vector(kit: Kit, task: FitTask) -> SteeringVector:
    """The vector of some contrast pairs.

    Raises:
        SteeringError: If the model is none that pairs can steer.
    """
    if not isinstance(kit.target, HuggingFaceTarget):
        raise SteeringError("pairs can steer a transformers model only: give a vector.")
    layer = "auto" if kit.config.layer is None else str(kit.config.layer)
    positions = kit.config.positions or "response"
    return fit_from_pairs(task.pairs, kit.target, Form(layer), positions)[0]


@dataclass(frozen=True)
class DrawTask:
    """Draw ranges of some queries in one batch.

    Attributes:
        stage: Name of the stage.
        todo: Queries and ranges.
        proposals: Of the draws of each query, or of the prefixes that several draws share.
        continuations: Draws of each prefix.
        rows: Rows of a forward pass.
        steering: The steering vector.
        settles: Whether the judge is asked on the way.
        kinds: Kinds of streams besides the steered one, by name.
    """

    stage: str
    todo: Todo
    proposals: Sequence[Sequence[Proposal]]
    continuations: int
    rows: int
    steering: SteeringVector | None
    settles: bool
    kinds: Mapping[str, StreamKind] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Stage, queries and draws."""
        start, end = self.todo[0][1][0], max(shard[1] for _, shard in self.todo)
        queries = f"{self.todo[0][0].id} to {self.todo[-1][0].id}"
        return f"{self.stage} of {queries}, draws {start} to {end - 1}"

    def requests(self, kit: Kit) -> list[DrawRequest]:
        """Every draw by its name."""
        found = []
        for (query, shard), proposals in zip(self.todo, self.proposals, strict=True):
            prompt, name = kit.target.encode(query), f"{kit.config.seed}/{self.stage}/{query.id}"
            first = shard[0] // self.continuations
            for number in range(*shard):
                prefix = number // self.continuations
                shared = f"{name}/prefix/{prefix}" if self.continuations > 1 else ""
                proposal, seed = proposals[prefix - first], f"{name}/{number}"
                found.append(DrawRequest(query.id, prompt, proposal, number, seed, shared))
        return found


@dataclass(frozen=True)
class Drawn:
    """What a task drew.

    Attributes:
        batches: One for each of its queries.
        rows: Rows that memory had room for: those of the task, or fewer.
    """

    batches: Sequence[SampleBatch]
    rows: int


def draw_ranges(kit: Kit, task: DrawTask) -> Drawn:
    """Draw; when memory runs out, with half as many rows.

    The law of the draws is the same, their bytes may not be: the manifest says which.

    Raises:
        ModelError: If memory runs out with the fewest rows.
    """
    with _named(task):
        requests = task.requests(kit)
        return Drawn(*in_memory(lambda rows: _drawn(kit, task, requests, rows), task.rows))


def in_memory(draw_all: Callable[[int], Made], rows: int) -> tuple[Made, int]:
    """What a function draws with so many rows, and with how many it did.

    Args:
        draw_all: Draws with a number of rows; called with half as many when memory runs out.
        rows: The number to begin with.

    Raises:
        ModelError: If memory runs out with the fewest rows.
    """
    while True:
        try:
            return draw_all(rows), rows
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
        if rows < 4:
            raise ModelError(
                f"memory ran out with {rows} rows in a batch ({reason}): lower "
                "max_new_tokens, or load the model with --bits 4 or on a larger device."
            )
        rows //= 2


def _drawn(
    kit: Kit, task: DrawTask, requests: Sequence[DrawRequest], rows: int
) -> list[SampleBatch]:
    """Draw requests by our loop, with an engine past the switches, or by what runs the target."""
    settings, vector = kit.config.sampling_settings, task.steering
    if isinstance(kit.target, Served):
        return draw_served(kit.target, requests, settings, steering=vector, kinds=task.kinds)
    engine = kit.engine(rows)
    if engine is not None:
        longest = max(one.steered_tokens for one in kit.config.components)
        return draw_with_engine(
            kit.target, requests, settings, engine,
            steering=vector, kinds=task.kinds, slots=rows, own_tokens=longest,
        )  # fmt: skip
    judge = kit.judge if task.settles else None
    stops = stops_of(judge, [query for query, _ in task.todo], kit.config)
    return draw(
        kit.target, requests, settings,
        steering=vector, kinds=task.kinds, slots=rows, stops=stops,
    )  # fmt: skip


def stops_of(judge: Judge | None, queries: Iterable[Query], config: RunConfig) -> Stops:
    """What ends completions of these queries early; a judge that is None is not asked."""
    by_id = {query.id: query for query in queries}

    ask = judge.settled if judge is not None and config.settle else None

    def settled(query_id: str, text: str) -> int | None:
        try:
            return ask and ask(by_id[query_id], text)
        except Exception:  # the judge is asked again, and heard, about the whole text
            return None

    return Stops(settled if ask is not None else None, is_refusal, config.roulette)


@dataclass(frozen=True)
class ScoreTask:
    """Score completions in one batch.

    Attributes:
        name: What they are.
        prompts: The query of each.
        completions: Their tokens.
        streams: Strengths and heats to score at.
        tokens: Only the first this many tokens are scored.
        rows: Rows of a forward pass.
        steering: The steering vector.
        kinds: Kinds of streams besides the steered one, by name.
    """

    name: str
    prompts: Sequence[Query]
    completions: Sequence[Sequence[int]]
    streams: Sequence[StreamKey]
    tokens: int
    rows: int
    steering: SteeringVector | None
    kinds: Mapping[str, StreamKind]


Scored = tuple[NDArray[np.float64], NDArray[np.float64], int]
"""Log-probabilities under the target and the streams, and token forwards."""


def score_completions(kit: Kit, task: ScoreTask) -> Scored:
    """Score; see :func:`tailcast.sampling.score`."""
    queries = {query.id: query for query in task.prompts}  # each has many hits
    by_id = {id: kit.target.encode(query) for id, query in queries.items()}
    prompts = [by_id[query.id] for query in task.prompts]
    with _named(task):
        if isinstance(kit.target, Served):
            return score_served(
                kit.target, prompts, task.completions, task.streams,
                tokens=task.tokens, steering=task.steering, kinds=task.kinds,
            )  # fmt: skip
        return score(
            Streams(kit.target, task.steering, task.kinds), prompts, task.completions,
            task.streams, kit.config.sampling_settings, tokens=task.tokens, slots=task.rows,
        )  # fmt: skip


@contextmanager
def _named(task: Task) -> Iterator[None]:
    """Say of what fails which queries and draws it was about: a worker may be far away."""
    try:
        yield
    except ModelError as error:
        error.args = (f"{task.name}: {error}",)
        raise
