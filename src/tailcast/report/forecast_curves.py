"""How does the worst risk grow with the number of queries? As a picture."""

from pathlib import Path

import numpy as np

from tailcast.analysis.forecast import worst_of
from tailcast.analysis.forecast_methods import METHODS
from tailcast.analysis.measured import Measured
from tailcast.errors import DataError
from tailcast.report.canvas import canvas

__all__ = ["plot_forecast"]

_BANDS = ("bayes", "pot")
_POINTS = 40


def plot_forecast(measured: Measured, n: int, path: Path, *, level: float = 0.9) -> None:
    """Draw the forecast worst risk over 10 to n queries, and the measured risks by their rank.

    Args:
        measured: The queries.
        n: The largest number of unseen queries.
        path: The picture.
        level: Coverage of the bands, of bayes and pot alone.

    Raises:
        TailcastError: As :func:`tailcast.report.canvas.canvas`.
    """
    with canvas(path, height=4.6) as axes:
        many = np.unique(np.geomspace(min(10, n), n, _POINTS).astype(int))
        for number, (name, fit) in enumerate(METHODS.items()):
            try:
                fitted = fit(measured)
            except DataError:
                continue
            worst, low, high = np.array([worst_of(name, fitted, int(one), level) for one in many]).T
            style = "-" if name in _BANDS else "--"
            axes.plot(many, worst, style, color=f"C{number}", linewidth=1.3, label=name)
            if name in _BANDS:
                axes.fill_between(many, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
        seen = np.sort(measured.risks[measured.seen])[::-1]
        rank = len(measured) / np.arange(1, len(seen) + 1)
        axes.plot(rank, seen, ".", color="black", markersize=4, label="measured, m / rank")
        axes.axvline(len(measured), color="grey", linewidth=0.8, linestyle=":")
        axes.set(xscale="log", yscale="logit", xlabel="queries", ylabel="largest risk")
        axes.set_xlim(1, n)
        axes.legend(fontsize=8, frameon=False, loc="upper left")
