"""config -> steer -> pilot -> select -> sample -> judge -> estimate.

Each step leaves its artefact in the run directory, and a step whose artefact is there is
not done again: to resume is to run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from tailcast.analysis.asked import QUERIES
from tailcast.analysis.draws import Draws, read_draws
from tailcast.behaviours import is_behaviour
from tailcast.config import RunConfig
from tailcast.data import load_queries, pairs_digest, queries_digest
from tailcast.errors import StoreError
from tailcast.mixtures import LEARNING
from tailcast.pipeline.check import Case, audits_of, compared, history_case
from tailcast.pipeline.judging import MeetTask, meet_judge
from tailcast.pipeline.kinds import build_kinds, streams_digest
from tailcast.pipeline.rounds import run_rounds
from tailcast.pipeline.select import Selection, select_proposals
from tailcast.pipeline.sessions import session
from tailcast.pipeline.shards import Bench, Rows, draw_stage
from tailcast.pipeline.splitting import split_queries
from tailcast.pipeline.steer import steering_of
from tailcast.pipeline.tasks import FitTask, ReadTask, fit_vector, outcome_of, read_model
from tailcast.progress import Progress
from tailcast.proposals import Proposal
from tailcast.sampling import StreamKind
from tailcast.stats import Audit, Estimate, importance_sampling, monte_carlo
from tailcast.store import RunStore
from tailcast.streams import Openings
from tailcast.types import ContrastPair, Engine, Judge, Query, SteeringVector, Target
from tailcast.workers import Kit, open_judges, open_workers

__all__ = ["Inputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """Objects that stand in for what the config names: a loaded model, a judge, queries ..."""

    target: Target | None = None
    judge: Judge | None = None
    queries: Sequence[Query] | None = None
    steering: SteeringVector | None = None
    engine: Engine | None = None
    streams: Mapping[str, StreamKind] | None = None


def run(
    config: RunConfig, *, inputs: Inputs | None = None, progress: Progress | None = None
) -> list[Estimate]:
    """Measure the risk of every query and keep all of it in the run directory.

    Args:
        config: What to do; ``config.out`` must be set.
        inputs: Objects to use instead of loading what the config names.
        progress: Told of what happens.

    Returns:
        One estimate for each query and method, in the order of the queries; the same is in
        ``estimates.jsonl``.

    Raises:
        TailcastError: If anything the config names cannot be used, or the directory belongs
            to another run. What was drawn before stays.
    """
    inputs, progress = inputs or Inputs(), progress or Progress()
    if config.out is None:
        raise StoreError("out is missing: name a run directory with --out.")
    store = RunStore(config.out)
    queries = inputs.queries or load_queries(
        config.queries, column=config.column, limit=config.limit
    )
    queries = queries[: config.limit]
    kit = Kit(config, target=inputs.target, judge=inputs.judge, engine=inputs.engine)
    judge = None if config.judges else meet_judge(kit, MeetTask(queries))
    with store.locked():
        facts = _facts(config, queries, inputs)
        if judge and judge.fingerprint:
            facts["judge"] = judge.fingerprint
        begun = store.check(config.model_dump(mode="json"), facts)
        if not (begun and store.holds(QUERIES)):
            store.write_lines(QUERIES, [asdict(query) for query in queries])
        there = store.holds("estimates.jsonl")
        if there and store.read_json("finished.json") == _size(config):
            progress.say(f"{store.path} is finished: nothing to do.")
            return [_record(row) for row in store.read_lines("estimates.jsonl")]
        with (
            session(store, _size(config)),
            open_workers(kit, progress.say) as workers,
            open_judges(kit, progress.say) as judges,
        ):
            judge = judge or outcome_of(judges, meet_judge, MeetTask(queries))
            bench = Bench(store, workers, judges, kit, judge)
            bench = _equipped(bench, facts, inputs, queries, progress)
            try:
                return _measure(bench, queries, config, progress)
            finally:
                _add_usage(bench, progress)


def _equipped(
    bench: Bench, facts: dict[str, str], inputs: Inputs, queries: Sequence[Query],
    progress: Progress,
) -> Bench:  # fmt: skip
    """Load the model, make sure that it is the run's, and all that it is steered by."""
    store, workers, kit, config = bench.store, bench.workers, bench.kit, bench.config
    model = outcome_of(workers, read_model, ReadTask())
    rows = config.batch or int(store.fact("rows") or model.rows)
    facts |= {"model": model.fingerprint, "revision": model.revision, "rows": str(rows)}
    if bench.facts.fingerprint:
        facts["judge"] = bench.facts.fingerprint
    kinds = build_kinds(kit, queries, inputs.streams or {}) if config.streams else {}
    if kinds:
        facts["streams"] = streams_digest(kinds)
    if config.learns:
        kinds[LEARNING] = Openings()
    store.check(config.model_dump(mode="json"), facts)

    def fit(pairs: Sequence[ContrastPair]) -> SteeringVector:
        progress.say("Fitting the steering vector.")
        return outcome_of(workers, fit_vector, FitTask(pairs))

    steering = inputs.steering or steering_of(config, store, fit, model.weights)
    return replace(bench, rows=Rows(rows), steering=steering, kinds=kinds)


