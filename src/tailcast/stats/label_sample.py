"""Which completions should a human label, so that the labels matter most?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["inclusion_probabilities", "mean_shares", "systematic_sample"]

Floats = NDArray[np.float64]


def mean_shares(columns: Sequence[Floats]) -> Floats:
    """The mean of several sizes, each as shares of its sum, [n]; all-zero columns are left out.

    Whatever a label is used for, it then counts at most as many times its due as there are
    columns: a defensive mixture of sampling schemes.

    Args:
        columns: Sizes, non-negative, each [n].
    """
    kept = [one / one.sum() for one in columns if one.sum() > 0]
    return np.mean(kept, axis=0) if kept else np.zeros_like(columns[0])


def inclusion_probabilities(sizes: Floats, n: int) -> Floats:
    """Probabilities in proportion to size, of sum n, none above 1, [len(sizes)].

    Args:
        sizes: Non-negative; those of 0 are never included.
        n: How many to include; all of positive size if there are no more.
    """
    positive = sizes > 0
    found = positive.astype(float)
    if positive.sum() <= n:
        return found
    sure = np.zeros(len(sizes), dtype=bool)
    while True:
        rest = np.where(sure, 0.0, sizes)
        found = np.where(sure, 1.0, rest * ((n - sure.sum()) / rest.sum()))
        over = (found >= 1.0) & ~sure
        if not over.any():
            return found
        sure |= over


def systematic_sample(inclusion: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices drawn with given inclusion probabilities, in random order (Madow 1949).

    Systematic sampling of a list that was shuffled first: each index at most once, and as
    many as the probabilities sum to.
    """
    sure = np.flatnonzero(inclusion >= 1.0)
    order = rng.permutation(np.flatnonzero(inclusion < 1.0))
    steps = np.floor(rng.random() + np.concatenate([[0.0], np.cumsum(inclusion[order])]))
    return rng.permutation(np.concatenate([sure, order[np.diff(steps) > 0]]))
