"""Which slot moves where when some of them close?"""

from collections.abc import Sequence

__all__ = ["compacted"]


def compacted(n: int, closed: Sequence[int]) -> list[int]:
    """Order of the former slots after closing some: the last ones fill the gaps.

    At most ``len(closed)`` slots move, so that little memory is copied.

    Args:
        n: Number of slots before.
        closed: Slots to drop, distinct.

    Returns:
        For each new slot the number of the former slot in its place, [n - len(closed)].
    """
    gone = set(closed)
    order = list(range(n - len(gone)))
    movers = (slot for slot in range(n - 1, len(order) - 1, -1) if slot not in gone)
    for gap in sorted(slot for slot in gone if slot < len(order)):
        order[gap] = next(movers)
    return order
