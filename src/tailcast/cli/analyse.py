"""Verbs that turn the estimates of finished runs into what is decided by."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from tailcast.cli.analyse_forecast import forecast
from tailcast.cli.analyse_view import show_deployment, show_repeated
from tailcast.cli.sensitivity import sensitivity

__all__ = ["analyse"]

analyse = App(
    name="analyse", help="From the estimates of finished runs to decisions.",
    help_format="plaintext", result_action="return_value",
)  # fmt: skip
analyse.command(forecast)
analyse.command(sensitivity)

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON lines.")]


@analyse.command
def repeated(
    directories: Annotated[list[Path], Parameter(negative=())], /, *, tries: float = 1e6,
    greedy: Path | None = None, level: float = 0.95, plot: Path | None = None, json: Json = False,
) -> None:  # fmt: skip
    """Share of queries with at least one harmful answer in n tries.

    Counted from plain draws as far as they go, and by 1 - (1 - risk)^n for any n. The bands
    carry the uncertainty of each estimate and the choice of queries; a query without a hit is
    not taken for safe, but for bounded from above.

    Args:
        directories: Run directories, all of the same queries, settings and judge.
        tries: The largest n.
        greedy: A run of the same queries and model with --top-k 1, for the greedy answer.
        level: Coverage of the bands.
        plot: Also draw the curves to this picture (png or svg).
    """
    from tailcast.analysis.repeated import repeated_report
    from tailcast.analysis.runs import read_run

    runs = [read_run(one) for one in directories]
    answers = None if greedy is None else read_run(greedy)
    found = repeated_report(runs, tries, answers, level=level)
    if plot is not None:
        from tailcast.report.curves import curves_of
        from tailcast.report.render import save_plot

        save_plot(lambda look: curves_of(found.by_run, look), plot)
    show_repeated(found, as_json=json)


@analyse.command
def deployment(
    directory: Path, /, *, calls: str, weights: str | None = None,
    monitor_recall: float | None = None, level: float = 0.95, json: Json = False,
) -> None:  # fmt: skip
    """Expected harmful outputs a day, the chance of one, the wait for the first.

    Args:
        directory: A run directory.
        calls: How many calls, as 1e9/day or 200/second.
        weights: How often each query is asked: a column of the run's query file, or a file
            with columns id and weight; equally often if not given.
        monitor_recall: Share of harmful answers that a monitor stops, in [0, 1].
        level: Coverage of the intervals.
    """
    from tailcast.analysis.deployment import calls_per_day, deployment, query_weights
    from tailcast.analysis.runs import read_run

    run, rate = read_run(directory), calls_per_day(calls)
    base = None if weights is None else query_weights(run, weights)
    found = deployment(run, rate, weights=base, monitor_recall=monitor_recall, level=level)
    show_deployment(found, as_json=json)
