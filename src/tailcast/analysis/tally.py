"""What is in a run's shards, while they are being written?

A shard never changes, so that each is read once, however often a run is looked at.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tailcast.names import shard_name
from tailcast.store import RunStore

__all__ = ["Counts", "Shard", "Tally", "counts_of"]

_READERS = 16  # an object store answers each slowly, and many at a time


@dataclass(frozen=True)
class Counts:
    """What some shards hold; they add up.

    Attributes:
        drawn: Draws.
        judged: Those of them that have a verdict.
        hits: Hits among these.
        failed: Those of them that the judge failed on.
        token_forwards: Of the model, scoring of hits included.
        judge_calls: Distinct completions of a shard that the judge had to read.
        error: What the judge said when it last failed.
    """

    drawn: int = 0
    judged: int = 0
    hits: int = 0
    failed: int = 0
    token_forwards: int = 0
    judge_calls: int = 0
    error: str = ""

    def __add__(self, other: "Counts") -> "Counts":
        numbers = [one for one in vars(self) if one != "error"]
        sums = {name: getattr(self, name) + getattr(other, name) for name in numbers}
        return Counts(**sums, error=other.error or self.error)


@dataclass(frozen=True)
class Shard:
    """A range of draws of a query in a stage, by the names of its files.

    Attributes:
        stage: Name of the stage.
        folder: Of the query within it.
        start: First draw.
        end: The one after the last draw, by the name; splitting draws more.
        written: When the draws were written, in seconds since 1970.
    """

    stage: str
    folder: str
    start: int
    end: int
    written: float

    def name(self, kind: str) -> str:
        """The file's name in the directory."""
        return shard_name(kind, self.stage, self.folder, (self.start, self.end))


@dataclass
class Tally:
    """All shards of a run and what was read of them.

    Attributes:
        store: The run.
        known: What was read, by the names of the files that it was read of.
    """

    store: RunStore
    known: dict[tuple[str, ...], Counts] = field(default_factory=dict)

    def shards(self) -> dict[Shard, Counts]:
        """Every shard that is there now, in the order in which they were written.

        Raises:
            StoreError: If a file is damaged.
        """
        times = {kind: self.store.files.times(kind) for kind in ("samples", "verdicts", "scores")}
        found = sorted(_shards(times["samples"]), key=lambda one: (one.written, one.stage))
        files = {
            one: tuple(one.name(kind) for kind in times if one.name(kind) in times[kind])
            for one in found
        }
        new = [names for names in files.values() if names not in self.known]
        with ThreadPoolExecutor(_READERS) as readers:
            self.known.update(zip(new, readers.map(self._read, new), strict=True))
        return {one: self.known[names] for one, names in files.items()}

    def _read(self, names: tuple[str, ...]) -> Counts:
        """What the files of a shard hold: draws, then verdicts and scores if they are there."""
        read, by_kind = self.store.read_table, {name.split("/")[0]: name for name in names}
        draws = read(by_kind["samples"], _draws, ["text", "finish"])
        counts = Counts(drawn=len(draws["text"]), token_forwards=draws["token_forwards"])
        if "verdicts" in by_kind:
            counts += read(by_kind["verdicts"], lambda table: _judged(table, draws))
        if "scores" in by_kind:
            counts += read(by_kind["scores"], _scored, ["draw"])
        return counts


def counts_of(counts: Iterable[Counts]) -> Counts:
    """All of them together."""
    return sum(counts, Counts())


def _shards(times: dict[str, float]) -> Iterable[Shard]:
    for name, when in times.items():
        parts = name.split("/")
        start, dash, end = parts[-1].removesuffix(".parquet").partition("-")
        if len(parts) == 4 and dash and start.isdecimal() and end.isdecimal():
            shard = Shard(parts[1], parts[2], int(start), int(end), when)
            if shard.name("samples") == name:
                yield shard


def _draws(table: Any) -> dict[str, Any]:
    forwards = int(table.schema.metadata[b"token_forwards"])
    return {**table.to_pydict(), "token_forwards": forwards}


def _judged(table: Any, draws: dict[str, Any]) -> Counts:
    hits, errors = table["hit"].to_pylist(), table["error"].to_pylist()
    shares = table["share"].to_pylist() if "share" in table.column_names else [1.0] * len(hits)
    asked = {
        text
        for text, finish, share in zip(draws["text"], draws["finish"], shares, strict=True)
        if share and finish not in ("settled", "roulette")
    }
    said = [error for error in errors if error]
    return Counts(
        judged=len(hits), hits=sum(hits), failed=len(said), judge_calls=len(asked),
        error=said[-1] if said else "",
    )  # fmt: skip


def _scored(table: Any) -> Counts:
    return Counts(token_forwards=int(table.schema.metadata[b"token_forwards"]))
