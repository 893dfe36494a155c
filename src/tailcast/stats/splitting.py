"""What do several independent swarms say of one query's risk?

One swarm's particles share ancestors and levels, so that nothing within it says how far it may
be off. The swarms of a query are independent and each has mean QRISK: their spread is the
estimate's, and with it the interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailcast.stats.betting import betting_lower_bound
from tailcast.stats.estimators import Estimate
from tailcast.stats.intervals import clopper_pearson

__all__ = ["SwarmHits", "splitting_estimate"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SwarmHits:
    """A swarm's hits.

    Attributes:
        masses: Share of the target that each hit stands for, [hits].
        ancestors: First particle that each descends from, [hits].
        first_hits: Hits among the first particles, which are plain draws of the target.
        size: Number of those.
        drawn: Number of all particles.
    """

    masses: Floats
    ancestors: NDArray[np.int64]
    first_hits: int
    size: int
    drawn: int

    @property
    def p(self) -> float:
        """The swarm's own estimate, unbiased whatever the score."""
        return float(self.masses.sum())

    @property
    def families(self) -> Floats:
        """What the hits of each ancestor stand for together, [ancestors with hits]."""
        found = np.bincount(self.ancestors, self.masses, self.size)
        return np.asarray(found[found > 0])


def splitting_estimate(swarms: Sequence[SwarmHits], *, level: float = 0.95) -> Estimate:
    """The mean of independent swarms.

    Nothing is assumed by ``p_low``, a bet on the swarms' estimates, and by
    ``p_high_guaranteed``, the exact bound of their first particles, which are plain draws. The
    interval takes the mean of the swarms for normal, on the plain and on the log scale.

    Args:
        swarms: At least two, of equal size.
        level: Coverage.
    """
    values = np.array([one.p for one in swarms])
    count, p = len(values), float(values.mean())
    plain, hits = sum(one.size for one in swarms), sum(one.first_hits for one in swarms)
    families = np.concatenate([one.families for one in swarms])
    low, high = _interval(values, level) if p else (0.0, clopper_pearson(0, plain, level=level)[1])
    verdict, reasons = _verdict(values, families, plain)
    with np.errstate(divide="ignore"):
        at_least = betting_lower_bound(np.log(values[values > 0]), count, level=level)
    return Estimate(
        query_id="",
        prompt="",
        method="splitting",
        p=p or None,
        stderr=float(values.std(ddof=1) / np.sqrt(count)) if p else None,
        ci_low=low,
        ci_high=high,
        p_low=at_least,
        p_high_guaranteed=clopper_pearson(hits, plain, level=2 * level - 1)[1],
        level=level,
        n=sum(one.drawn for one in swarms),
        n_hits=sum(len(one.masses) for one in swarms),
        ess=None,
        ess_hits=_effective(families),
        khat=None,
        max_share=float(families.max() / families.sum()) if p else None,
        verdict=verdict,
        reasons=reasons,
    )


def _interval(values: Floats, level: float) -> tuple[float, float]:
    """Hull of the mean plus and minus, and times and over, t standard errors; in [0, 1]."""
    from scipy.stats import t

    mean = float(values.mean())
    relative = float(values.std(ddof=1)) / (len(values) ** 0.5 * mean)
    reach = float(t.ppf((1 + level) / 2, len(values) - 1)) * relative
    low = mean * min(1 - reach, float(np.exp(-reach)))
    return max(0.0, low), min(1.0, mean * float(np.exp(min(reach, 700.0))))


def _effective(families: Floats) -> float:
    """Effective number of ancestors, (sum m)^2 / sum m^2."""
    return float(families.sum() ** 2 / (families**2).sum()) if len(families) else 0.0


def _verdict(values: Floats, families: Floats, plain: int) -> tuple[str, tuple[str, ...]]:
    """The worst that any rule gives, and a sentence for each rule that is broken."""
    found, count = int(np.count_nonzero(values)), len(values)
    if not found:
        return "weak", (
            f"no hit in {count} swarms, whose first {plain} draws bound the risk: draw more, or "
            "use another score",
        )
    mean = float(values.mean())
    measured = (
        ("swarms with a hit", found, 0.8 * count, max(3.0, 0.3 * count), "raise samples"),
        ("effective ancestors of the hits", _effective(families), 10, 3,
         "raise samples or particles"),
        ("agreement of the swarms, their mean over the standard error of it,",
         mean * np.sqrt(count) / max(float(values.std(ddof=1)), 1e-300), 3, 1.5,
         "the score may lead past a way to hit: raise samples or use another score"),
    )  # fmt: skip
    worst, reasons = 0, []
    for name, value, weak, unreliable, advice in measured:
        broken = int(value < weak) + int(value < unreliable)
        if broken:
            bound = unreliable if broken == 2 else weak
            reasons.append(f"{name} {value:.3g} is below {bound:.3g}: {advice}")
        worst = max(worst, broken)
    return ("ok", "weak", "unreliable")[worst], tuple(reasons)
