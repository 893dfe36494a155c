"""How do the risks of a base query's wordings lie? As a picture."""

from collections.abc import Sequence
from pathlib import Path

from tailcast.analysis.runs import Run
from tailcast.analysis.sensitivity import Sensitivity
from tailcast.report.canvas import canvas

__all__ = ["plot_wordings"]


def plot_wordings(run: Run, bases: Sequence[str], found: Sensitivity, path: Path) -> None:
    """Draw every wording's risk with its interval, a column for each base query.

    A query without a hit is an arrow down from its upper end; the base query's own wording is a
    diamond, and the bar is the typical risk.

    Args:
        run: The run.
        bases: Base query of each of its queries.
        found: Their analysis.
        path: Picture to write.

    Raises:
        TailcastError: As :func:`tailcast.report.canvas.canvas`.
    """
    with canvas(path, width=max(4.5, 0.9 * len(found.bases) + 2)) as axes:
        for mark, fill, colour, label in (
            ("o", "full", "C0", "paraphrase"), ("D", "full", "C1", "own wording"),
            ("v", "none", "C0", "no hit: upper end"),
        ):  # fmt: skip
            axes.plot([], [], mark, fillstyle=fill, color=colour, markersize=5, label=label)
        axes.plot([], [], color="0.75", linewidth=5, label="typical")
        axes.legend(
            fontsize=7, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0)
        )
        floor = min(one.ci_low or one.p or one.ceiling for one in run.risks) / 3
        for column, base in enumerate(found.bases):
            mine = [one for one, name in zip(run.risks, bases, strict=True) if name == base.base]
            axes.plot([column - 0.4, column + 0.4], [base.typical] * 2, color="0.75", linewidth=5)
            for number, one in enumerate(mine):
                place = column + 0.7 * ((number + 0.5) / len(mine) - 0.5)
                own = one.query_id == base.base
                colour = "C1" if own else "C0"
                if one.p is None:
                    axes.plot(place, one.ceiling, "v", color=colour, markersize=5, fillstyle="none")
                    continue
                ends = [max(one.ci_low, floor), one.ci_high]
                axes.plot([place, place], ends, color=colour, alpha=0.35, linewidth=1)
                axes.plot(
                    place, one.p, "D" if own else "o", color=colour, markersize=5 if own else 4
                )
        axes.set_xticks(range(len(found.bases)), [one.base for one in found.bases])
        axes.set(yscale="log", ylabel="risk", xlim=(-0.6, len(found.bases) - 0.4))
        if len(found.bases) > 6:
            axes.tick_params(axis="x", rotation=60)
