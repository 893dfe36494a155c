"""How do charts look: colours by scheme, width, and what all of them share?"""

from dataclasses import dataclass
from typing import Any

from tailcast.errors import MissingExtra

__all__ = ["DARK", "LIGHT", "Look", "dressed", "load_altair"]


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

    def series(self, n: int) -> list[str]:
        """Colours of n series; from the seventh on they repeat."""
        colours = [self.accent, self.unreliable, self.ok, self.weak, self.ink, self.faint]
        return [colours[number % len(colours)] for number in range(n)]


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


def dressed(chart: Any, look: Look) -> Any:
    """A chart in the colours of a look."""
    return chart.configure(
        background=look.background, font="sans-serif", view={"stroke": None}, padding=4
    ).configure_axis(
        labelColor=look.ink, titleColor=look.ink, gridColor=look.grid, tickColor=look.faint,
        domainColor=look.faint, labelFontSize=11, titleFontSize=12, titleFontWeight="normal",
        labelLimit=_label_room(look),
    ).configure_legend(
        labelColor=look.ink, titleColor=look.ink, orient="top", title=None, labelFontSize=12,
        columns=2 if look.width < 400 else 0, labelLimit=300, symbolOpacity=1,
        columnPadding=26,
    )  # fmt: skip


def _label_room(look: Look) -> int:
    return 110 if look.width < 400 else 200
