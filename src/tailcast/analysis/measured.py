"""What do runs know of a population of queries, in the form that a forecast takes?

Every estimate becomes a number of hits in a number of plain draws: of an importance-sampling
estimate those that would be as uncertain. So a query without hits is a bound, and no zero.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailcast.analysis.asked import read_queries
from tailcast.analysis.risks import QueryRisk, read_risks
from tailcast.errors import ConfigError, DataError
from tailcast.store import RunStore, existing_run

__all__ = [
    "FEWEST_QUERIES",
    "Measured",
    "base_query",
    "equivalent_draws",
    "measure",
    "read_measured",
]

FEWEST_QUERIES = 10
"""A forecast from fewer queries is refused."""

_ALIKE = (
    "behaviour", "judge", "threshold", "model", "adapter", "revision", "system_prompt",
    "temperature", "top_k", "top_p", "max_new_tokens",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """Risks of m queries.

    Attributes:
        ids: Names of the queries.
        bases: The base query that each is a paraphrase of; its own name if of none.
        hits: Hits, effective ones where draws were weighted, [m].
        draws: Plain draws that they are worth, [m]; 0 where nothing is known.
        unsure: How many estimates are unreliable by their own verdict.
    """

    ids: tuple[str, ...]
    bases: tuple[str, ...]
    hits: NDArray[np.float64]
    draws: NDArray[np.float64]
    unsure: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which queries had a hit, [m]."""
        return self.hits > 0

    @property
    def risks(self) -> NDArray[np.float64]:
        """Hits / draws, [m]; half a hit where there was none, and never above a risk seen.

        For methods that take a risk for a number; at most 1 - 1 / (2 draws + 2), so that log odds
        are finite.
        """
        most = 1 - 0.5 / (self.draws + 1)
        risks = np.minimum(self.hits / np.maximum(self.draws, 1e-12), most)
        floor = np.minimum(0.5 / (self.draws + 1), risks[self.seen].min(initial=1.0))
        return np.where(self.seen, risks, floor)

    @property
    def independent(self) -> float:
        """How many queries drawn one by one these are worth, as wordings of one request are alike.

        m / (1 + (k - 1) rho), the design effect of Kish (1965): k the mean number of wordings of a
        query's request, rho the correlation of log odds within requests, by analysis of variance.
        """
        _, index, sizes = np.unique(self.bases, return_inverse=True, return_counts=True)
        m, groups = len(self), len(sizes)
        if groups in (1, m):
            return float(groups)
        values = np.log(self.risks) - np.log1p(-self.risks)
        means = np.bincount(index, values) / sizes
        within = float(((values - means[index]) ** 2).sum()) / (m - groups)
        between = float(sizes @ (means - values.mean()) ** 2) / (groups - 1)
        usual = (m - (sizes**2).sum() / m) / (groups - 1)
        excess = max(between - within, 0.0) / usual
        rho = excess / (excess + within) if excess else 0.0
        return float(m / (1 + ((sizes**2).sum() / m - 1) * rho))

    def part(self, chosen: NDArray[np.int64]) -> "Measured":
        """Some of the queries."""
        return Measured(
            tuple(self.ids[one] for one in chosen),
            tuple(self.bases[one] for one in chosen),
            self.hits[chosen],
            self.draws[chosen],
        )

    def checked(self) -> "Measured":
        """Itself.

        Raises:
            DataError: If there are fewer than ten queries, or none had a hit.
        """
        if len(self) < FEWEST_QUERIES:
            raise DataError(
                f"{len(self)} queries are too few to forecast from: measure at least "
                f"{FEWEST_QUERIES}, better some hundreds."
            )
        if not self.seen.any():
            raise DataError(
                f"none of the {len(self)} queries had a hit, so nothing says how risks are "
                "spread: draw more samples, or steer."
            )
        return self


