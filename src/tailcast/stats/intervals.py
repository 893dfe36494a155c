"""Between which risks does the truth lie, given the hits and their weights?"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["clopper_pearson", "level_of_look", "weighted_hits_interval"]

_PIVOTS = 20_000
_FEWEST = 5  # hits that a log-normal law can be fitted to
_CONTRADICTED = 1.0  # nats that its mean may lie above that of the weights themselves


def level_of_look(level: float, look: int) -> float:
    """Level of an interval so that all looks at it hold together: 1 - (1 - level) / (k (k + 1)).

    Args:
        level: Coverage of all looks together, in (0, 1).
        look: Which look this is, from 1; 0 if the number of draws was fixed in advance.
    """
    return 1 - (1 - level) / (look * (look + 1)) if look else level


def clopper_pearson(hits: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a binomial probability (Clopper and Pearson 1934).

    With no hit the upper end is the one that the two-sided level gives, never 0.

    Args:
        hits: Number of successes, 0 .. n.
        n: Number of draws, at least 1.
        level: Coverage, in (0, 1).

    Returns:
        Lower and upper end, both in [0, 1]; coverage is at least ``level``.
    """
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high


def weighted_hits_interval(
    log_weights: NDArray[np.floating], n: int, *, level: float = 0.95
) -> tuple[float, float]:
    """Interval of E_q[w h] for n draws of a proposal: the hull of two (method.md section 6).

    One is generalised (pivotal): the share of hits has a beta law, the mean of the hits'
    weights the pivot of a log-normal mean (Krishnamoorthy and Mathew 2003). The other is
    normal on the log scale with Student quantiles, and holds the estimate whatever the
    shape of the weights. Pivots are a fixed set, so equal input gives equal output.

    It ASSUMES that the proposal visits every way to hit: a way that it never visits
    leaves no trace in the weights.

    Args:
        log_weights: Log-weights of the hits alone, [hits].
        n: Number of draws, hits and others.
        level: Nominal coverage, in (0, 1).

    Returns:
        Lower and upper end in [0, 1]. With no hit (0, 1): nothing bounds the risk from
        above. With one hit the spread of weights is unknown and the upper end is 1 unless
        the weight is 1, that of a target draw.
    """
    hits = len(log_weights)
    if hits == 0:
        return 0.0, 1.0
    spread = float(np.std(log_weights, ddof=1)) if hits > 1 else 0.0
    if spread == 0.0 and (hits > 1 or log_weights[0] == 0.0):
        low, high = clopper_pearson(hits, n, level=level)
        weight = float(np.exp(log_weights[0]))
        return low * weight, min(1.0, high * weight)
    if hits == 1:
        return 0.0, 1.0
    one, other = _pivotal(log_weights, n, level), _log_normal(log_weights, n, level)
    return min(one[0], other[0]), max(one[1], other[1])


def _pivotal(log_weights: NDArray[np.floating], n: int, level: float) -> tuple[float, float]:
    """A binomial share of hits times a log-normal mean of their weights."""
    top = _log_normal_part(log_weights)
    hits, spread = len(top), np.std(top, ddof=1)
    rest = np.logaddexp.reduce(log_weights) - np.logaddexp.reduce(top)
    rng = np.random.default_rng(20_260_422)
    variance = spread**2 * (hits - 1) / rng.chisquare(hits - 1, _PIVOTS)
    centre = np.mean(top) + rng.standard_normal(_PIVOTS) * np.sqrt(variance / hits)
    share = rng.beta(hits + 0.5, n - hits + 0.5, _PIVOTS)
    log_mean = np.log(share) + centre + variance / 2 + rest
    low, high = np.exp(np.minimum(np.quantile(log_mean, [(1 - level) / 2, (1 + level) / 2]), 0.0))
    return float(low), float(high)


def _log_normal_part(log_weights: NDArray[np.floating]) -> NDArray[np.floating]:
    """The largest weights, as many of them as a log-normal law does not contradict.

    On the log scale the weights of a mixture are skewed to the left: most hits of a strong
    component weigh next to nothing. The mean of a log-normal law through all of them would
    lie far above any weight seen; then the lower half is left out, and what it adds to the
    estimate is added as it is.
    """
    top = np.sort(log_weights)
    while len(top) >= 2 * _FEWEST:
        plug_in = float(np.mean(top) + np.var(top, ddof=1) / 2)
        if plug_in - float(np.logaddexp.reduce(top) - np.log(len(top))) <= _CONTRADICTED:
            break
        top = top[len(top) // 2 :]
    return top


def _log_normal(log_weights: NDArray[np.floating], n: int, level: float) -> tuple[float, float]:
    """The estimate times and over exp(t stderr / estimate)."""
    from scipy.special import logsumexp
    from scipy.stats import t

    log_p = float(logsumexp(log_weights)) - np.log(n)
    log_square = float(logsumexp(2 * log_weights)) - np.log(n)
    relative = np.sqrt(max(np.expm1(log_square - 2 * log_p), 0.0) / n)
    reach = float(t.ppf((1 + level) / 2, len(log_weights) - 1)) * relative
    low, high = np.exp(np.minimum([log_p - reach, log_p + reach], 0.0))
    return float(low), float(high)
