"""How do charts look: their colours by scheme, and their width?"""

from dataclasses import dataclass
from typing import Any

from tailcast.errors import MissingExtra

__all__ = ["DARK", "LIGHT", "Look", "load_altair"]


@dataclass(frozen=True)
class Look:
    """Colours and width of a chart.

    Attributes:
        ink: Text and points.
        faint: Axes and guaranteed bounds.
        grid: Lines behind.
        accent: The first series.
        other: The second one.
        ok: Verdict ok.
        weak: Verdict weak.
        unreliable: Verdict unreliable.
        background: Behind everything.
        width: Of the plotting area, in pixels.
    """

    ink: str = "#1c2127"
    faint: str = "#8a939e"
    grid: str = "#e3e6ea"
    accent: str = "#2456a6"
    other: str = "#b4bdc9"
    ok: str = "#1d7a4a"
    weak: str = "#a86400"
    unreliable: str = "#c22f36"
    background: str = "#ffffff"
    width: int = 560


LIGHT = Look()
DARK = Look(
    ink="#e6e9ee", faint="#8b95a3", grid="#2c333c", accent="#7fb0ff", other="#5a6573",
    ok="#57c98b", weak="#e5b04c", unreliable="#ff8078", background="#14181d",
)  # fmt: skip


def load_altair() -> Any:
    """The drawing library.

    Raises:
        MissingExtra: If it is not installed.
    """
    try:
        import altair
    except ImportError as error:
        raise MissingExtra("altair", "report", "a figure") from error
    return altair
