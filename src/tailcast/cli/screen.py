"""Where all that is shown goes through: texts of models, users and strangers stay texts."""

from collections.abc import Collection, Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from tailcast.visible import visible

__all__ = ["Screen", "plain_table", "result_screen"]


class Screen(Console):
    """A console on which a text is shown as it is: no markup, and control characters by name."""

    def __init__(self, **more: Any) -> None:
        super().__init__(markup=False, emoji=False, **more)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """What is drawn, piece by piece."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)


def result_screen(width: int = 140) -> Screen:
    """The console of results, on stdout.

    Args:
        width: Columns where it is no terminal, enough for a table.
    """
    return Screen(width=None if Console().is_terminal else width)


def plain_table(*names: str, right: Collection[str] = (), no_wrap: bool = False) -> Table:
    """A table without lines.

    Args:
        *names: Its columns.
        right: Those that hold numbers.
        no_wrap: Whether a cell stays on one line.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, no_wrap=no_wrap, justify="right" if name in right else "left")
    return table
