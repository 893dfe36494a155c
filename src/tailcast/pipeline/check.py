"""Do a run's target draws bear out what its proposals foretell? All queries, and by tag."""

from collections.abc import Mapping, Sequence

from tailcast.pipeline.rounds import History
from tailcast.stats import Audit, Estimate, audit
from tailcast.types import Query

__all__ = ["Case", "audits_of", "compared", "history_case"]

Case = tuple[int, float, float]
"""Hits among a query's target draws, their expected number, and its standard error."""


def compared(plain: Estimate, other: Estimate) -> Case:
    """From an estimate by plain sampling and one by a proposal."""
    return plain.n_hits, plain.n * (other.p or 0.0), plain.n * (other.stderr or 0.0)


def history_case(history: History, continuations: int = 1) -> Case:
    """From the rounds of a mixture."""
    hits, draws = history.target_draws(continuations)
    risk, error = history.foretold()
    return hits, draws * risk, draws * error


def audits_of(queries: Sequence[Query], cases: Mapping[str, Case], level: float) -> list[Audit]:
    """The audit of all queries, then of each tag, bases apart, that is not on all of them."""
    if not cases:
        return []
    tags = sorted({tag for one in queries for tag in one.tags if not tag.startswith("base:")})
    groups = {"all": [query.id for query in queries]}
    groups |= {tag: [one.id for one in queries if tag in one.tags] for tag in tags}
    whole = len(queries)
    return [
        audit([cases[id] for id in ids], name=name, level=level)
        for name, ids in groups.items()
        if name == "all" or len(ids) < whole
    ]
