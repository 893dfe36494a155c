"""Verbs that show runs to people: a page, a picture."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tailcast.errors import ConfigError, MissingExtra

__all__ = ["plot", "report", "report_of_demo"]

Switch = Annotated[bool, Parameter(negative=())]


def report(*directories: Path, out: Path = Path("report.html"), show_text: Switch = False) -> None:
    """Write a page about one run, or several side by side: one HTML file that loads nothing.

    Args:
        directories: Run directories.
        out: HTML file to write.
        show_text: Put answers that were judged hits in too, each query's behind a click.
    """
    from tailcast.report import write_report

    if not directories:
        raise ConfigError("no run directory is given: tailcast report DIR [DIR ...] --out FILE.")
    write_report(directories, out, show_text=show_text)
    print(out)


def plot(directory: Path, kind: str, /, *, out: Path | None = None, dark: Switch = False) -> None:
    """Draw a figure of a run to a picture.

    Args:
        directory: A run directory.
        kind: risks, agreement, repeated, forecast, wordings, components or diagnostics.
        out: File to write, *.svg or *.png; KIND.svg if not given.
        dark: Light lines on a dark ground.
    """
    from tailcast.report import DARK, LIGHT, draw, read_run, save_chart

    place = out or Path(f"{kind}.svg")
    save_chart(draw(read_run(directory), kind, look=DARK if dark else LIGHT), place)
    print(place)


def report_of_demo(directory: Path) -> None:
    """Write the demo's page into its directory, where the extra is installed."""
    from tailcast.cli.view import console
    from tailcast.report import write_report

    try:
        write_report([directory], directory / "report.html")
    except MissingExtra as error:
        console().print(f"No report: {error}")
    else:
        console().print(f"Report: {directory / 'report.html'}")
