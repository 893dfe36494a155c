"""Which hits carry an estimate? As a picture."""

from pathlib import Path

import numpy as np

from tailcast.analysis.explain import Explanation
from tailcast.report.canvas import canvas

__all__ = ["plot_explanation"]

_MOST = 7  # proposals with a colour of their own


def plot_explanation(found: Explanation, path: Path) -> None:
    """Draw the hits' weights by proposal, and how few of them carry the estimate.

    Raises:
        TailcastError: As :func:`tailcast.report.canvas.canvas`.
    """
    names = [row[0] for row in found.by_proposal if row[2]][:_MOST]
    values = [
        [one.log_weighted / np.log(10) for one in found.hits if one.proposal == name]
        for name in names
    ]
    shares = np.cumsum([one.share for one in found.hits])
    with canvas(path, width=9, height=3.6, columns=2) as (left, right):
        left.hist(values, bins=20, stacked=True, label=names)
        left.set(xlabel="log10 of a hit's weight", ylabel="hits")
        left.legend(fontsize=7, frameon=False)
        right.step(np.arange(1, len(shares) + 1), shares, where="post")
        right.set(xscale="log", ylim=(0, 1.02), xlabel="largest hits")
        right.set(ylabel="share of the estimate")
        title = f"{found.estimate['query_id']} by {found.estimate['method']}"
        left.figure.suptitle(title, fontsize=10)
