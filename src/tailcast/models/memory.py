"""How many rows fit in memory, and what running out of it looks like."""

import math
from typing import Any

import psutil
import torch

__all__ = ["free_bytes", "is_out_of_memory", "planned_rows"]

_SHARE = 0.5  # of what is free
_MOST = {"cpu": 512, "other": 1024}  # more rows than these make a row little cheaper
_UNKNOWN = 128  # rows for a target that cannot tell its size


def planned_rows(target: Any, max_new_tokens: int, budget: float | None = None) -> int:
    """Rows of a forward pass for a target, a power of two from 2 up.

    Args:
        target: The target; one without ``slot_bytes`` gets 128 rows.
        max_new_tokens: Length limit of a completion.
        budget: GiB that the rows may take; half of what is free on the device if None, on the
            fullest of several. Each of those is taken to hold all of a row.
    """
    if not hasattr(target, "slot_bytes"):
        return _UNKNOWN
    if budget is not None:
        room = budget * 2**30
    else:
        room = _SHARE * min(free_bytes(device) for device in target.devices)
    rows = max(2.0, room / target.slot_bytes(max_new_tokens))
    most = _MOST.get(target.like.device.type, _MOST["other"])
    return min(most, 1 << int(math.log2(rows)))


def free_bytes(device: torch.device) -> int:
    """Memory of a device that is not in use."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the host, had no memory left."""
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in words or "out of memory" in words)
    )