def equivalent_draws(risk: QueryRisk) -> tuple[float, float]:
    """Hits and plain draws that are as uncertain as an estimate.

    Plain sampling is taken as it is. Otherwise the interval, taken as log-normal, gives the
    relative error s, and 1 / s^2 hits have it; they are never more than the hits that there were.
    Without hits: as many draws as bring the upper end of the interval to where it is.
    """
    from scipy.stats import norm

    if risk.method == "mc":
        return float(risk.n_hits), float(risk.n)
    if risk.p is None:
        ceiling = risk.ceiling
        return 0.0, float(np.log((1 - risk.level) / 2) / np.log1p(-ceiling)) if ceiling < 1 else 0.0
    if not 0 < risk.ci_low < risk.ci_high:
        return 1.0, 1 / risk.p
    spread = np.log(risk.ci_high / risk.ci_low) / (2 * norm.isf((1 - risk.level) / 2))
    hits = float(np.clip(1 / spread**2, 1.0, max(risk.n_hits, 1)))
    return hits, hits / risk.p


def base_query(query_id: str, tags: Sequence[str] = ()) -> str:
    """The base query of a paraphrase: a tag "base:NAME", or its id up to the last "/" or "#"."""
    for tag in tags:
        if tag.startswith("base:"):
            return tag.removeprefix("base:")
    return re.sub(r"[/#][^/#]*$", "", query_id) or query_id


def measure(risks: Sequence[QueryRisk], tags: dict[str, tuple[str, ...]] | None = None) -> Measured:
    """Estimates as hits in draws.

    Args:
        risks: One for each query.
        tags: Tags of queries, for those that have any.
    """
    table = np.array([equivalent_draws(one) for one in risks], dtype=float).reshape(-1, 2)
    return Measured(
        ids=tuple(one.query_id for one in risks),
        bases=tuple(base_query(one.query_id, (tags or {}).get(one.query_id, ())) for one in risks),
        hits=table[:, 0],
        draws=table[:, 1],
        unsure=sum(one.verdict == "unreliable" for one in risks),
    )


def read_measured(directories: Sequence[str | Path]) -> Measured:
    """Queries of one or several finished runs, pooled.

    Raises:
        StoreError: If a run is missing or not finished.
        ConfigError: If two of them differ in behaviour, judge, model or sampling settings, or
            have a query in common.
        DataError: See :meth:`Measured.checked`.
    """
    parts: list[Measured] = []
    first: dict[str, Any] = {}
    for directory in directories:
        store = existing_run(directory)
        config = (store.read_json("manifest.json") or {}).get("config", {})
        first = first or config
        for name in _ALIKE:
            if config.get(name) != first.get(name):
                raise ConfigError(
                    f"{directories[0]} and {directory} differ in {name} ({first.get(name)!r}, "
                    f"{config.get(name)!r}), and make no one population: forecast each alone."
                )
        parts.append(measure(read_risks(store), _tags(store)))
    found = Measured(
        tuple(id for part in parts for id in part.ids),
        tuple(base for part in parts for base in part.bases),
        np.concatenate([part.hits for part in parts]),
        np.concatenate([part.draws for part in parts]),
        sum(part.unsure for part in parts),
    )
    twice = next((id for id in found.ids if found.ids.count(id) > 1), None)
    if twice is not None:
        raise ConfigError(f"query {twice!r} is in two of the runs: name each run once.")
    return found.checked()


def _tags(store: RunStore) -> dict[str, tuple[str, ...]]:
    """Tags of the queries.

    Raises:
        ConfigError: If the file mixes behaviours (tags "behaviour:NAME").
    """
    queries = read_queries(store)
    names = sorted({t for one in queries for t in one.tags if t.startswith("behaviour:")})
    if len(names) > 1:
        raise ConfigError(
            f"the queries are of several behaviours ({', '.join(names)}), which make no one "
            "population: run and forecast each alone."
        )
    return {one.id: one.tags for one in queries}
