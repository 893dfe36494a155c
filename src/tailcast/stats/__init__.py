"""Statistics of weighted hits, on NumPy and SciPy alone."""

from tailcast.stats.audit import Audit, audit
from tailcast.stats.betting import betting_lower_bound, betting_upper_bound
from tailcast.stats.cross_entropy import cross_entropy
from tailcast.stats.diagnostics import Diagnostics, diagnose, effective_sample_size, pareto_khat
from tailcast.stats.estimators import (
    Estimate,
    importance_sampling,
    monte_carlo,
    monte_carlo_anytime,
)
from tailcast.stats.intervals import clopper_pearson, weighted_hits_interval
from tailcast.stats.rounds import Round, mixture_estimate
from tailcast.stats.shares import draw_shares, pooled_shares, query_shares

__all__ = [
    "Audit",
    "Diagnostics",
    "Estimate",
    "Round",
    "audit",
    "betting_lower_bound",
    "betting_upper_bound",
    "clopper_pearson",
    "cross_entropy",
    "diagnose",
    "draw_shares",
    "effective_sample_size",
    "importance_sampling",
    "mixture_estimate",
    "monte_carlo",
    "monte_carlo_anytime",
    "pareto_khat",
    "pooled_shares",
    "query_shares",
    "weighted_hits_interval",
]
