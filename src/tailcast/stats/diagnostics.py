"""May this estimate be trusted, and if not, what would mend it?

The rules look at the weighted hits w*h, not at w alone: the best proposals draw many
completions of negligible weight and have a low effective sample size of w. They are
written out in :data:`RULES`, so that a verdict can be read, disputed and reproduced.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["RULES", "Diagnostics", "Rule", "diagnose", "effective_sample_size", "pareto_khat"]

KHAT_MIN_HITS = 25
KHAT_ENOUGH_HITS = 50  # effective ones, from which the tail of bounded weights is not judged
_NEGLIGIBLE = 0.05


@dataclass(frozen=True)
class Rule:
    """A diagnostic with the bounds past which an estimate is weak or unreliable."""

    name: str
    weak: float
    unreliable: float
    larger_is_worse: bool
    advice: str


RULES = (
    Rule("n_hits", 20, 5, False, "draw more samples or steer more strongly"),
    Rule("ess_hits", 15, 3, False, "draw more samples or steer more mildly"),
    Rule(
        "max_share",
        0.2,
        0.5,
        True,
        "one sample owns the estimate: draw more, or raise mix or defence",
    ),
    Rule(
        "khat",
        0.7,
        1.0,
        True,
        "the weights' tail is heavy: shorten switch, or raise mix or defence",
    ),
)


@dataclass(frozen=True)
class Diagnostics:
    """What the weights of the hits say of themselves.

    Attributes:
        n_hits: Number of draws with h = 1 and w > 0.
        ess_hits: Effective sample size of w*h, (sum w h)^2 / sum (w h)^2.
        max_share: Share of the largest w*h in their sum; None without hits.
        khat: Pareto shape of the hits' largest weights; None below 25 hits or when all
            weights are equal.
        verdict: "ok", "weak" or "unreliable".
        reasons: A sentence for each rule that lowered the verdict.
    """

    n_hits: int
    ess_hits: float
    max_share: float | None
    khat: float | None
    verdict: str
    reasons: tuple[str, ...]


def effective_sample_size(log_weights: NDArray[np.floating]) -> float:
    """(sum w)^2 / sum w^2 (Kong 1992), from log-weights; 0 when every weight is 0."""
    largest = log_weights.max(initial=-np.inf)
    if np.isneginf(largest):
        return 0.0
    weights = np.exp(log_weights - largest)
    return float(weights.sum() ** 2 / (weights**2).sum())


def pareto_khat(log_weights: NDArray[np.floating]) -> float | None:
    """Pareto k-hat of weights (Vehtari et al. 2024), by arviz-stats.

    Args:
        log_weights: Finite log-weights, [n].

    Returns:
        The shape of the weights' right tail, above 0.7 when their mean converges slowly;
        None when there are fewer than 25 weights, or the largest of them are equal.
    """
    if len(log_weights) < KHAT_MIN_HITS or np.ptp(log_weights) < 1e-9:
        return None
    from arviz_stats.base.array import array_stats

    with np.errstate(all="ignore"):
        try:
            _, khat = array_stats.psislw(-np.asarray(log_weights, dtype=float), r_eff=1.0)
        except ValueError:  # a tail of equal weights has no shape
            return None
    return float(khat) if np.isfinite(khat) else None


def diagnose(log_weights: NDArray[np.floating], *, bound: float = np.inf) -> Diagnostics:
    """Diagnostics and verdict of weighted draws.

    Args:
        log_weights: Log-weights of the hits, -inf allowed, [hits].
        bound: What no weight can exceed, as a share of the sum of all weights: where that is
            little, the tail beyond those seen cannot matter and k-hat is not judged. Nor is it
            from 50 effective hits on, where there is any bound: k-hat then speaks of clusters
            of weights, such as completions drawn many times, not of a tail without end
            (benchmarks/results/coverage.md).
    """
    hit_weights = log_weights[np.isfinite(log_weights)]
    n_hits = len(hit_weights)
    share = float(np.exp(hit_weights.max() - np.logaddexp.reduce(hit_weights))) if n_hits else None
    ess = effective_sample_size(hit_weights)
    measured = {
        "n_hits": n_hits,
        "ess_hits": ess,
        "max_share": share,
        "khat": pareto_khat(hit_weights),
    }
    ends = bound < _NEGLIGIBLE or (bound < np.inf and ess >= KHAT_ENOUGH_HITS)
    judged = {**measured, "khat": None} if ends else measured
    verdict, reasons = _judge(judged)
    return Diagnostics(
        n_hits=n_hits,
        ess_hits=ess,
        max_share=share,
        khat=measured["khat"],
        verdict=verdict,
        reasons=reasons,
    )


def _judge(measured: dict[str, float | None]) -> tuple[str, tuple[str, ...]]:
    """The worst level that any rule gives, and a sentence for each rule that is broken."""
    level, reasons = 0, []
    for rule in RULES:
        value = measured[rule.name]
        if value is None:
            continue
        sign = 1 if rule.larger_is_worse else -1
        broken = sum(sign * value > sign * bound for bound in (rule.weak, rule.unreliable))
        if broken:
            bound = rule.unreliable if broken == 2 else rule.weak
            side = "above" if rule.larger_is_worse else "below"
            reasons.append(f"{rule.name} {value:.3g} is {side} {bound:g}: {rule.advice}")
        level = max(level, broken)
    return ("ok", "weak", "unreliable")[level], tuple(reasons)
