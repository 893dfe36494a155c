"""Adaptive rounds: each round's mixture follows from all that was seen before it.

The first round spreads its draws evenly over the components and is the pilot; from the second
on each query gets the shares that its hits and those of all queries ask for, and more of the
budget where the relative error is worst (method.md section 5). The plan of a round is written
before its first draw, so that a run that was killed goes on with the same plan.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import numpy as np

from tailcast.analysis.draws import read_round
from tailcast.config import RunConfig
from tailcast.mixtures import Mixture
from tailcast.pipeline.allocation import Spent, first_round, next_round
from tailcast.pipeline.learning import Trail, informed, left_out, read_trail
from tailcast.pipeline.shards import Bench, draw_stage
from tailcast.pipeline.shelf import Shelf, Shelved
from tailcast.pipeline.stopping import reached, spent_budget
from tailcast.pipeline.tasks import EncodeTask, encode_queries, outcome_of
from tailcast.pipeline.weigh import Work, own_passes, score_hits, work_of
from tailcast.progress import Progress
from tailcast.proposals import Proposal
from tailcast.stats import Estimate, Round, mixture_estimate, monte_carlo_anytime
from tailcast.types import Query

__all__ = ["History", "run_rounds"]


@dataclass
class History:
    """What the rounds of one query brought.

    Attributes:
        rounds: Its rounds.
        pessimistic: The same if every completion that the judge failed on were a hit.
        works: What the draws cost.
        trails: First tokens of the hits, for streams that learn from them.
        cost: Token forwards and judge calls paid for.
        failed: Completions that the judge failed on.
        plain: Hits and number of draws of the target made beside the rounds.
        ended: What ended its sampling; empty while it goes on.
        hits: Hits of all rounds.
        mass: Sum of w*h of all rounds.
        n: Draws of all rounds.
    """

    rounds: list[Round] | Shelved[Round] = field(default_factory=list)
    pessimistic: list[Round] | Shelved[Round] = field(default_factory=list)
    works: list[Work] | Shelved[Work] = field(default_factory=list)
    trails: list[Trail] | Shelved[Trail] = field(default_factory=list)
    cost: dict[str, int] = field(default_factory=lambda: {"token_forwards": 0, "judge_calls": 0})
    failed: int = 0
    plain: tuple[int, int] = (0, 0)
    ended: str = ""
    hits: int = 0
    mass: float = 0.0
    n: int = 0

    def add(self, found: Round, pessimistic: Round, work: Work) -> None:
        """Take in a round."""
        self.rounds.append(found)
        self.pessimistic.append(pessimistic)
        self.works.append(work)
        self.hits += len(found.component)
        self.mass += float(np.exp(found.log_weighted).sum())
        self.n += found.n

    def estimate(self, config: RunConfig) -> Estimate:
        """The estimate from all rounds so far."""
        look = len(self.rounds) if config.until else 0
        one = _estimate(self.rounds, config, look, self.plain)
        if self.failed:
            upper = _estimate(self.pessimistic, config, look, self.plain)
            one = one.with_failures(self.failed, upper)
        return replace(one, cost=self.cost, ended=self.ended)

    @property
    def risk_so_far(self) -> float:
        """The estimate of the rounds so far; 0 without a hit."""
        return self.mass / max(1, self.n)

    def target_draws(self, continuations: int = 1) -> tuple[int, int]:
        """Hits among draws of the target, and their number."""
        return _target_draws(self.rounds, self.plain, continuations)

    def foretold(self) -> tuple[float, float]:
        """Risk by the first round's proposals without the target's draws, and its error.

        The first round, because its draws are spread over everything that was thought of;
        later ones may leave to the target what it does best.
        """
        values = np.exp(self.rounds[0].undefended)
        n = int(self.rounds[0].counts[1:].sum())
        if not n:
            return 0.0, 0.0
        spread = max(float((values**2).sum() - values.sum() ** 2 / n), 0.0)
        return float(values.sum() / n), float(np.sqrt(spread) / n)


def _target_draws(
    rounds: Sequence[Round], plain: tuple[int, int], continuations: int
) -> tuple[int, int]:
    """A draw of the target has no prefix: its continuations are independent draws."""
    shares = sum(float(np.exp(one.log_values[one.component == 0]).sum()) for one in rounds)
    draws = sum(int(one.counts[0]) for one in rounds)
    return round(shares * continuations) + plain[0], draws * continuations + plain[1]


def _estimate(
    rounds: Sequence[Round], config: RunConfig, look: int, plain: tuple[int, int]
) -> Estimate:
    countable = config.countable
    target = _target_draws(rounds, plain, config.continuations) if countable else None
    if target and len(rounds[0].counts) == 1:
        hits, n = _target_draws(rounds, (0, 0), config.continuations)
        return monte_carlo_anytime(hits, n, level=config.level, look=look)
    return mixture_estimate(rounds, level=config.level, look=look, target=target)


def run_rounds(
    bench: Bench, queries: Sequence[Query], components: Sequence[Proposal], progress: Progress,
    *, plain: Mapping[str, tuple[int, int]],
) -> dict[str, History]:  # fmt: skip
    """Draw round after round until the draws, the rule or the budget end it.

    Args:
        bench: What to draw and judge with.
        queries: The queries.
        components: Of the mixture, the target first.
        progress: Told of every round.
        plain: Hits and number of the target's draws made before, by query.
    """
    config, store = bench.config, bench.store
    components, shelf = tuple(components), Shelf()
    history = {
        one.id: History(
            Shelved(shelf), Shelved(shelf), Shelved(shelf), Shelved(shelf),
            plain=plain.get(one.id, (0, 0)),
        )
        for one in queries
    }  # fmt: skip
    prompts = _prompts(bench, queries) if bench.kinds else {}
    plan: dict[str, Any] = {}
    done, number, seconds = 0, 0, 0.0
    while True:
        begun, name = time.monotonic(), f"rounds/{number:04d}.json"
        kept = store.read_json(name)
        rounds = {id: one.rounds for id, one in history.items()}
        trails = {id: one.trails for id, one in history.items()}
        bench = informed(bench, rounds, trails, prompts)
        plan = kept or _plan(bench, components, history, prompts, done, plan)
        if not plan:
            return history
        if not kept:
            store.write_json(name, plan)
        mixtures = {id: Mixture(components, tuple(n)) for id, n in plan["counts"].items()}
        mine = [query for query in queries if query.id in mixtures]
        _draw_round(bench, f"round-{number}", mine, mixtures, plan["streams"], progress)
        for query in mine:
            _take(bench, f"round-{number}", query, mixtures[query.id], history[query.id])
        done, number = done + plan["size"], number + 1
        seconds = plan.get("seconds", seconds + time.monotonic() - begun)
        if config.budget and config.budget[0] == "minutes" and "seconds" not in plan:
            store.write_json(name, {**plan, "seconds": seconds})
        _close(config, history, seconds)
        progress.say(_said(number, history, config))


def _prompts(bench: Bench, queries: Sequence[Query]) -> dict[str, tuple[int, ...]]:
    """Prompt tokens of every query, by a worker: the model need not be in this process."""
    return outcome_of(bench.workers, encode_queries, EncodeTask(queries))


def _plan(
    bench: Bench, components: Sequence[Proposal], history: Mapping[str, History],
    prompts: Mapping[str, tuple[int, ...]], done: int, last: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The next round; empty when nothing is left to do."""
    config, spent = bench.config, {}
    ids = [id for id, one in history.items() if not one.ended]
    left = config.draws // config.continuations - done
    if left <= 0 or not ids:
        for id in ids:
            history[id].ended = "samples"
        return {}
    for id, one in history.items():
        prompt = prompts.get(id, ())
        rounds = left_out(bench, components, one.rounds, one.trails, prompt, len(history))
        spent[id] = Spent(rounds, one.works, one.estimate(config) if done else None)
    if done and len(components) > 1:
        plan = next_round(spent, ids, components, last["streams"], done, left, config.target_share)
    else:
        plan = first_round(ids, components, done, left, config.target_share)
    shown = [astuple(one) for one in components]
    return {**plan, "components": shown}


