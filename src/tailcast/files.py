"""Where does a run directory lie: in a folder of this machine, or in an object store?

Both show a file whole or not at all. A folder does it by a hidden name, a sync and a
rename; an object store by its PUT, which is atomic, so that nothing need be renamed.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Protocol

__all__ = ["MOST_BYTES", "Files", "LocalFiles", "Taken"]


MOST_BYTES = 2**29
"""Of a file of a run; one that is larger is no run's, and is not read."""


class Taken(Exception):
    """Another process holds the directory."""


class Files(Protocol):
    """Files of a run directory by their names, such as ``rounds/0001.json``.

    Whatever fails is an OSError.
    """

    @property
    def place(self) -> PurePath:
        """The directory, as the user writes it."""

    def there(self) -> bool:
        """Whether there is such a directory."""

    def empty(self) -> bool:
        """Whether it holds nothing but hidden files."""

    def holds(self, name: str) -> bool:
        """Whether there is such a file."""

    def names(self, folder: str) -> list[str]:
        """Names within a folder of the files in it, hidden ones left out."""

    def read(self, name: str) -> bytes:
        """The content of a file."""

    def changed(self, name: str) -> float:
        """When a file was written, in seconds since 1970."""

    def times(self, folder: str) -> dict[str, float]:
        """When each file below a folder was written, by its name in the directory."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all, over what is there."""

    def create(self, name: str, content: bytes) -> None:
        """Write a file whose name says its content: what is there may stay."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory; raises :class:`Taken` when another process does."""


class LocalFiles:
    """A folder of this machine.

    It may be a stranger's: what leads out of it is neither read nor written, and what is no
    plain file is not opened.

    Args:
        place: The folder.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    def there(self) -> bool:
        """Whether it is a folder."""
        return self.place.is_dir()

    def empty(self) -> bool:
        """Whether it holds nothing but hidden files."""
        return not any(self.place.glob("[!.]*"))

    def holds(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.place / name).is_file()

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder."""
        return [path.name for path in (self.place / folder).glob("[!.]*")]

    def read(self, name: str) -> bytes:
        """The content of a file."""
        handle = os.open(self._inside(name), os.O_RDONLY | os.O_NONBLOCK)  # a pipe would hang
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise OSError("it is no plain file")
            if found.st_size > MOST_BYTES:
                raise OSError(f"{found.st_size:,} bytes are more than a run writes")
            return file.read()

    def changed(self, name: str) -> float:
        """When a file was written."""
        return _when((self.place / name).stat())

    def times(self, folder: str) -> dict[str, float]:
        """When each file below a folder was written."""
        found = {}
        for place, _, names in os.walk(self.place / folder):
            for path in (Path(place) / name for name in names if not name.startswith(".")):
                with suppress(FileNotFoundError):
                    found[path.relative_to(self.place).as_posix()] = _when(path.lstat())
        return found

    def write(self, name: str, content: bytes) -> None:
        """Write under a hidden name, sync, rename, sync the folder."""
        path = self._inside(name)
        hidden = path.with_name(f".{path.name}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            hidden.unlink(missing_ok=True)
            with hidden.open("xb") as file:  # never through a link
                file.write(content)
            _sync(hidden)
            hidden.replace(path)
            _sync(path.parent)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise

    create = write

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder by a lock that dies with this process."""
        self.place.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(os.open(self.place / ".lock", flags, 0o666), "r+b") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Taken from None
            yield

    def _inside(self, name: str) -> Path:
        """Where a file lies, or is to lie, once all links are followed."""
        path = Path(os.path.realpath(self.place / name))
        if not path.is_relative_to(os.path.realpath(self.place)):
            raise OSError(f"it leads out of the directory, to {path}")
        return path


def _when(found: os.stat_result) -> float:
    """When a file was written, in a year that a calendar has."""
    return min(max(found.st_mtime, 0.0), 2.0**37)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
