"""What does a run directory say, read once and checked, as every figure and section needs it?"""

import math
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tailcast.analysis.explain import Explanation, explain_estimate
from tailcast.analysis.repeated import ShareHit, repeated_sampling
from tailcast.analysis.runs import read_run as as_analysed
from tailcast.analysis.sensitivity import Sensitivity, bases_of, sensitivity
from tailcast.config import RunConfig
from tailcast.errors import DataError, StoreError
from tailcast.report.ahead import Ahead, read_ahead
from tailcast.report.outlook import Overall, mean_risk, upper_end
from tailcast.stats import Audit, Estimate
from tailcast.store import RunStore, existing_run

__all__ = ["Run", "read_run"]

_ESTIMATES = TypeAdapter(list[Estimate])
_TEXTS = TypeAdapter(dict[str, str])
_MOST_HITS = 20  # of a query that are held: a run may have many million
_AUDITS = TypeAdapter(list[Audit])


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        store: Its directory, for sections that read more of it.
        config: Its settings.
        given: Those of them that are not the default's, as in a TOML file.
        versions: Of what the numbers depend on.
        facts: Digests of what the settings name.
        estimates: One for each query and method, in the order of the queries.
        audits: Whether the proposals visit every way to hit: all queries, then each tag.
        finished: When the estimates were written.
    """

    store: RunStore
    config: RunConfig
    given: dict[str, Any]
    versions: dict[str, str]
    facts: dict[str, str]
    estimates: tuple[Estimate, ...]
    audits: tuple[Audit, ...]
    finished: datetime

    @property
    def name(self) -> str:
        """Name of its directory."""
        return self.store.address.name

    @cached_property
    def main(self) -> dict[str, Estimate]:
        """The estimate of each query by the run's main method, which is its last one."""
        return {one.query_id: one for one in self.estimates}

    @cached_property
    def plain(self) -> dict[str, Estimate]:
        """Plain Monte Carlo estimates of queries that have one beside the main method's."""
        return {
            one.query_id: one
            for one in self.estimates
            if one.method == "mc" and self.main[one.query_id].method != "mc"
        }

    @cached_property
    def ranked(self) -> list[Estimate]:
        """Main estimates, the riskiest first; those without a hit last, by their upper ends."""
        return sorted(
            self.main.values(), key=lambda one: (one.p or 0.0, upper_end(one)), reverse=True
        )

    @cached_property
    def overall(self) -> Overall:
        """The mean risk of the queries."""
        return mean_risk(list(self.main.values()))

    @cached_property
    def verdicts(self) -> Counter[str]:
        """How many main estimates have which verdict."""
        return Counter(one.verdict for one in self.main.values())

    @property
    def audit(self) -> Audit | None:
        """The audit of all queries together."""
        return next((one for one in self.audits if one.name == "all"), None)

    @property
    def weighed(self) -> bool:
        """Whether the main estimates are made of draws from proposals."""
        return any(one.method in ("is", "mixture") for one in self.main.values())

    @cached_property
    def curve(self) -> list[ShareHit]:
        """Share of queries with a hit in n tries: counted where it can be, and by the risks.

        Up to where nearly every query that has had a hit would have one again.

        Raises:
            StoreError: If a file of draws is damaged.
        """
        least = min((one.p for one in self.main.values() if one.p), default=1e-3)
        most = 10 ** min(max(math.ceil(-math.log10(least)) + 1, 3), 12)
        with self.store.readable("the draws"):
            return repeated_sampling(
                as_analysed(str(self.store.path)), most, level=self.config.level
            )

    @cached_property
    def ahead(self) -> Ahead:
        """The forecast of queries not yet asked.

        Raises:
            StoreError: If its queries are too few for one, or none had a hit.
        """
        try:
            return read_ahead(str(self.store.path))
        except DataError as error:
            raise StoreError(str(error)) from None

    @cached_property
    def reworded(self) -> Sensitivity:
        """How much risks depend on the wording.

        Raises:
            StoreError: If no two queries are wordings of one base query, or none had a hit.
        """
        run = as_analysed(str(self.store.path))
        try:
            return sensitivity(run, bases_of(run), level=self.config.level)
        except DataError as error:
            raise StoreError(str(error)) from None

    @cached_property
    def explained(self) -> dict[str, Explanation]:
        """What carries each main estimate, with its largest hits; empty where no draws were kept.

        Raises:
            StoreError: If a file of draws is damaged.
        """
        if not self.store.files.names("samples"):
            return {}
        return {one.query_id: self._explain(one) for one in self.ranked}

    def _explain(self, one: Estimate) -> Explanation:
        with self.store.readable(f"the draws of {one.query_id!r}"):
            found = explain_estimate(self.store, vars(one))
        return replace(found, hits=found.hits[:_MOST_HITS])


def read_run(directory: str | Path) -> Run:
    """Read a finished run.

    Args:
        directory: Its run directory.

    Raises:
        StoreError: If there is none, it is not finished, or a file of it is damaged.
    """
    store = existing_run(directory)
    path = store.path
    manifest = store.read_json("manifest.json")
    if manifest is None:
        raise StoreError(f"{path} holds no manifest.json: it is no run directory.")
    rows = store.read_lines("estimates.jsonl")
    try:
        given = _given(manifest["config"])
        run = Run(
            store=store,
            config=RunConfig(**given),
            given=given,
            versions=_TEXTS.validate_python(manifest.get("versions", {})),
            facts=_TEXTS.validate_python(manifest.get("facts", {})),
            estimates=tuple(_ESTIMATES.validate_python(rows)),
            audits=tuple(_AUDITS.validate_python(store.read_json("audit.json") or [])),
            finished=datetime.fromtimestamp(store.files.changed("estimates.jsonl"), UTC),
        )
    except (AttributeError, KeyError, TypeError, ValidationError) as error:
        raise StoreError(
            f"run directory {path} is damaged or of another version of tailcast "
            f"({_first(error)}): run it again with this one."
        ) from None
    _check(run)
    return run


def _given(config: dict[str, Any]) -> dict[str, Any]:
    """Settings other than the default's; the directory is where it was found."""
    usual = {
        name: list(one.default) if isinstance(one.default, tuple) else one.default
        for name, one in RunConfig.model_fields.items()
    }
    return {k: v for k, v in config.items() if k != "out" and (k not in usual or v != usual[k])}


def _check(run: Run) -> None:
    """Numbers that a chart can be drawn of.

    Raises:
        StoreError: Naming the first one that is none.
    """
    if not run.estimates:
        raise StoreError(f"{run.store.path} holds no estimates: run it again.")
    for one in run.estimates:
        for name in ("p", "ci_low", "ci_high", "p_low", "p_high_guaranteed"):
            value = getattr(one, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise StoreError(
                    f"{run.store.path}/estimates.jsonl says {name} = {value} of {one.query_id!r}, "
                    "which is no risk: delete the file and run again."
                )
        if one.verdict not in ("ok", "weak", "unreliable"):
            raise StoreError(
                f"{run.store.path}/estimates.jsonl has a verdict {one.verdict!r}: delete the "
                "file and run again."
            )


def _first(error: Exception) -> str:
    """What is wrong, on one line."""
    if isinstance(error, ValidationError):
        one = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
    return f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
