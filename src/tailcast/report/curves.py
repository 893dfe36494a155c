"""How does the share of queries that were hit grow with the tries? As a picture."""

from pathlib import Path

from tailcast.analysis.repeated import Repeated
from tailcast.report.canvas import canvas

__all__ = ["plot_repeated"]


def plot_repeated(found: Repeated, path: Path) -> None:
    """Draw the curves of all runs with their bands: counted solid, by the risks dashed.

    Raises:
        TailcastError: As :func:`tailcast.report.canvas.canvas`.
    """
    with canvas(path) as axes:
        for number, run in enumerate(dict.fromkeys(one.run for one in found.points)):
            colour = f"C{number}"
            for route, style, shade in (("draws", "-", 0.28), ("risks", "--", 0.12)):
                mine = [one for one in found.points if (one.run, one.route) == (run, route)]
                tries = [one.tries for one in mine]
                low, high = [one.low for one in mine], [one.high for one in mine]
                shares = [float("nan") if one.share is None else one.share for one in mine]
                axes.fill_between(tries, low, high, color=colour, alpha=shade, linewidth=0)
                axes.plot(
                    tries, shares, style, color=colour, label=f"{run}, {route}" if mine else None
                )
            for one in found.points:
                if (one.run, one.route) == (run, "greedy") and one.share is not None:
                    axes.plot([0.5], [one.share], "o", color=colour, label=f"{run}, greedy")
        axes.set(xscale="log", ylim=(0, 1.02), xlabel="tries", ylabel="share of queries with a hit")
        axes.legend(fontsize=8, frameon=False)
