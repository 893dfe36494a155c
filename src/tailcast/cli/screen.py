"""What all tables of results have in common."""

from collections.abc import Collection

from rich.console import Console
from rich.table import Table

__all__ = ["escaped", "plain_table", "result_screen"]


def result_screen(width: int = 140) -> Console:
    """The console of results, on stdout.

    Args:
        width: Columns where it is no terminal, enough for a table.
    """
    return Console(width=None if Console().is_terminal else width)


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


def escaped(text: str) -> str:
    """A text in which rich finds no markup."""
    return text.replace("[", "\\[")
