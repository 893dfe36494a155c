"""A run directory in an object store, by any URL that fsspec knows: s3://, gs://, abfs:// ...

Why it is safe without a rename:

- A PUT shows an object whole or not at all, and one that was acknowledged is seen by every
  reader from then on (S3, Google Cloud Storage and Azure promise both).
- A shard's name says what is in it. It is written under the condition that nothing is there,
  so that a write that is sent twice, or by two processes, leaves one shard, and never a
  changed one.
- Processes keep out of one another's way by numbered objects under ``.lock``. Who creates the
  next number, under the condition that it is not there, holds the directory, and changes that
  object every few seconds. One that does not change for a lease belonged to a dead process, and
  the next number may be created; clocks are not compared. A holder that sees a higher number
  than its own writes no more.

A store that does not heed such a condition is found out, and refused, when it is locked.
"""

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeVar
from uuid import uuid4

from tailcast.errors import MissingExtra, StoreError
from tailcast.files import Files, LocalFiles, Taken

__all__ = ["LEASE", "ObjectFiles", "files_at"]

LEASE = 60.0
"""Seconds after which a lock that does not change belonged to a dead process."""

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?!/)(.*)|file:(/.*)", re.DOTALL)
_EXTRAS = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "abfs": ("adlfs", "azure")}
_TRIES = 5
_FREE = b"free"

Found = TypeVar("Found")


def files_at(place: str | Path) -> Files:
    """The files of a run directory: of a folder, or of a URL.

    Raises:
        MissingExtra: If the package for such a URL is not installed.
        StoreError: If fsspec knows none.
    """
    found = _URL.fullmatch(str(place))  # a Path has but one of a URL's slashes
    if found is None:
        return LocalFiles(Path(place))
    if found[1] == "file" or found[3]:
        return LocalFiles(Path("/" + (found[2] or found[3]).lstrip("/")))
    return ObjectFiles(found[1], found[2])


