"""Statistics of weighted hits, on NumPy and SciPy alone."""

from tailcast.stats.betting import betting_lower_bound
from tailcast.stats.cross_entropy import cross_entropy
from tailcast.stats.diagnostics import Diagnostics, diagnose, effective_sample_size, pareto_khat
from tailcast.stats.estimators import Estimate, importance_sampling, monte_carlo
from tailcast.stats.intervals import clopper_pearson, weighted_hits_interval

__all__ = [
    "Diagnostics",
    "Estimate",
    "betting_lower_bound",
    "clopper_pearson",
    "cross_entropy",
    "diagnose",
    "effective_sample_size",
    "importance_sampling",
    "monte_carlo",
    "pareto_khat",
    "weighted_hits_interval",
]