def _draw_round(
    bench: Bench, stage: str, queries: Sequence[Query], mixtures: Mapping[str, Mixture],
    streams: Sequence[int], progress: Progress,
) -> None:  # fmt: skip
    """Draw, judge and score."""

    def law(query_id: str, number: int) -> Proposal:
        mixture = mixtures[query_id]
        return mixture.components[int(mixture.index(number))]

    several = bench.config.continuations
    draws = {id: len(mixture) * several for id, mixture in mixtures.items()}
    draw_stage(bench, stage, queries, draws, law=law, progress=progress)
    components = next(iter(mixtures.values())).components
    score_hits(bench, stage, queries, [components[index] for index in streams])


def _take(bench: Bench, stage: str, query: Query, mixture: Mixture, history: History) -> None:
    """Read what a round brought to a query."""
    several = bench.config.continuations
    found, draws = read_round(bench.store, stage, query.id, mixture, continuations=several)
    history.trails.append(read_trail(bench, stage, query, found))
    failed = int(draws.failed.sum())
    history.failed += failed
    pessimistic = found
    if failed:
        pessimistic, _ = read_round(
            bench.store, stage, query.id, mixture, continuations=several, failed_hit=True
        )
    passes = own_passes(bench, query, mixture.components)
    work = work_of(draws, mixture, several, passes, read=not bench.settles)
    history.add(found, pessimistic, work)
    for name, number in draws.cost.items():
        history.cost[name] += number


def _close(config: RunConfig, history: Mapping[str, History], seconds: float) -> None:
    """End the queries whose rule is fulfilled, or all of them with the budget."""
    for one in history.values():
        if config.until and not one.ended:
            one.ended = reached(config.until, one.estimate(config))
    over = spent_budget(config.budget, [one.cost for one in history.values()], seconds)
    for one in history.values():
        one.ended = one.ended or over


def _said(number: int, history: Mapping[str, History], config: RunConfig) -> str:
    hits = sum(one.hits for one in history.values())
    silent = sum(not one.hits for one in history.values())
    ended = sum(bool(one.ended) for one in history.values())
    mean = float(np.mean([one.risk_so_far for one in history.values()]))
    text = f"Round {number}: {hits} hits so far, {silent} queries without any, mean risk {mean:.2g}"
    return f"{text}, {ended} ended." if config.until else f"{text}."
