"""Swarms of every query: drawn, judged and put together to estimates.

A shard is a range of first particles, whole swarms. The shards of a block of queries that have
the same range are drawn together on a schedule that depends on nothing else, as those of
:mod:`tailcast.pipeline.shards` are: a run that was killed goes on with the same bytes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailcast.analysis.draws import Draws, read_draws
from tailcast.analysis.planned import expected_draws
from tailcast.errors import ConfigError
from tailcast.pipeline.shards import (
    BLOCK_QUERIES,
    Bench,
    covered,
    judge_shards,
    next_shards,
    unjudged,
)
from tailcast.pipeline.tasks import Todo, in_memory, stops_of
from tailcast.progress import Progress
from tailcast.proposals import Proposal
from tailcast.sampling import (
    OpeningOdds,
    PrefixScore,
    Projection,
    SplitRequest,
    split,
    usual_tokens,
)
from tailcast.sampling.swarm import Particle, Swarm
from tailcast.stats import Estimate, SwarmHits, splitting_estimate
from tailcast.types import Query, SampleBatch, Target

__all__ = ["STAGE", "split_queries"]

STAGE = "splitting"
_SHARD_PARTICLES = 256


def split_queries(
    bench: Bench, queries: Sequence[Query], progress: Progress
) -> dict[str, Estimate]:
    """Draw, judge and estimate what is missing of every query.

    Args:
        bench: What to draw and judge with.
        queries: The queries.
        progress: Told of every shard.

    Returns:
        The estimate of each query, by id.
    """
    config = bench.config
    score, spent = _score(bench, queries)
    draws = {query.id: config.samples for query in queries}
    there = sum(map(covered, _there(bench, queries).values()))
    total, done = len(queries) * config.samples, min(there, len(queries) * config.samples)
    progress.start(STAGE, *(expected_draws(n, config.floor) for n in (total, done)))
    size = max(1, _SHARD_PARTICLES // config.particles) * config.particles
    for first in range(0, len(queries), BLOCK_QUERIES):
        block = queries[first : first + BLOCK_QUERIES]
        for query in block:
            known = [(query, shard) for shard in bench.store.shards(STAGE, query.id)]
            judge_shards(bench, unjudged(bench, STAGE, known), progress)
        while todo := next_shards(_there(bench, block), block, draws, size=size):
            _draw(bench, todo, score)
            judge_shards(bench, unjudged(bench, STAGE, todo), progress)
    return {query.id: _estimate(bench, query, spent.get(query.id, 0)) for query in queries}


def _there(bench: Bench, queries: Sequence[Query]) -> dict[str, list[tuple[int, int]]]:
    """The ranges of particles that are there, by query."""
    return {query.id: bench.store.shards(STAGE, query.id) for query in queries}


def _score(bench: Bench, queries: Sequence[Query]) -> tuple[PrefixScore, dict[str, int]]:
    """The score of prefixes, and the token forwards that were spent to find it, by query."""
    config = bench.config
    if config.split_score == "steering":
        if bench.steering is None:
            raise ConfigError("score steering needs a steering vector: give one, or usual.")
        return Projection(bench.steering), {}
    kept = bench.store.read_json("openings.json")
    if kept is None:
        tokens, forwards = usual_tokens(
            bench.kit.target, {query.id: bench.kit.target.encode(query) for query in queries},
            config.sampling_settings, seed=str(config.seed), slots=bench.rows.number,
            stops=replace(stops_of(bench.judge, queries, config), rate=1.0),
        )  # fmt: skip
        kept = {id: [tokens[id], forwards[id]] for id in tokens}
        bench.store.write_json("openings.json", kept)
    usual = {id: one[0] for id, one in kept.items()}
    return OpeningOdds(usual, config.sampling_settings), {id: one[1] for id, one in kept.items()}


def _draw(bench: Bench, todo: Todo, score: PrefixScore) -> None:
    """Draw ranges of the queries of a block; keep what is not there yet."""
    config, size = bench.config, bench.config.particles
    requests = [
        SplitRequest(
            query.id, bench.kit.target.encode(query), number, size, config.floor,
            f"{config.seed}/{STAGE}/{query.id}",
        )
        for query, shard in todo
        for number in range(shard[0] // size, shard[1] // size)
    ]  # fmt: skip
    block = [query for query, _ in todo]
    name = f"{STAGE} of {block[0].id} to {block[-1].id}, particles from {todo[0][1][0]}"
    stops = stops_of(bench.judge, block, config)
    found, rows = in_memory(
        lambda slots: split(
            bench.kit.target, requests, config.sampling_settings, score, slots=slots, stops=stops
        ),
        bench.rows.number,
    )
    if rows < bench.rows.number:
        bench.rows.number = rows
        bench.store.note("out_of_memory", f"{name}: drawn with {rows} rows")
    swarms = iter(found.swarms)
    for query, shard in todo:
        mine = [next(swarms) for _ in range(shard[0] // size, shard[1] // size)]
        if shard not in bench.store.shards(STAGE, query.id):
            particles = [one for swarm in mine for one in swarm.particles]
            batch = _batch(bench.kit.target, query.id, particles, config.max_new_tokens)
            batch = replace(batch, token_forwards=found.token_forwards[query.id])
            bench.store.write_swarms(STAGE, query.id, shard, _record(mine, shard[0] // size))
            bench.store.write_batch(STAGE, shard, batch)


def _batch(target: Target, query_id: str, particles: Sequence[Particle], width: int) -> SampleBatch:
    """Particles as draws of the target; what each stands for is in ``log_roulette``."""

    def padded(values: Sequence[Sequence[float]], fill: float, dtype: Any) -> NDArray[Any]:
        table = np.full((len(values), width), fill, dtype=dtype)
        for line, value in zip(table, values, strict=True):
            line[: len(value)] = value
        return table

    return SampleBatch(
        query_id=query_id,
        draws=np.arange(len(particles)),
        proposals=(Proposal.target(),) * len(particles),
        tokens=padded([one.tokens for one in particles], -1, np.int32),
        lengths=np.array([len(one.tokens) for one in particles], dtype=np.int64),
        token_logp=padded([one.logp for one in particles], 0, np.float32),
        token_logs=np.zeros((len(particles), width), dtype=np.float32),
        texts=tuple(target.decode(one.tokens) for one in particles),
        finish=tuple(one.finish for one in particles),
        token_forwards=0,
        log_roulette=np.array([one.log_mass for one in particles]),
    )


def _record(swarms: Sequence[Swarm], first: int) -> dict[str, Any]:
    """Where in the swarms each draw of a shard has its place."""
    particles = [one for swarm in swarms for one in swarm.particles]
    return {
        "swarms": [
            {
                "number": first + number,
                "drawn": len(swarm.particles),
                "ended": swarm.ended,
                "levels": [level if math.isfinite(level) else None for level in swarm.levels],
                "killed": swarm.killed,
            }
            for number, swarm in enumerate(swarms)
        ],
        "generation": [one.generation for one in particles],
        "ancestor": [one.ancestor for one in particles],
        "copied": [one.copied for one in particles],
    }


def _estimate(bench: Bench, query: Query, spent: int) -> Estimate:
    """The estimate of one query; completions that the judge failed on count on both sides."""
    draws = read_draws(bench.store, STAGE, query.id)
    level = bench.config.level

    def with_hits(hits: NDArray[np.bool_]) -> Estimate:
        return splitting_estimate(list(_swarm_hits(bench, query, draws, hits)), level=level)

    cost = {**draws.cost, "token_forwards": draws.cost["token_forwards"] + spent}
    one = with_hits(draws.hits)
    one = replace(one, query_id=query.id, prompt=query.prompt, cost=cost)
    failed = int(draws.failed.sum())
    return one.with_failures(failed, with_hits(draws.hits | draws.failed)) if failed else one


def _swarm_hits(
    bench: Bench, query: Query, draws: Draws, hits: NDArray[np.bool_]
) -> Iterator[SwarmHits]:
    """The hits of every swarm of a query."""
    size, at = bench.config.particles, 0
    masses = np.exp(draws.log_weights) / size
    for shard in bench.store.shards(STAGE, query.id):
        record = bench.store.read_swarms(STAGE, query.id, shard)
        begun = at
        for swarm in record["swarms"]:
            mine = np.arange(at, at + swarm["drawn"])
            at += swarm["drawn"]
            hit = mine[hits[mine]]
            ancestor, generation = (
                np.array(record[name])[hit - begun] for name in ("ancestor", "generation")
            )
            first = int((generation == 0).sum())
            yield SwarmHits(masses[hit], ancestor.astype(np.int64), first, size, len(mine))