class _Url(PurePosixPath):
    """The path of a URL, which is shown as the URL."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)


class ObjectFiles:
    """Objects under a URL.

    Args:
        protocol: Before "://" in it.
        path: After it.
    """

    def __init__(self, protocol: str, path: str) -> None:
        self.place: PurePath = _Url(f"{protocol}:/{path}")
        self.root = path.rstrip("/")
        self.store = _store(protocol)
        self._known: dict[str, set[str]] | None = None
        self._lost = False

    def there(self) -> bool:
        """Whether any object has such a name."""
        return bool(self._try(lambda: self.store.exists(self.root)))

    def empty(self) -> bool:
        """Whether there is none but locks."""
        return not self.names("")

    def holds(self, name: str) -> bool:
        """Whether there is such an object."""
        known = self._stage(name)
        if known is not None:
            return name in known
        return bool(self._try(lambda: self.store.isfile(self._path(name))))

    def names(self, folder: str) -> list[str]:
        """Names of the objects in a folder."""
        known = self._stage(f"{folder}/")
        if known is not None:
            start = f"{folder}/"
            return [name.removeprefix(start) for name in known if name.startswith(start)]
        try:
            found = self._try(lambda: self.store.ls(self._path(folder), detail=False))
        except FileNotFoundError:
            return []
        names = [str(path).rstrip("/").rsplit("/", 1)[-1] for path in found]
        return [name for name in names if not name.startswith(".")]

    def read(self, name: str) -> bytes:
        """The content of an object."""
        return bytes(self._try(lambda: self.store.cat_file(self._path(name))))

    def changed(self, name: str) -> float:
        """When an object was written."""
        return float(self._try(lambda: self.store.modified(self._path(name))).timestamp())

    def times(self, folder: str) -> dict[str, float]:
        """When each object below a folder was written."""
        found = self._try(lambda: self.store.find(self._path(folder), detail=True))
        at = len(self._path("")) + 1
        return {str(path)[at:]: _written(facts) for path, facts in found.items()}

    def write(self, name: str, content: bytes) -> None:
        """PUT."""
        self._check_held()
        self._try(lambda: self.store.pipe_file(self._path(name), content))
        self._note(name)

    def create(self, name: str, content: bytes) -> None:
        """PUT where there is nothing; what is there stays."""
        self._check_held()
        with suppress(FileExistsError):
            self._create(name, content)
        self._note(name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory by the next numbered lock."""
        last = max(self._locks(), default=0)
        if last and not self._dead(last):
            raise Taken
        own, mark = last + 1, uuid4().hex
        name = f".lock/{own:06d}"
        self._own(name, f"{mark} 0".encode(), mark)
        if max(self._locks()) != own:
            raise Taken
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(own, mark, over), daemon=True)
        thread.start()
        self._known = {}
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._known = None
            with suppress(OSError):
                self.store.pipe_file(self._path(name), _FREE)

    def _own(self, name: str, content: bytes, mark: str) -> None:
        """Create a lock; a second try of the same must fail, or the store is no good."""
        try:
            self._create(name, content)
        except FileExistsError:  # an answer may have been lost: it is ours if it says so
            if not self.read(name).startswith(mark.encode()):
                raise Taken from None
        try:
            self._create(name, content)
        except FileExistsError:
            return
        raise StoreError(
            f"the store of {self.place} does not heed conditional writes, so that two runs could "
            "mix there: use one that heeds If-None-Match, or a local --out."
        )

    def _locks(self) -> list[int]:
        try:
            found = self._try(lambda: self.store.ls(self._path(".lock"), detail=False))
        except FileNotFoundError:
            return []
        return [
            int(name) for name in (str(one).rsplit("/", 1)[-1] for one in found) if name.isdecimal()
        ]

    def _dead(self, number: int) -> bool:
        """Whether a lock is free, or does not change for a lease."""
        name, until = f".lock/{number:06d}", time.monotonic() + LEASE
        first = self.read(name)
        while first != _FREE and time.monotonic() < until:
            time.sleep(min(1.0, LEASE / 10))
            now = self.read(name)
            if now not in (first, _FREE):
                return False
            first = now
        return True

    def _beat(self, own: int, mark: str, over: threading.Event) -> None:
        """Change the lock now and then; stop writing when another process has taken over."""
        path = self._path(f".lock/{own:06d}")
        for count in itertools.count(1):
            if over.wait(LEASE / 6):
                return
            with suppress(OSError):
                self._lost = self._lost or max(self._locks()) > own
                if not self._lost:
                    self._try(partial(self.store.pipe_file, path, f"{mark} {count}".encode()))

    def _check_held(self) -> None:
        if self._lost:
            raise OSError("another process took the directory over, this one was silent too long")

    def _stage(self, name: str) -> set[str] | None:
        """Objects of a stage of shards: listed once while the directory is held."""
        parts = name.split("/")
        if self._known is None or len(parts) < 4:
            return None
        stage = "/".join(parts[:2])
        if stage not in self._known:
            found = self._try(lambda: self.store.find(self._path(stage)))
            at = len(self._path("")) + 1
            self._known[stage] = {str(path)[at:] for path in found}
        return self._known[stage]

    def _note(self, name: str) -> None:
        known = self._stage(name)
        if known is not None:
            known.add(name)

    def _create(self, name: str, content: bytes) -> None:
        self._try(lambda: self.store.pipe_file(self._path(name), content, mode="create"))

    def _path(self, name: str) -> str:
        path = f"{self.root}/{name}" if name else self.root
        return str(self.store._strip_protocol(path))

    def _try(self, call: Callable[[], Found]) -> Found:
        """The call, a few times where it may help: each may be made twice without harm."""
        for attempt in range(_TRIES):
            try:
                return call()
            except (FileNotFoundError, FileExistsError, PermissionError):
                raise
            except Exception as error:  # each store has its own
                reason = str(error).strip().splitlines() or [""]
                failure = OSError(f"{type(error).__name__}: {reason[0]}")
            time.sleep(0.1 * 2**attempt if attempt < _TRIES - 1 else 0)
        raise failure


def _written(facts: dict[str, Any]) -> float:
    """When an object was written: each store has its own name for that."""
    names = ("LastModified", "last_modified", "mtime", "updated", "created")
    when = next((facts[name] for name in names if facts.get(name)), 0.0)
    if isinstance(when, str):
        when = datetime.fromisoformat(when)
    return when.timestamp() if isinstance(when, datetime) else float(when)


def _store(protocol: str) -> Any:
    import fsspec

    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ImportError:
        package, extra = _EXTRAS.get(protocol, (protocol, protocol))
        raise MissingExtra(package, extra, f"a run directory at {protocol}://") from None
    except ValueError:
        raise StoreError(
            f"{protocol}:// is no kind of store that fsspec knows: use s3://, gs://, abfs:// or a "
            "local directory."
        ) from None
    return kind(use_listings_cache=False)
