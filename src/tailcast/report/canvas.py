"""A picture file to draw on, by matplotlib."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tailcast.errors import ConfigError, MissingExtra

__all__ = ["canvas"]


@contextmanager
def canvas(
    path: Path, *, width: float = 7.5, height: float = 4.2, columns: int = 1
) -> Iterator[Any]:
    """Axes to draw on, or a row of several; the picture is written at the end.

    Args:
        path: The picture; its ending says the format.
        width: In inches.
        height: In inches.
        columns: How many axes side by side.

    Raises:
        MissingExtra: If matplotlib is not installed.
        ConfigError: If the picture's format is none that it knows.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plot", "a picture") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns)
    yield axes
    for one in figure.axes:
        one.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:
        raise ConfigError(f"plot {str(path)!r} cannot be drawn: {error}.") from None
