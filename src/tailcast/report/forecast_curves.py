"""How does the worst risk grow with the number of queries? As a picture."""

from pathlib import Path

import numpy as np

from tailcast.analysis.forecast import worst_of
from tailcast.analysis.forecast_methods import METHODS
from tailcast.analysis.measured import Measured
from tailcast.errors import ConfigError, DataError, MissingExtra

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
        MissingExtra: If matplotlib is not installed.
        ConfigError: If the picture's format is none that it knows.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plot", "a picture") from error
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
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
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:
        raise ConfigError(f"plot {str(path)!r} cannot be drawn: {error}.") from None
