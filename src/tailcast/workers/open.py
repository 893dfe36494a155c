"""Which workers does a run ask for?"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tailcast.workers.kit import Kit
from tailcast.workers.local import LocalWorkers, Workers

__all__ = ["open_workers"]


@contextmanager
def open_workers(kit: Kit, say: Callable[[str], None]) -> Iterator[Workers]:
    """The workers that the kit's config names; closed at the end.

    Args:
        kit: What they work with.
        say: Told what happens to them.

    Raises:
        MissingExtra: If Ray is asked for and not installed.
        WorkersError: If there is no such cluster.
    """
    if kit.config.ray is None:
        yield LocalWorkers(kit)
        return
    from tailcast.workers.ray import RayWorkers

    workers = RayWorkers(kit, kit.config.ray, number=kit.config.workers, say=say)
    try:
        yield workers
    finally:
        workers.close()
