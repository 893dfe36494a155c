"""Answers of a model, kept on disk so that a kill or a dead server costs none of them."""

import json
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from tailcast.errors import StoreError

__all__ = ["KeptAnswers"]


class KeptAnswers(MutableMapping[str, tuple[Any, ...]]):
    """Answers by name in a file of one JSON object a line, the first of which says of what.

    Args:
        path: The file; answers of other facts in it are replaced.
        facts: All that decides the answers.

    Raises:
        StoreError: If the file cannot be read or written.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        self._lock = threading.Lock()
        head = json.dumps(facts, sort_keys=True)
        try:
            lines = path.read_text("utf-8").split("\n") if path.exists() else []
            whole = lines[1:-1] if lines[:1] == [head] else []  # the last one may be cut short
            self.found = {name: tuple(answers) for name, answers in map(json.loads, whole)}
            path.write_text("".join(f"{line}\n" for line in (head, *whole)), "utf-8")
        except (OSError, ValueError) as error:
            raise StoreError(
                f"answers cannot be kept in {path} ({error}): delete it, or give another --out."
            ) from None

    def __getitem__(self, name: str) -> tuple[Any, ...]:
        """The answers of that name."""
        return self.found[name]

    def __setitem__(self, name: str, answers: tuple[Any, ...]) -> None:
        """Keep answers, on disk at once."""
        self.write(name, answers)
        self.found[name] = answers

    def write(self, name: str, answers: tuple[Any, ...]) -> None:
        """Keep answers on disk alone, for the next time that the file is read; from any thread."""
        line = json.dumps([name, answers]) + "\n"
        try:
            with self._lock, self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise StoreError(
                f"answers cannot be kept in {self.path} ({error}): free some space or mend its "
                "permissions, and run again; what was finished is kept."
            ) from None

    def __delitem__(self, name: str) -> None:
        """Forget answers, until the file is read again."""
        del self.found[name]

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self.found)

    def __len__(self) -> int:
        """How many names there are."""
        return len(self.found)
