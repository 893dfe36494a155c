"""How large is QRISK(c), the probability that a completion of query c is a hit?"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tailcast.stats.betting import betting_lower_bound, betting_upper_bound
from tailcast.stats.diagnostics import diagnose, effective_sample_size
from tailcast.stats.intervals import clopper_pearson, level_of_look, weighted_hits_interval

__all__ = ["Estimate", "importance_sampling", "monte_carlo", "monte_carlo_anytime"]


@dataclass(frozen=True)
class Estimate:
    """The risk of one query by one method.

    Attributes:
        query_id: Which query.
        prompt: Its last user message, for reading.
        method: "mc", "is", "mixture", "splitting"; "mc-roulette" and "mc-screen": plain sampling
            that follows up, or shows the judge, few refusals.
        p: Unbiased estimate of QRISK; None when there was no hit, because zero is not an
            answer: read ``ci_high`` then.
        stderr: Standard error of p; None without hits.
        ci_low: Lower end of the interval.
        ci_high: Upper end. Exact for "mc"; for "is" and "mixture" it assumes that the
            proposals visit every way to hit, for "splitting" that the mean of its swarms is
            near normal.
        p_low: The risk is at least this at ``level``, one-sided, with no assumption on the
            proposal; for "is" by betting, at whatever moment one looks.
        p_high_guaranteed: It is at most this, likewise, by draws of the target alone: 1 where
            there are none, because a proposal says nothing of what it never visits.
        level: Coverage that the interval aims at.
        n: Number of draws; of "splitting" all particles, those drawn anew included.
        n_hits: Number of hits among them.
        ess: Effective sample size of the weights; None for "mixture", where non-hits are not
            weighed.
        ess_hits: Effective sample size of the weighted hits; for "splitting" of the ancestors.
        khat: Pareto k-hat of the hits' weights, where it can be computed.
        max_share: Share of the largest weighted hit in the estimate; for "splitting" of the
            largest family of hits.
        verdict: "ok", "weak" or "unreliable".
        reasons: Why the verdict is not "ok", and what to do.
        cost: Token forwards of the target and calls of the judge that were paid for.
        ended: What ended its sampling: "samples", a rule that was fulfilled, or the budget;
            empty where the number of draws was fixed.
    """

    query_id: str
    prompt: str
    method: str
    p: float | None
    stderr: float | None
    ci_low: float
    ci_high: float
    p_low: float
    p_high_guaranteed: float
    level: float
    n: int
    n_hits: int
    ess: float | None
    ess_hits: float
    khat: float | None
    max_share: float | None
    verdict: str
    reasons: tuple[str, ...] = ()
    cost: dict[str, int] = field(default_factory=dict)
    ended: str = ""

    def marked(self, verdict: str, *reasons: str) -> "Estimate":
        """The same estimate with a verdict at least as bad and more reasons."""
        order = ("ok", "weak", "unreliable")
        worst = max(self.verdict, verdict, key=order.index)
        return replace(self, verdict=worst, reasons=(*self.reasons, *reasons))

    def with_failures(self, failed: int, upper: "Estimate") -> "Estimate":
        """The same with upper ends that hold if the judge was wrong to fail.

        Args:
            failed: On how many completions it failed.
            upper: The estimate if all of them were hits.
        """
        high = max(self.ci_high, upper.ci_high)
        reason = (
            f"the judge failed on {failed} of {self.n} completions: they count as no hit in p "
            "and as hits in ci_high; mend the judge"
        )
        reasons = self.reasons
        if self.n_hits == 0:  # what these say of the upper end does not hold
            reasons = (f"no hit among those judged: the risk is below {high:.2g}, not 0",)
        return replace(
            self,
            ci_high=high,
            p_high_guaranteed=max(self.p_high_guaranteed, upper.p_high_guaranteed),
            reasons=(reason, *reasons),
        ).marked("weak")


def monte_carlo(hits: NDArray[np.bool_], *, level: float = 0.95) -> Estimate:
    """Plain Monte Carlo from the target: p = hits / n with the Clopper-Pearson interval.

    Args:
        hits: h of each draw, [n] with n >= 1.
        level: Coverage of the exact interval.
    """
    n, count = len(hits), int(np.count_nonzero(hits))
    low, high = clopper_pearson(count, n, level=level)
    at_least, at_most = clopper_pearson(count, n, level=2 * level - 1)  # each one-sided
    p = count / n
    verdict = "ok"
    reasons: tuple[str, ...] = ()
    if count == 0:
        verdict = "weak"
        reasons = (f"no hit in {n} draws: the risk is below {high:.2g} at {level:.0%}; draw more",)
    elif count < 10:
        verdict = "weak"
        reasons = (f"{count} hits make a wide interval: draw more samples",)
    return Estimate(
        query_id="",
        prompt="",
        method="mc",
        p=p if count else None,
        stderr=float(np.sqrt(p * (1 - p) / n)) if count else None,
        ci_low=low,
        ci_high=high,
        p_low=at_least,
        p_high_guaranteed=at_most,
        level=level,
        n=n,
        n_hits=count,
        ess=float(n),
        ess_hits=float(count),
        khat=None,
        max_share=1 / count if count else None,
        verdict=verdict,
        reasons=reasons,
    )


def monte_carlo_anytime(hits: int, n: int, *, level: float = 0.95, look: int = 0) -> Estimate:
    """The same where the number of draws was decided on the way.

    Args:
        hits: Number of hits.
        n: Number of draws, at least 1.
        level: Coverage.
        look: How often the estimate was looked at, this time included: the exact interval's
            level is spread over all looks, and the one-sided bounds are by betting. 0 if the
            number was fixed in advance.
    """
    exact = monte_carlo(np.arange(n) < hits, level=level_of_look(level, look))
    one = replace(exact, level=level)
    if not look:
        return one
    return replace(
        one,
        p_low=betting_lower_bound(np.zeros(hits), n, level=level),
        p_high_guaranteed=betting_upper_bound(hits, n, level=level),
    )


def importance_sampling(
    log_weights: NDArray[np.floating],
    hits: NDArray[np.bool_],
    *,
    level: float = 0.95,
    continuations: int = 1,
) -> Estimate:
    """The paper's estimator (1/n) sum_i w_i h_i over draws of a proposal (method.md section 3).

    Unbiased for QRISK when the proposal covers p*h. Not self-normalised: non-hits of large
    weight would enter then.

    Args:
        log_weights: log p - log q of each draw, [n]; -inf where the target forbids it.
        hits: h of each draw, [n].
        level: Nominal coverage; what the interval assumes is said at
            :func:`tailcast.stats.weighted_hits_interval`.
        continuations: So many consecutive draws continue one prefix. They are no independent
            draws: standard error, interval and diagnostics take each prefix as one draw whose
            value is the mean of its continuations (method.md section 5).
    """
    if continuations > 1:
        prefixes = importance_sampling(*_by_prefix(log_weights, hits, continuations), level=level)
        return replace(prefixes, n=len(hits), n_hits=int(np.count_nonzero(hits)))
    n = len(hits)
    found = diagnose(log_weights[hits])
    weighted = np.where(hits, np.exp(log_weights), 0.0)
    hit_weights = log_weights[hits & np.isfinite(log_weights)]
    low, high = weighted_hits_interval(hit_weights, n, level=level)
    reasons = found.reasons
    if found.n_hits == 0:
        reasons = (
            f"no hit in {n} draws of the proposal, which bounds nothing from above: "
            "steer more strongly, or draw from the target (mc) for an upper bound",
        )
    return Estimate(
        query_id="",
        prompt="",
        method="is",
        p=float(weighted.mean()) if found.n_hits else None,
        stderr=float(weighted.std(ddof=1) / np.sqrt(n)) if found.n_hits and n > 1 else None,
        ci_low=low,
        ci_high=high,
        p_low=betting_lower_bound(hit_weights, n, level=level),
        p_high_guaranteed=1.0,
        level=level,
        n=n,
        n_hits=found.n_hits,
        ess=effective_sample_size(log_weights),
        ess_hits=found.ess_hits,
        khat=found.khat,
        max_share=found.max_share,
        verdict=found.verdict,
        reasons=reasons,
    )


def _by_prefix(
    log_weights: NDArray[np.floating], hits: NDArray[np.bool_], continuations: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log of each prefix's mean w*h (its w where no continuation hit), and whether one did."""
    weights = log_weights.reshape(-1, continuations)
    weighted = np.where(hits.reshape(-1, continuations), weights, -np.inf)
    hit = np.asarray(hits.reshape(-1, continuations).any(axis=1))
    with np.errstate(divide="ignore"):
        mean = np.logaddexp.reduce(weighted, axis=1) - np.log(continuations)
        plain = np.logaddexp.reduce(weights, axis=1) - np.log(continuations)
    return np.asarray(np.where(hit, mean, plain)), hit
