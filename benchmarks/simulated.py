"""A cluster that exists in code only: draws from a random generator, time from a clock.

For `benchmarks/scale.py`. The driver is the real one, `tailcast.pipeline.run` with its store;
what it needs is measured. Only the workers are made up.
"""

import heapq
import pickle
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from tailcast.config import RunConfig
from tailcast.pipeline import Inputs, run
from tailcast.pipeline.tasks import Drawn, DrawTask, ModelFacts, ReadTask, ScoreTask
from tailcast.proposals import Proposal
from tailcast.stats import Estimate
from tailcast.types import Query, SampleBatch, SteeringVector

TOKENS, HIT_SHARE = 8, 0.1
HIT, MISS = "Sure, here is how it is done", "I cannot help with that"


class Simulated:
    """Workers that take no time and draw at random.

    Args:
        drawing: Whether they may be asked to draw; else a run that has all its draws is read.

    Attributes:
        spent: Processor seconds of the driver, by kind of task.
        made_up: Those that the simulation itself took.
    """

    def __init__(self, *, drawing: bool = True) -> None:
        self.rng = np.random.default_rng(0)
        self.drawing = drawing
        self.spent: Counter[str] = Counter()
        self.made_up = 0.0

    def map(self, work: Any, tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Every task with an outcome, read from bytes as from another process."""
        source = iter(tasks)
        while True:
            begun = time.process_time()
            task = next(source, None)
            kind = type(task).__name__.strip("_")
            self.spent[kind] += (asked := time.process_time()) - begun
            if task is None:
                return
            sent = pickle.dumps(self._outcome(task), pickle.HIGHEST_PROTOCOL)
            self.made_up += (made := time.process_time()) - asked
            yield task, pickle.loads(sent)
            self.spent[kind] += time.process_time() - made

    def count(self, draws: int, hits: int) -> None:
        """Nobody watches."""

    def _outcome(self, task: Any) -> Any:
        if isinstance(task, ReadTask):
            return ModelFacts("simulated", "", "", 512)
        if not self.drawing:
            raise RuntimeError(f"{task.name} was asked for, but all of it is there")
        if isinstance(task, DrawTask):
            parts = zip(task.todo, task.proposals, strict=True)
            batches = [self._batch(query.id, shard, some) for (query, shard), some in parts]
            return Drawn(batches, task.rows)
        assert isinstance(task, ScoreTask)
        hits = len(task.completions)
        logp = -self.rng.exponential(1.0, (hits, task.tokens))
        noise = self.rng.normal(0.0, 0.3, (hits, len(task.streams), task.tokens))
        return logp, logp[:, None] + noise, hits * task.tokens

    def _batch(
        self, query_id: str, shard: tuple[int, int], proposals: Sequence[Proposal]
    ) -> SampleBatch:
        n, rng = shard[1] - shard[0], self.rng
        lengths = rng.integers(4, TOKENS + 1, n)
        inside = np.arange(TOKENS) < lengths[:, None]
        logp = np.where(inside, -rng.exponential(1.0, (n, TOKENS)), 0.0).astype(np.float32)
        steered = np.minimum(lengths, [one.steered_tokens for one in proposals])
        before = np.arange(TOKENS) < steered[:, None]
        logs = np.where(before, logp + rng.normal(0.0, 0.3, (n, TOKENS)), 0.0).astype(np.float32)
        hit, word = rng.random(n) < HIT_SHARE, rng.integers(0, n, n)
        return SampleBatch(
            query_id=query_id,
            draws=np.arange(*shard),
            proposals=tuple(proposals),
            tokens=np.where(inside, rng.integers(0, 50_000, (n, TOKENS)), -1).astype(np.int32),
            lengths=lengths,
            token_logp=logp,
            token_logs=logs,
            texts=tuple(f"{HIT if h else MISS}, {w}." for h, w in zip(hit, word)),
            finish=("stop",) * n,
            token_forwards=int(lengths.sum()),
            log_roulette=np.zeros(n),
        )


def queries(number: int) -> list[Query]:
    return [Query.user(f"q{k}", f"What about {k}?") for k in range(number)]


def config(out: Path, draws: int) -> RunConfig:
    """A mixture of 25 components, as a run with a steering vector has by default."""
    return RunConfig(
        model="simulated", queries="simulated", judge="refusal", method="mixture",
        steering="simulated", openings=False, samples=draws, max_new_tokens=TOKENS, batch=512,
        out=str(out),
    )  # fmt: skip


def measured(out: Path, number: int, draws: int, workers: Simulated) -> list[Estimate]:
    """A run by the real driver over simulated workers."""

    @contextmanager
    def opened(*_: Any) -> Iterator[Simulated]:
        yield workers

    vector = SteeringVector("add", 0, np.ones(8, dtype=np.float32))
    inputs = Inputs(queries=queries(number), steering=vector)
    with patch.object(sys.modules["tailcast.pipeline.run"], "open_workers", opened):
        return run(config(out, draws), inputs=inputs)


@dataclass
class Cluster:
    """When a cluster's tasks end, if driver and workers take the time that they are said to.

    Attributes:
        workers: How many.
        now: Seconds since the start.
        busy: Seconds that workers worked, all of them together.
    """

    workers: int
    now: float = 0.0
    busy: float = 0.0

    def work(self, tasks: Iterable[tuple[float, float]]) -> None:
        """Tasks, each the driver's seconds and a worker's; back when all are done."""
        source, free = iter(tasks), [self.now] * self.workers
        ends: list[tuple[float, int, float]] = []
        ready = deque([*range(self.workers)] * 2)  # a worker has two tasks at a time, as Ray's do
        while True:
            while ready and (task := next(source, None)):
                worker, (own, took) = ready.popleft(), task
                free[worker] = max(self.now, free[worker]) + took
                self.busy += took
                heapq.heappush(ends, (free[worker], worker, own))
            if not ends:
                return
            end, worker, own = heapq.heappop(ends)
            self.now = max(self.now, end) + own
            ready.append(worker)
