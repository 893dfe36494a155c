"""What is a worker asked, and how does this process do it by itself?

A task says all that its outcome depends on; the kit is the same everywhere. So whoever does
a task, and however often, the outcome is the same.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from tailcast.workers.kit import Kit

__all__ = ["LocalWorkers", "Task", "Workers"]


class Task(Protocol):
    """A piece of work."""

    @property
    def name(self) -> str:
        """What it is, for the reader of a message: "draws 0 to 511 of round-0 of q1"."""


AnyTask = TypeVar("AnyTask", bound=Task)
Found = TypeVar("Found")


class Workers(Protocol):
    """Does tasks somewhere."""

    def map(
        self, work: Callable[[Kit, AnyTask], Found], tasks: Iterable[AnyTask]
    ) -> Iterator[tuple[AnyTask, Found]]:
        """Every task with its outcome, in any order.

        Args:
            work: A function of a module, (kit, task) -> outcome, that depends on nothing else.
            tasks: The tasks, taken one by one as workers become free.
        """

    def count(self, draws: int, hits: int) -> None:
        """Tell whoever watches the workers that so many draws are judged, so many of them hits."""


class LocalWorkers:
    """This process, task after task.

    Args:
        kit: What it works with.
    """

    def __init__(self, kit: Kit) -> None:
        self.kit = kit

    def map(
        self, work: Callable[[Kit, AnyTask], Found], tasks: Iterable[AnyTask]
    ) -> Iterator[tuple[AnyTask, Found]]:
        """Every task with its outcome, in order."""
        for task in tasks:
            yield task, work(self.kit, task)

    def count(self, draws: int, hits: int) -> None:
        """Nobody watches."""
