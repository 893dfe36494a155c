"""Which proposal of a grid is closest to the optimal one, q* = p h / QRISK?"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["cross_entropy"]


def cross_entropy(
    log_ratios: NDArray[np.float64], log_weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Cross-entropy of every proposal to one query's optimal law, less a constant.

    Method.md section 4: -sum_i w_i h_i log q_phi(x_i) over the pilot's hits, where w is p
    over the pilot's own marginal. Two changes leave every argmin over one query as it is:
    log q_phi is taken relative to log p, and the weights are scaled to sum to 1, so that
    summed over queries each query counts the same (as in the paper's code) and not in
    proportion to its risk.

    Args:
        log_ratios: log q_phi(x) - log p(x) of the hits, [hits, ...grid].
        log_weights: log p(x) - log q_rand(x) of the hits, [hits].

    Returns:
        One number for each proposal, in nats, [...grid]; the smaller, the better. Zeros
        where there is no hit: a query without hits says nothing.
    """
    if len(log_weights) == 0 or np.isneginf(log_weights).all():
        return np.zeros(log_ratios.shape[1:])
    shares = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    kept = shares > 0
    loss: NDArray[np.float64] = -np.tensordot(shares[kept], log_ratios[kept], axes=1)
    return loss
