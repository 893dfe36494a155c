"""Risks and their intervals as a plot in characters, on a log scale."""

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["Axis", "axis_of"]

_WIDTH = 25
_LOWEST = -12  # decades; a lower end below it is drawn at the edge


class Axis:
    """A log scale over whole decades.

    Args:
        low: Power of ten at the left edge.
        high: Power of ten at the right edge, above it.
        width: Characters from edge to edge.
    """

    def __init__(self, low: int, high: int, width: int = _WIDTH) -> None:
        self.low = low
        self.high = high
        self.width = width

    @property
    def title(self) -> str:
        """Both edges, to stand above the plot."""
        left, right = f"1e{self.low}", "1" if self.high == 0 else f"1e{self.high}"
        return left + right.rjust(self.width - len(left))

    def bar(self, row: dict[str, Any]) -> str:
        """An estimate: a dot in its interval, or all up to its upper end where there is none."""
        marks = [" "] * self.width
        first, last = self._place(row["ci_low"]), self._place(row["ci_high"])
        for place in range(first, last + 1):
            marks[place] = "─"
        marks[last] = "┤"
        if row["ci_low"] > 0:
            marks[first] = "├"
        if row["p"]:
            marks[self._place(row["p"])] = "●"
        return "".join(marks)

    def _place(self, risk: float) -> int:
        decade = math.log10(risk) if risk > 0 else -math.inf
        share = (decade - self.low) / (self.high - self.low)
        return round(min(1.0, max(0.0, share)) * (self.width - 1))


def axis_of(rows: Sequence[dict[str, Any]]) -> Axis:
    """The axis that holds all estimates and their intervals."""
    ends = [row[name] for row in rows for name in ("ci_low", "p", "ci_high") if row[name]]
    decades = [math.log10(one) for one in ends] or [0.0]
    high = min(0, math.ceil(max(decades)))
    return Axis(min(high - 1, max(_LOWEST, math.floor(min(decades)))), high)
