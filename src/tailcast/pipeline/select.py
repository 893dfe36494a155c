"""Which proposal? A pilot from the random ensemble, then the cross-entropy method.

Method.md section 4. The pilot draws each completion from a proposal of its own, picked
uniformly from the grid; its weight is p over the ensemble's marginal. Only hits enter,
each scored once at every strength of the grid by one pass that also gives its log p:
switches and mixes are arithmetic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailcast.analysis.draws import Draws, read_draws
from tailcast.analysis.planned import pilot_number
from tailcast.config import RunConfig
from tailcast.pipeline.shards import Bench, draw_stage
from tailcast.pipeline.tasks import Scored, ScoreTask, score_completions
from tailcast.progress import Progress
from tailcast.proposals import Proposal, ProposalGrid, StreamKey
from tailcast.sampling.draw import draw_generator
from tailcast.stats import cross_entropy
from tailcast.types import Query

__all__ = ["Selection", "select_proposals"]

_WIDENINGS = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Selection:
    """The outcome of the pilot.

    Attributes:
        proposals: The proposal of every query, by id.
        record: What the run directory keeps: grid, hits, losses, cost.
        given_up: Whether no pilot found a hit, so that every proposal is the target.
    """

    proposals: dict[str, Proposal]
    record: dict[str, Any]
    given_up: bool


def select_proposals(
    bench: Bench, queries: Sequence[Query], config: RunConfig, progress: Progress
) -> Selection:
    """Run the pilot, widening the strengths while it has no hit, and choose.

    Without a hit at four times the grid's strengths it gives up to the target itself.
    """
    pilot = queries[: pilot_number(config, len(queries))]
    cost = {"token_forwards": 0, "judge_calls": 0}
    for factor in _WIDENINGS:
        grid = config.grid.widened(factor)
        stage = "pilot" if factor == 1.0 else f"pilot-x{factor:g}"
        found = _pilot(bench, stage, pilot, grid, config, progress)
        cost = {name: cost[name] + sum(one.cost[name] for one in found.values()) for name in cost}
        hits = {id: int(draws.hits.sum()) for id, draws in found.items()}
        if any(hits.values()):
            break
        progress.say(f"No hit in the pilot with strengths up to {max(grid.strengths):g}.")
    else:
        progress.say("The pilot found no hit at any strength: plain sampling is all that is left.")
        record = {"given_up": True, "pilot_hits": hits, "cost": cost}
        return Selection({query.id: Proposal.target() for query in queries}, record, True)
    tasks = [_scoring(bench, query, found[query.id], grid) for query in pilot if hits[query.id]]
    scored = {
        task.prompts[0].id: each for task, each in bench.workers.map(score_completions, tasks)
    }
    losses = {task.prompts[0].id: _losses(task, scored, grid) for task in tasks}
    return _choose(queries, losses, grid, {"pilot_hits": hits, "cost": cost}, config.per_query)


def _pilot(
    bench: Bench, stage: str, queries: Sequence[Query], grid: ProposalGrid, config: RunConfig,
    progress: Progress,
) -> dict[str, Draws]:  # fmt: skip
    def law(query_id: str, number: int) -> Proposal:
        return grid.draw(draw_generator(f"{config.seed}/{stage}/{query_id}/{number}/phi").random())

    draws = {query.id: config.pilot_samples for query in queries}
    draw_stage(bench, stage, queries, draws, law=law, progress=progress)
    return {query.id: read_draws(bench.store, stage, query.id) for query in queries}


def _scoring(bench: Bench, query: Query, draws: Draws, grid: ProposalGrid) -> ScoreTask:
    """One query's hits, to be scored at every strength of the grid."""
    completions = [
        row[:length].tolist()
        for batch, verdicts in zip(draws.batches, draws.verdicts, strict=True)
        for row, length, hit in zip(batch.tokens, batch.lengths, verdicts.hits, strict=True)
        if hit
    ]
    return ScoreTask(
        f"scoring the pilot of {query.id}", [query] * len(completions), completions,
        [StreamKey(strength) for strength in grid.strengths], max(grid.switches),
        bench.rows.number, bench.steering, {},
    )  # fmt: skip


def _losses(
    task: ScoreTask, scored: Mapping[str, Scored], grid: ProposalGrid
) -> NDArray[np.float64]:
    """Cross-entropy of every proposal of the grid on one query's hits, [grid]."""
    logp, logs, _ = scored[task.prompts[0].id]
    lengths = np.array([len(completion) for completion in task.completions])
    ratios = grid.log_ratios(logp, logs, lengths)
    return cross_entropy(ratios, -grid.log_marginal_ratio(ratios))


def _choose(
    queries: Sequence[Query],
    losses: dict[str, NDArray[np.float64]],
    grid: ProposalGrid,
    record: dict[str, Any],
    per_query: bool,
) -> Selection:
    total = sum(losses.values(), np.zeros(grid.shape))
    pooled = grid.at(int(total.argmin()))
    own = {id: grid.at(int(loss.argmin())) for id, loss in losses.items()} if per_query else {}
    ranked = np.argsort(total, axis=None)[:5]
    record |= {
        "given_up": False,
        "pooled": str(pooled),
        "grid": {
            "strengths": grid.strengths, "switches": grid.switches, "mixes": grid.mixes
        },
        "best": [[str(grid.at(int(one))), float(total.flat[one])] for one in ranked],
    }  # fmt: skip
    return Selection({query.id: own.get(query.id, pooled) for query in queries}, record, False)
