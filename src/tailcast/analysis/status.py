"""How far is a run, is anyone working on it, and when will it be done?

Read from the directory alone, while the run goes on, has stopped or has finished: nothing is
written and nothing is locked. Who works on it is in the manifest; how fast, in the times at which
its files were written.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from socket import gethostname
from typing import Any

import psutil
from pydantic import ValidationError

from tailcast.analysis.asked import read_queries
from tailcast.analysis.planned import pilot_number, planned_draws
from tailcast.analysis.tally import Counts, Shard, Tally, counts_of
from tailcast.config import RunConfig
from tailcast.errors import StoreError
from tailcast.names import slug
from tailcast.store import RunStore

__all__ = ["Progressed", "Status", "status_of"]

_WINDOW = 1800.0  # seconds before the last shard that a rate is reckoned from
_BURST = 1.0  # seconds within which the shards of one batch are written


@dataclass(frozen=True)
class Progressed:
    """How far a stage is.

    Attributes:
        stage: Its name; rounds are one each.
        drawn: Draws that are there.
        planned: Draws that it will have; None where that is decided on the way.
        judged: Draws with a verdict.
        hits: Hits among these.
        behind: Queries with fewer draws than the others, and how many each has.
    """

    stage: str
    drawn: int
    planned: int | None
    judged: int
    hits: int
    behind: dict[str, int]


@dataclass(frozen=True)
class Status:
    """The state of a run.

    Attributes:
        run: Its directory.
        state: "running", "stopped", "finished", or "unknown" where a process of another machine
            may work on it.
        written: When its last shard was written, in seconds since 1970; None without one.
        session: Host, process id, beginning, and end if it was no kill, of the last process that
            worked on it; empty where that is not known.
        stages: Stages that were begun or are planned.
        planned: Draws in all; None where they are decided on the way.
        counts: What is there, in all.
        mean_risk: Mean over queries so far; None where it is not known.
        mean_from: "estimates", "plain draws", or "" without one.
        draws_a_second: In the last half hour of work; None without two batches to tell by.
        token_forwards_a_second: The same for forward passes of the model.
        seconds_left: What is left of the plan at that rate; None where either is not known.
        ends_by: The rule or budget that may end it sooner.
        minutes: Time that processes worked on it so far; None if it was not recorded.
        ray: Where Ray's workers are, and how many were asked for; None without.
    """

    run: str
    state: str
    written: float | None
    session: dict[str, Any]
    stages: tuple[Progressed, ...]
    planned: int | None
    counts: Counts
    mean_risk: float | None
    mean_from: str
    draws_a_second: float | None
    token_forwards_a_second: float | None
    seconds_left: float | None
    ends_by: str
    minutes: float | None
    ray: tuple[str, int | None] | None


def status_of(tally: Tally) -> Status:
    """The state of a run now.

    Args:
        tally: Of its shards; keep it to look again.

    Raises:
        StoreError: If there is no run in the directory, or a file of it is damaged.
    """
    store = tally.store
    manifest = store.read_json("manifest.json")
    if manifest is None:
        raise StoreError(f"{store.path} holds no manifest.json: it is no run directory.")
    shards, config = tally.shards(), _config(manifest)
    times = [one.written for one in shards]
    sessions = manifest.get("sessions", [])
    last = sessions[-1] if sessions else {}
    state = _state(store, last)
    ids = {slug(one.id): one.id for one in read_queries(store)}
    plans, planned = _plans(store, config, last, shards, list(ids))
    stages = tuple(_stage(name, plan, shards, ids) for name, plan in plans.items())
    rate = _rate(shards, last.get("began", 0.0))
    mean, source = _mean_risk(store, state, stages, countable=not config or config.countable)
    return Status(
        run=str(store.path),
        state=state,
        written=max(times, default=None),
        session=last,
        stages=stages,
        planned=planned,
        counts=counts_of(shards.values()),
        mean_risk=mean,
        mean_from=source,
        draws_a_second=rate and rate[0],
        token_forwards_a_second=rate and rate[1],
        seconds_left=_seconds_left(state, planned, sum(one.drawn for one in stages), rate),
        ends_by=_rule(config),
        minutes=_minutes(sessions, times, state),
        ray=(config.ray, config.workers) if config and config.ray else None,
    )


def _config(manifest: Mapping[str, Any]) -> RunConfig | None:
    """The run's settings; None where they are of another version."""
    try:
        return RunConfig(**manifest["config"])
    except (KeyError, TypeError, ValidationError):
        return None


def _state(store: RunStore, session: Mapping[str, Any]) -> str:
    done = store.read_json("finished.json")
    if done is not None and session.get("size", done) == done:
        return "finished"
    if not session or "ended" in session:
        return "stopped"
    return {True: "running", False: "stopped", None: "unknown"}[_works(session)]