def _add_usage(bench: Bench, progress: Progress) -> None:
    """What the judge did, added to what it did for the same run before."""
    store, used = bench.store, dict(bench.used)
    if bench.config.judges is None:  # what it did for a shard that was cut short, too
        used = bench.judge.usage() if bench.judge.usage else {}
    if not any(used.values()):
        return
    before = store.read_json("judge.json") or {}
    store.write_json("judge.json", {name: n + before.get(name, 0) for name, n in used.items()})
    words = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in used.items())
    progress.say(f"Judge: {words}.")


def _measure(
    bench: Bench, queries: Sequence[Query], config: RunConfig, progress: Progress
) -> list[Estimate]:
    """Select, sample, estimate, audit."""
    selection = _selection(bench, queries, config, progress)
    stages = {"mc": config.monte_carlo}
    if not (config.by_rounds or config.splits):
        stages["is" if config.steers and not selection.given_up else "mc"] = config.samples

    def own(query_id: str, number: int) -> Proposal:
        return selection.proposals[query_id]

    def plain(query_id: str, number: int) -> Proposal:
        return Proposal.target()

    stages = {stage: draws for stage, draws in stages.items() if draws}
    for stage, count in stages.items():
        law = own if stage == "is" else plain
        draws = {query.id: count for query in queries}
        draw_stage(bench, stage, queries, draws, law=law, progress=progress)
    found = {query.id: list(_estimates(bench, query, stages)) for query in queries}
    cases = {id: compared(*pair) for id, pair in found.items() if len(pair) == 2}
    if config.by_rounds:
        cases = _add_rounds(bench, queries, found, progress)
    if config.splits:
        for id, one in split_queries(bench, queries, progress).items():
            found[id].append(one)
    audits = audits_of(queries, cases, config.level)
    bench.store.write_json("audit.json", [one.record() for one in audits])
    estimates = [_marked(one, selection, audits) for query in queries for one in found[query.id]]
    bench.store.write_lines("estimates.jsonl", [asdict(one) for one in estimates])
    bench.store.write_json("finished.json", _size(config))
    return estimates


def _add_rounds(
    bench: Bench, queries: Sequence[Query], found: dict[str, list[Estimate]], progress: Progress
) -> dict[str, Case]:
    """Estimates by adaptive rounds beside those that are there; what the audit compares."""
    config, countable = bench.config, bench.config.countable
    plain = {id: (pair[0].n_hits, pair[0].n) for id, pair in found.items() if pair and countable}
    history = run_rounds(bench, queries, config.components, progress, plain=plain)
    for query in queries:
        one = history[query.id].estimate(config)
        found[query.id].append(replace(one, query_id=query.id, prompt=query.prompt))
    if not (config.steers and countable):
        return {}
    return {id: history_case(one, config.continuations) for id, one in history.items()}


