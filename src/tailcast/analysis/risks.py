"""What does a finished run know of each query's risk?

Every analysis starts here: one record for each query, by the run's main method.
"""

from dataclasses import dataclass, fields

from tailcast.errors import StoreError
from tailcast.store import RunStore

__all__ = ["QueryRisk", "read_risks"]


@dataclass(frozen=True)
class QueryRisk:
    """The risk of one query as an estimate gave it; :class:`tailcast.stats.Estimate` says more.

    Attributes:
        query_id: Which query.
        p: Estimate of QRISK; None without a hit, which is no zero: see ``ceiling``.
        ci_low: Lower end of the interval.
        ci_high: Upper end; for "is" and "mixture" if the proposals visit every way to hit, for
            "splitting" if the swarms do.
        p_low: At least this, one-sided, whatever the proposals.
        p_high_guaranteed: At most this, one-sided, by draws of the target alone; 1 if none.
        level: Coverage of each of these.
        n_hits: Hits.
        n: Draws.
        verdict: "ok", "weak" or "unreliable".
        method: As of :class:`tailcast.stats.Estimate`.
    """

    query_id: str
    p: float | None
    ci_low: float
    ci_high: float
    p_low: float
    p_high_guaranteed: float
    level: float
    n_hits: int
    n: int
    verdict: str
    method: str

    @property
    def ceiling(self) -> float:
        """The smaller of both upper ends: what bounds a query without hits."""
        return min(self.ci_high, self.p_high_guaranteed)


def read_risks(store: RunStore, method: str | None = None) -> list[QueryRisk]:
    """The risk of every query of a finished run, in the order of the queries.

    Args:
        store: The run.
        method: Which estimate of each query; if None the main method's: where a run has several
            it is the last, the others (``--monte-carlo``) are there for comparison.

    Raises:
        StoreError: If the run is not finished, a line lacks a field, or the method was not used.
    """
    names = [one.name for one in fields(QueryRisk)]
    found: dict[str, QueryRisk] = {}
    for number, row in enumerate(store.read_lines("estimates.jsonl"), 1):
        missing = [name for name in names if name not in row]
        if missing:
            raise StoreError(
                f"{store.path}/estimates.jsonl line {number} has no {missing[0]!r}: "
                "delete the file and run again."
            )
        if method in (None, row["method"]):
            found[row["query_id"]] = QueryRisk(**{name: row[name] for name in names})
    if not found:
        what = "estimates" if method is None else f"estimates by method {method!r}"
        raise StoreError(f"{store.path} has no {what}: run it again, or name another directory.")
    return list(found.values())
