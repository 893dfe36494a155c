"""Who works and who judges for a run?"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from tailcast.workers.kit import Kit
from tailcast.workers.local import LocalWorkers, Workers

__all__ = ["open_judges", "open_workers"]


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

    with closing(RayWorkers(kit, kit.config.ray, number=kit.config.workers, say=say)) as workers:
        yield workers


@contextmanager
def open_judges(kit: Kit, say: Callable[[str], None]) -> Iterator[Workers]:
    """Who judges by the kit's config: this process, or actors beside the workers.

    Args:
        kit: What they work with; the actors load no model.
        say: Told what happens to them.
    """
    config = kit.config
    if config.ray is None or config.judges is None:
        yield LocalWorkers(kit)
        return
    from tailcast.workers.ray import RayWorkers

    judges = RayWorkers(kit.of_a_judge(), config.ray, number=config.judges, say=say, word="judge")
    with closing(judges):
        yield judges