def _marked(one: Estimate, selection: Selection, audits: Sequence[Audit]) -> Estimate:
    """The estimate with what the whole run says of it."""
    if selection.given_up:
        one = one.marked("weak", "the pilot found no proposal, this is plain sampling")
    fired = next((each for each in audits if each.fires), None)
    if fired is not None and one.method in ("is", "mixture"):
        one = one.marked("weak", f"audit of {fired.name}: {fired.sentence}")
    return one


def _estimates(bench: Bench, query: Query, stages: Iterable[str]) -> Iterator[Estimate]:
    """One estimate for each stage, "mc" first; draws of the target bound the other from above."""
    ceiling = 1.0
    for stage in stages:
        draws = read_draws(bench.store, stage, query.id)
        one = _estimate(query, stage, draws, bench.config)
        if one.method == "mc":
            ceiling = one.p_high_guaranteed
        yield replace(one, p_high_guaranteed=ceiling)


def _estimate(query: Query, stage: str, draws: Draws, config: RunConfig) -> Estimate:
    """The estimate of one query; completions that the judge failed on count on both sides."""
    several = config.continuations if stage == "is" else 1

    def with_hits(hits: Any) -> Estimate:
        if stage == "mc" and config.countable:
            return monte_carlo(hits, level=config.level)
        one = importance_sampling(
            draws.log_weights, hits, level=config.level, continuations=several
        )
        if stage == "is":
            return one
        return replace(one, method="mc-roulette" if config.roulette < 1 else "mc-screen")

    one = replace(with_hits(draws.hits), query_id=query.id, prompt=query.prompt, cost=draws.cost)
    failed = int(draws.failed.sum())
    return one.with_failures(failed, with_hits(draws.hits | draws.failed)) if failed else one


def _selection(
    bench: Bench, queries: Sequence[Query], config: RunConfig, progress: Progress
) -> Selection:
    """The proposal of every query: given, chosen before, or chosen now."""
    if not config.selects:
        given = config.proposal and config.main_method == "paper"
        fixed = Proposal.parse(config.proposal or "") if given else Proposal.target()
        return Selection({query.id: fixed for query in queries}, {}, False)
    kept = bench.store.read_json("selection.json")
    if kept is not None:
        proposals = {id: Proposal(*values) for id, values in kept["proposals"].items()}
        return Selection(proposals, kept, kept["given_up"])
    selection = select_proposals(bench, queries, config, progress)
    chosen = {id: (one.strength, one.switch, one.mix) for id, one in selection.proposals.items()}
    bench.store.write_json("selection.json", {**selection.record, "proposals": chosen})
    progress.say(f"Selected: {selection.record.get('pooled', 'the target')}.")
    return selection


def _facts(config: RunConfig, queries: Sequence[Query], inputs: Inputs) -> dict[str, str]:
    """Digests of what the config names and could have changed since."""
    facts = {"queries": queries_digest(queries)}
    if config.steering and Path(config.steering).is_file():
        facts["steering"] = sha256(Path(config.steering).read_bytes()).hexdigest()[:16]
    if config.pairs and (Path(config.pairs).is_file() or is_behaviour(config.pairs)):
        facts["pairs"] = pairs_digest(config.pairs)
    if inputs.steering is not None:
        facts["steering"] = inputs.steering.digest
    return facts


def _size(config: RunConfig) -> dict[str, Any]:
    """What may grow or change between calls, and ends a run."""
    return {
        "samples": config.draws,
        "monte_carlo": config.monte_carlo,
        "budget": list(config.budget) if config.budget else None,
    }


def _record(row: dict[str, Any]) -> Estimate:
    try:
        return Estimate(**{**row, "reasons": tuple(row["reasons"])})
    except (TypeError, KeyError) as error:
        raise StoreError(
            f"a line of estimates.jsonl is damaged ({error}): delete the file."
        ) from None
