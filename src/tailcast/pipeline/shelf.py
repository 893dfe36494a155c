"""Where do records lie that are too many for memory, and are read again and again?

In one file without a name, in the folder for temporary files (``TMPDIR``); it is gone with the
process. A run's rounds lie there: what its hits weigh under every proposal grows with its draws.
"""

import pickle
from array import array
from collections.abc import Sequence
from tempfile import TemporaryFile
from typing import Any, TypeVar, overload
from weakref import finalize

__all__ = ["Shelf", "Shelved"]

Record = TypeVar("Record")


class Shelf:
    """The file."""

    def __init__(self) -> None:
        self._file = TemporaryFile(prefix="tailcast-")  # noqa: SIM115, closed with the shelf
        finalize(self, self._file.close)
        self._last: tuple[Any, int] = (None, 0)

    def put(self, record: object) -> int:
        """Where a record lies now; one that is put twice in turn lies there once."""
        if record is not self._last[0]:
            self._last = record, self._file.seek(0, 2)
            pickle.dump(record, self._file, pickle.HIGHEST_PROTOCOL)
        return self._last[1]

    def get(self, place: int) -> Any:
        """The record of a place, made anew."""
        self._file.seek(place)
        return pickle.load(self._file)


class Shelved(Sequence[Record]):
    """A list whose records lie on a shelf.

    Args:
        shelf: Which.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf, self._places = shelf, array("q")

    def append(self, record: Record) -> None:
        """Add a record at the end."""
        self._places.append(self._shelf.put(record))

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> list[Record]: ...
    def __getitem__(self, at: int | slice) -> Record | list[Record]:
        if isinstance(at, slice):
            return [self._shelf.get(place) for place in self._places[at]]
        found: Record = self._shelf.get(self._places[at])
        return found
