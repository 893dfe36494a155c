"""The logarithmic axis of risks, which all figures share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tailcast.report.look import Look
from tailcast.report.words import risk

__all__ = ["floor_of", "log_axis"]


def floor_of(values: Sequence[float]) -> float:
    """The power of ten below all of them, for an axis that ends at 1."""
    least = min((one for one in values if one > 0), default=1e-3)
    return float(10.0 ** max(min(np.floor(np.log10(least)), -1), -16))


def log_axis(alt: Any, floor: float, look: Look, *, sideways: bool) -> Any:
    """Ticks at powers of ten, so many as there is room for.

    Args:
        alt: The drawing library.
        floor: A power of ten, where the axis begins; it ends at 1.
        look: How wide the chart is.
        sideways: Whether the axis lies.
    """
    decades = round(-np.log10(floor))
    step = max(1, -(-decades // (6 if look.width < 400 and sideways else 10)))
    powers = [10.0**-k for k in range(0, decades + 1, step)]
    names = {
        k: f"{10.0**-k:g}" if k < 3 else risk(10.0**-k).removeprefix("1.0×") for k in range(20)
    }
    label = f"{list(names.values())}[round(-log(datum.value) / LN10)]"
    return alt.Axis(values=powers, grid=True, labelExpr=label)
