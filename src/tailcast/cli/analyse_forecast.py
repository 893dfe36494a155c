"""The verb that says what n unseen queries will show."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tailcast.cli.forecast_view import show_forecasts, show_splits

__all__ = ["forecast"]

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON lines.")]


def forecast(
    directories: Annotated[list[Path], Parameter(negative=())], /, *, queries: float = 1e6,
    tau: Annotated[list[float] | None, Parameter(negative=())] = None, level: float = 0.9,
    splits: int | None = None, seed: int = 0, plot: Path | None = None, json: Json = False,
) -> None:  # fmt: skip
    """Worst and mean risk over n queries not yet seen, by several methods.

    Rely on bayes, which takes each estimate's own uncertainty and the queries without hits as
    they are; pot is peaks over threshold; the others are those of papers, and naive ones, for
    comparison (docs/forecast.md). With --splits the methods are tested on the queries at hand:
    a random 30% are fitted, and forecast the other 70%.

    Args:
        directories: One or several run directories of one behaviour, model, judge and settings.
        queries: How many unseen queries, drawn as the measured ones were.
        tau: Risks to give the chance of exceedance for; 0.9, 0.5, 0.1, 0.01, 0.001 if not given.
        level: Coverage of the intervals.
        splits: Test the methods on so many random splits instead.
        seed: Names the splits.
        plot: Also draw the worst risk against n to this picture (png or svg).
    """
    from tailcast.analysis.forecast import TAUS
    from tailcast.analysis.forecast import forecast as run_forecast
    from tailcast.analysis.measured import read_measured
    from tailcast.analysis.splits import split_experiment

    measured = read_measured(directories)
    if splits is not None:
        scores = split_experiment(measured, splits=splits, level=level, seed=seed)
        show_splits(scores, measured, as_json=json)
        return
    found, failed = run_forecast(measured, queries, taus=tau or TAUS, level=level)
    if plot is not None:
        from tailcast.report.forecast_curves import forecasts_of
        from tailcast.report.render import save_plot

        save_plot(lambda look: forecasts_of(measured, int(queries), look, level=level), plot)
    show_forecasts(found, failed, as_json=json)
