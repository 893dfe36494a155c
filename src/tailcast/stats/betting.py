"""What is the risk at least, and at most, with no assumption on the proposal?

A gambler who bets that the mean of w*h is more than m multiplies her capital by
1 + lambda (w_i h_i - m) at draw i. If the mean is m or less, her expected capital never grows,
so that it passes 1/(1 - level) with probability at most 1 - level, at any time (Ville). Every m
under which it did pass is refuted (Waudby-Smith and Ramdas 2024, section 4). w*h need not be
bounded, and q may change from draw to draw: each w*h has mean QRISK given the past.

From above only draws of the target can bound it: a bet on the share of hits among them.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["betting_lower_bound", "betting_upper_bound"]

_BETS = np.concatenate([np.geomspace(1e-3, 0.5, 13), [0.7, 0.9, 0.99]])
"""Shares of the capital that are staked, c = lambda * m; the capital is averaged over them."""


def betting_lower_bound(log_weights: NDArray[np.floating], n: int, *, level: float = 0.95) -> float:
    """The largest risk that the weighted hits refute from below; 0 without hits.

    One-sided: the true risk lies below with probability at most ``1 - level``, whatever the
    proposal, and at any number of draws at which one chooses to look.

    Args:
        log_weights: Log-weights of the hits alone, [hits].
        n: Number of draws, hits and others.
        level: Coverage, in (0, 1).
    """
    finite = np.asarray(log_weights, dtype=float)[np.isfinite(log_weights)]
    if not len(finite):
        return 0.0
    wanted = -np.log1p(-level)
    high = float(np.logaddexp.reduce(finite)) - np.log(n)  # the mean: capital is 1 at most there
    low = high - 1.0
    while _log_capital(finite, n, low) < wanted:
        low -= 2.0
        if low < high - 100.0:
            return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _log_capital(finite, n, middle) >= wanted else (low, middle)
    return float(np.exp(low))


def _log_capital(log_weights: NDArray[np.float64], n: int, log_mean: float) -> float:
    """Log of the capital after all draws, against the mean exp(log_mean); it falls in that."""
    kept, staked = np.log1p(-_BETS), np.log(_BETS)
    won = np.logaddexp(kept, staked + log_weights[:, None] - log_mean).sum(axis=0)
    capital = (n - len(log_weights)) * kept + won
    return float(np.logaddexp.reduce(capital) - np.log(len(_BETS)))


_RARER = np.array([0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9])
"""Shares of m that the gambler holds to be the truth; half of her capital goes on none at all."""
_STAKED = np.array([0.5, *[0.5 / 7] * 7])


def betting_upper_bound(hits: int, n: int, *, level: float = 0.95) -> float:
    """The smallest risk that n draws of the target refute from above; 1 without draws.

    One-sided and valid at any number of draws at which one chooses to look; without hits it
    is about 3.7 / n at 95%, where looking once at a number fixed in advance gives 3 / n.

    Args:
        hits: Number of hits among the draws.
        n: Number of draws.
        level: Coverage, in (0, 1).
    """
    if hits >= n:
        return 1.0
    wanted = -np.log1p(-level)

    def capital(risk: float) -> float:
        rarer = _RARER * risk
        with np.errstate(divide="ignore", invalid="ignore"):
            won = np.where(hits == 0, 0.0, hits * np.log(_RARER))
        won = won + (n - hits) * (np.log1p(-rarer) - np.log1p(-risk))
        return float(np.logaddexp.reduce(won + np.log(_STAKED)))

    low, high = hits / n, 1.0 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if capital(middle) >= wanted else (middle, high)
    return high
