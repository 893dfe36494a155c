"""What do several rounds of draws from mixtures say of one query's risk, together?

Each round has a mixture of its own, chosen from what was seen before it, and each of its draws
counts with p over that mixture: w*h has mean QRISK given the past. Rounds are put together by
their sizes (method.md section 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tailcast.stats.betting import betting_lower_bound, betting_upper_bound
from tailcast.stats.diagnostics import diagnose
from tailcast.stats.estimators import Estimate
from tailcast.stats.intervals import level_of_look, weighted_hits_interval

__all__ = ["Round", "mixture_estimate"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Round:
    """One round of draws of one query, its hits alone; non-hits count as 0 whatever they weigh.

    Several continuations of one prefix are one draw, a hit if any of them is.

    Attributes:
        counts: Draws of each component, the target's first, [J].
        component: Which one each hit is from, [hits].
        log_ratios: log q_j(x) - log p(x) of the hits, [hits, J]; read where draws are.
        log_values: What a hit counts beside its weight, [hits]: 0, or log of the share of a
            prefix's continuations that hit, or what roulette adds.
        draws: Number of each hit's draw, [hits]; empty where nobody asks.
    """

    counts: NDArray[np.int64]
    component: NDArray[np.int64]
    log_ratios: Floats
    log_values: Floats
    draws: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def n(self) -> int:
        """Number of draws."""
        return int(self.counts.sum())

    @property
    def log_weighted(self) -> Floats:
        """Log of w*h of the hits, w = p over the round's mixture, [hits]."""
        return self.log_values - self._log_mixture(self.counts)

    @property
    def undefended(self) -> Floats:
        """The same without the target's draws, which are left out, [hits]; theirs are -inf."""
        counts = self.counts.copy()
        counts[0] = 0
        if not counts.any():
            return np.full(len(self.component), -np.inf)
        return np.where(self.component > 0, self.log_values - self._log_mixture(counts), -np.inf)

    def _log_mixture(self, counts: NDArray[np.int64]) -> Floats:
        drawn = counts > 0
        shares = np.log(counts[drawn] / counts.sum())
        total: Floats = np.logaddexp.reduce(self.log_ratios[:, drawn] + shares, axis=1)
        return total


def mixture_estimate(
    rounds: Sequence[Round], *, level: float = 0.95, look: int = 0,
    target: tuple[int, int] | None = None,
) -> Estimate:  # fmt: skip
    """The risk from all rounds (method.md sections 5 and 6).

    Bounds that assume nothing hold at any round's end: the draws of one component have a mean
    of their own, not QRISK, but with one stake for all of a round's draws a gambler gains most,
    in the mean, when all of them are equal (the inequality of the means), so that her capital
    is still no more than a fair game's after the round.

    Args:
        rounds: At least one, in order.
        level: Coverage of the intervals.
        look: How often the interval was looked at to decide whether to go on, this time
            included; the level is spread over all such looks. 0 when it decides nothing.
        target: Hits among draws of the target, and their number; None when they are not to be
            told from others (roulette), and nothing is bounded from above.
    """
    weighted = np.concatenate([one.log_weighted for one in rounds])
    n = sum(one.n for one in rounds)
    found = diagnose(weighted, bound=_largest_share(rounds, weighted))
    spread = level_of_look(level, look)
    low, high = weighted_hits_interval(weighted[np.isfinite(weighted)], n, level=spread)
    guaranteed = betting_upper_bound(*target, level=level) if target else 1.0
    if found.n_hits < 2 and target:  # weights of unknown spread bound nothing from above
        high = min(high, betting_upper_bound(*target, level=(1 + spread) / 2))
    reasons = found.reasons
    if not found.n_hits:
        reasons = (
            f"no hit in {n} draws of the mixture: the risk is below {guaranteed:.2g} by its "
            f"{target[1] if target else 0} draws of the target; draw more or widen the grid",
        )
    return Estimate(
        query_id="",
        prompt="",
        method="mixture",
        p=float(np.exp(np.logaddexp.reduce(weighted) - np.log(n))) if found.n_hits else None,
        stderr=_stratified(rounds) if found.n_hits else None,
        ci_low=low,
        ci_high=high,
        p_low=betting_lower_bound(weighted, n, level=level),
        p_high_guaranteed=guaranteed,
        level=level,
        n=n,
        n_hits=found.n_hits,
        ess=None,
        ess_hits=found.ess_hits,
        khat=found.khat,
        max_share=found.max_share,
        verdict=found.verdict,
        reasons=reasons,
    )


def _largest_share(rounds: Sequence[Round], log_weighted: Floats) -> float:
    """The most that one draw can weigh, by the defence, over what all of them do weigh."""
    with np.errstate(divide="ignore"):
        largest = max(np.log(one.n) - np.log(one.counts[0]) for one in rounds)
    return float(np.exp(min(largest - np.logaddexp.reduce(log_weighted), 700.0)))


def _stratified(rounds: Sequence[Round]) -> float:
    """Standard error when every component's number of draws is fixed: variance within them."""
    total = 0.0
    for one in rounds:
        values = np.exp(one.log_weighted)
        drawn = np.maximum(one.counts, 1)
        size = len(one.counts)
        first = np.bincount(one.component, values, size)
        second = np.bincount(one.component, values**2, size)
        spread = np.maximum(second - np.where(drawn > 1, first**2 / drawn, 0.0), 0.0)
        total += float((spread * drawn / np.maximum(drawn - 1, 1)).sum())
    return float(np.sqrt(total)) / sum(one.n for one in rounds)