def _works(session: Mapping[str, Any]) -> bool | None:
    """Whether a process is alive; None where it is another machine's."""
    if session["host"] != gethostname():
        return None
    try:
        process = psutil.Process(session["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return bool(process.create_time() <= session["began"] + 1)
    except psutil.NoSuchProcess:
        return False


Plan = dict[str, int] | None
"""How many draws each query is to have in a stage, by the name of its folder; None if unknown."""


def _plans(
    store: RunStore, config: RunConfig | None, session: Mapping[str, Any],
    shards: Mapping[Shard, Counts], folders: list[str],
) -> tuple[dict[str, Plan], int | None]:  # fmt: skip
    """The plan of every stage in the order of the work, and draws in all if that is known."""
    folders = folders or list(dict.fromkeys(one.folder for one in shards))
    plans: dict[str, Plan] = {}
    total: int | None = None
    if config is not None:
        samples = session.get("size", {}).get("samples", config.samples)
        given_up = bool((store.read_json("selection.json") or {}).get("given_up"))
        each = planned_draws(config, samples, given_up=given_up)
        if config.selects:
            pilot = folders[: pilot_number(config, len(folders))]
            plans["pilot"] = dict.fromkeys(pilot, config.pilot_samples)
        plans |= {s: dict.fromkeys(folders, n) for s, n in each.items() if s != "rounds"}
        total = sum(sum(one.values()) for one in plans.values() if one)
        total += len(folders) * each.get("rounds", 0)
        for stage, plan in store.rounds():
            several = config.continuations
            plans[stage] = {slug(id): sum(n) * several for id, n in plan["counts"].items()}
    more = [one.stage for one in shards if one.stage not in plans]
    plans |= dict.fromkeys(more)
    open_end = config is None or config.until or config.budget or more
    return plans, None if open_end else total


def _stage(
    name: str, plan: Plan, shards: Mapping[Shard, Counts], ids: Mapping[str, str]
) -> Progressed:
    mine = {shard: counts for shard, counts in shards.items() if shard.stage == name}
    reached = Counter[str](dict.fromkeys(plan or (), 0))
    for shard in mine:
        reached[shard.folder] += shard.end - shard.start
    most = max(reached.values(), default=0)
    behind = {
        ids.get(one, one): n
        for one, n in reached.items()
        if n < min(most, (plan or {}).get(one, most))
    }
    total = counts_of(mine.values())
    planned = None if plan is None else sum(plan.values())
    return Progressed(name, total.drawn, planned, total.judged, total.hits, behind)


def _rate(shards: Mapping[Shard, Counts], began: float) -> tuple[float, float] | None:
    """Draws and token forwards a second, from when shards were written."""
    times = [one.written for one in shards if one.written >= began]
    if not times:
        return None
    first, last = times[0], times[-1]
    burst = max(one for one in times if one <= first + _BURST)
    since = max((one for one in times if one <= last - _WINDOW), default=burst)
    if last <= since:
        return None
    new = counts_of(counts for one, counts in shards.items() if one.written > since)
    return new.drawn / (last - since), new.token_forwards / (last - since)


def _seconds_left(
    state: str, planned: int | None, drawn: int, rate: tuple[float, float] | None
) -> float | None:
    """Time that the rest of the plan takes; None where plan or rate is not known."""
    if state == "finished" or (planned is not None and drawn >= planned):
        return 0.0
    if planned is None or rate is None:
        return None
    return (planned - drawn) / rate[0]


def _mean_risk(
    store: RunStore, state: str, stages: tuple[Progressed, ...], *, countable: bool
) -> tuple[float | None, str]:
    if state == "finished":
        last = {row["query_id"]: row for row in store.read_lines("estimates.jsonl")}
        return sum(row["p"] or 0.0 for row in last.values()) / len(last), "estimates"
    plain = next((one for one in stages if one.stage == "mc" and one.judged), None)
    if plain is None or not countable:
        return None, ""
    return plain.hits / plain.judged, "plain draws"


def _rule(config: RunConfig | None) -> str:
    rules = {name: getattr(config, name, None) for name in ("until", "budget")}
    return ", ".join(f"{name} {one[0]} {one[1]:g}" for name, one in rules.items() if one)


def _minutes(sessions: list[dict[str, Any]], times: list[float], state: str) -> float | None:
    """Time of all sessions; one that was killed ended with the last shard that it wrote."""
    if not sessions:
        return None
    now = time.time()
    starts = [one["began"] for one in sessions]
    total = 0.0
    for one, following in zip(sessions, [*starts[1:], now], strict=True):
        wrote = max((t for t in times if one["began"] <= t <= following), default=one["began"])
        end = now if state == "running" and one is sessions[-1] else wrote
        total += one.get("ended", end) - one["began"]
    return total / 60
