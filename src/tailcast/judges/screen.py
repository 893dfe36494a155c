"""Which completions are worth a dear judge's look?"""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from tailcast.judges.refusal import is_refusal

__all__ = ["screened"]


def screened(texts: Sequence[str], share: float, name: str) -> NDArray[np.float64]:
    """With which probability the judge was to see each completion; 0 where it will not.

    Completions without a refusal phrase are all seen. Each of the others is seen with
    probability ``share``, whatever the rest, so that a hit among them that counts 1 / share
    times leaves every estimate unbiased.

    Args:
        texts: The completions, [n].
        share: In (0, 1].
        name: What seeds the choice.
    """
    refused = np.array([is_refusal(text) for text in texts], dtype=bool)
    seed = int.from_bytes(sha256(name.encode()).digest()[:8], "big")
    seen = np.random.default_rng(seed).random(len(texts)) < share
    return np.where(refused, np.where(seen, share, 0.0), 1.0)
