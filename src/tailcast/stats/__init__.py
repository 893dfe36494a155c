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
from tailcast.stats.judge_error import (
    JudgeError,
    Labelled,
    Measured,
    judge_error,
    quotient,
    weighted_share,
)
from tailcast.stats.label_sample import inclusion_probabilities, mean_shares, systematic_sample
from tailcast.stats.rounds import Round, mixture_estimate
from tailcast.stats.shares import draw_shares, evenly_chosen, pooled_shares, query_shares
from tailcast.stats.splitting import SwarmHits, splitting_estimate

__all__ = [
    "Audit",
    "Diagnostics",
    "Estimate",
    "JudgeError",
    "Labelled",
    "Measured",
    "Round",
    "SwarmHits",
    "audit",
    "betting_lower_bound",
    "betting_upper_bound",
    "clopper_pearson",
    "cross_entropy",
    "diagnose",
    "draw_shares",
    "effective_sample_size",
    "evenly_chosen",
    "importance_sampling",
    "inclusion_probabilities",
    "judge_error",
    "mean_shares",
    "mixture_estimate",
    "monte_carlo",
    "monte_carlo_anytime",
    "pareto_khat",
    "pooled_shares",
    "query_shares",
    "quotient",
    "splitting_estimate",
    "systematic_sample",
    "weighted_hits_interval",
    "weighted_share",
]
