"""Which runs may be put side by side?

Those that put the same queries to models under the same sampling settings and one judge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailcast.analysis.asked import read_queries
from tailcast.analysis.plain import PlainDraws, read_plain
from tailcast.analysis.risks import QueryRisk, read_risks
from tailcast.errors import ConfigError, StoreError
from tailcast.store import existing_run
from tailcast.types import ModelSettings, Query, SamplingSettings

__all__ = ["Run", "check_same", "greedy_of", "model_differences", "read_run"]

SAMPLING = tuple(SamplingSettings.__annotations__)
JUDGE = ("judge", "threshold")
FACTS = ("queries", "judge")


@dataclass(frozen=True)
class Run:
    """A finished run, as analyses see it.

    Attributes:
        name: Its directory.
        risks: Of every query.
        plain: The target's draws; None where there are none to count.
        config: Its settings, from the manifest.
        facts: Digests of what they name.
        asked: Its queries, where the run kept them.
    """

    name: str
    risks: tuple[QueryRisk, ...]
    plain: PlainDraws | None
    config: dict[str, Any]
    facts: dict[str, str]
    asked: tuple[Query, ...] = ()

    @property
    def query_ids(self) -> list[str]:
        """Ids of its queries, in order."""
        return [one.query_id for one in self.risks]

    @property
    def is_greedy(self) -> bool:
        """Whether every draw takes the likeliest token."""
        return self.config.get("top_k") == 1


def read_run(directory: str | Path) -> Run:
    """A finished run.

    Raises:
        StoreError: If there is no such directory, or the run in it is not finished.
    """
    store = existing_run(directory)
    manifest = store.read_json("manifest.json")
    if manifest is None:
        raise StoreError(f"{directory} holds no manifest.json: it is no run directory.")
    risks = tuple(read_risks(store))
    plain = read_plain(store, [one.query_id for one in risks])
    asked = tuple(read_queries(store))
    return Run(str(directory), risks, plain, manifest["config"], manifest.get("facts", {}), asked)


def check_same(runs: Sequence[Run], *, but: Sequence[str] = ()) -> None:
    """Make sure that runs differ in their models alone.

    Args:
        runs: At least one.
        but: Settings that may differ all the same.

    Raises:
        ConfigError: Naming the first difference, and both values.
    """
    first = runs[0]
    for other in runs[1:]:
        for name in (*SAMPLING, *JUDGE):
            if name not in but:
                _same(name, first, first.config.get(name), other, other.config.get(name))
        for name in FACTS:
            _same(name, first, first.facts.get(name), other, other.facts.get(name))
        for one, two in zip(first.query_ids, other.query_ids):
            _same("queries", first, one, other, two)
        _same("number of queries", first, len(first.risks), other, len(other.risks))


def _same(name: str, first: Run, one: Any, other: Run, two: Any) -> None:
    if one != two:
        raise ConfigError(
            f"{first.name} and {other.name} cannot be compared, their {name} differ: "
            f"{one!r} and {two!r}; measure both alike."
        )


def model_differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The settings of the model in which runs differ, and the value in each run."""
    table = {name: [run.config.get(name) for run in runs] for name in ModelSettings.__annotations__}
    return {name: row for name, row in table.items() if any(one != row[0] for one in row)}


def greedy_of(run: Run, greedy: Run | None) -> Run | None:
    """The run that holds greedy answers to a run's queries: itself, the one given, or none.

    Raises:
        ConfigError: If the one given is not greedy, or of other queries, judge or model.
    """
    if greedy is None or run.is_greedy:
        return run if run.is_greedy else None
    if not greedy.is_greedy:
        raise ConfigError(
            f"{greedy.name} is not greedy, its top_k is {greedy.config.get('top_k')}: run it "
            "with --top-k 1 --samples 1."
        )
    check_same([run, greedy], but=("top_k", "top_p", "temperature"))
    for name, values in model_differences([run, greedy]).items():
        _same(name, run, values[0], greedy, values[1])
    _same("model", run, run.facts.get("model"), greedy, greedy.facts.get("model"))
    return greedy
