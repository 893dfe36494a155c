"""Judgements kept on disk, so that no completion is judged twice by the same judge."""

import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from tailcast.errors import JudgeError
from tailcast.types import Query

__all__ = ["JudgementCache", "cache_directory"]


def cache_directory() -> Path:
    """Where judgements lie: $TAILCAST_CACHE, else the user's cache directory."""
    given = os.environ.get("TAILCAST_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(base) / "tailcast"


class JudgementCache:
    """Scores of one judge by query and completion, in an SQLite file that many may share.

    Args:
        fingerprint: Of the judge: recipe, model and reading; the threshold does not matter.
        directory: Where the file lies; :func:`cache_directory` if None.
    """

    def __init__(self, fingerprint: str, directory: Path | None = None) -> None:
        folder = directory or cache_directory() / "judgements"
        self.lock = threading.Lock()  # Inspect's scorers judge from several threads
        self.path = folder / f"{sha256(fingerprint.encode()).hexdigest()[:24]}.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.file = sqlite3.connect(self.path, timeout=60, check_same_thread=False)
            self.file.execute("pragma journal_mode = wal")
            self.file.execute("pragma synchronous = normal")
            with self.file as file:
                file.execute("create table if not exists scores (key text primary key, score real)")
        except (OSError, sqlite3.Error) as error:
            raise JudgeError(
                f"judgements cannot be kept in {folder} ({error}): set TAILCAST_CACHE to a "
                "directory that can be written."
            ) from error

    def get(self, query: Query, texts: Sequence[str]) -> dict[str, float]:
        """Scores of those completions that were judged before."""
        found = {}
        with self.lock:
            for text in texts:
                key = (_key(query, text),)
                row = self.file.execute("select score from scores where key = ?", key).fetchone()
                if row is not None:
                    found[text] = float(row[0])
        return found

    def put(self, query: Query, scores: Mapping[str, float]) -> None:
        """Keep scores; those already there stay as they are."""
        rows: Iterable[tuple[str, float]] = [(_key(query, t), s) for t, s in scores.items()]
        with self.lock, self.file as file:
            file.executemany("insert or ignore into scores values (?, ?)", rows)


def _key(query: Query, text: str) -> str:
    digest = sha256()
    for message in query.messages:
        digest.update(f"{message['role']}\0{message['content']}\0".encode(errors="surrogatepass"))
    digest.update(b"\1" + text.encode(errors="surrogatepass"))
    return digest.hexdigest()
