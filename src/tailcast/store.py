"""The run directory: what was asked, every draw, every verdict, the estimates.

    manifest.json               config, versions, fingerprints
    queries.jsonl               what is asked
    steering.safetensors        the vector, when it was fitted in the run
    selection.json              the pilot's outcome
    samples/STAGE/QUERY/A-B.parquet     draws A .. B-1 of a query
    verdicts/STAGE/QUERY/A-B.parquet    what the judge said of them
    scores/STAGE/QUERY/A-B.parquet      log-probabilities of the hits under all streams
    swarms/STAGE/QUERY/A-B.json         generation and ancestor of every particle of splitting
    rounds/R.json               how many draws of which component each query got in a round
    estimates.jsonl             one object for each query and method

Every file is there whole or not at all, so a run killed at any moment goes on from the files
that exist, and a lock keeps two runs out of one directory: see :mod:`tailcast.files` for a
folder and :mod:`tailcast.objects` for an object store.
"""

import errno
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import parquet

from tailcast.columns import (
    batch_of,
    scores_of,
    table_of_batch,
    table_of_scores,
    table_of_verdicts,
    verdicts_of,
)
from tailcast.errors import StoreError
from tailcast.files import Taken
from tailcast.names import shard_name, slug
from tailcast.objects import files_at
from tailcast.shapes import parsed, parsed_lines
from tailcast.types import SampleBatch, Scores, Verdicts

__all__ = ["DAMAGES", "RunStore", "existing_run"]

Found = TypeVar("Found")

DAMAGES = (
    ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError,
    ValueError,
)  # fmt: skip
"""What reading raises of a file that holds something else than it should."""

GROWING = ("samples", "monte_carlo")
FREE = (
    "out", "budget", "memory", "engine", "engine_model", "engine_seeds", "judge_workers",
    "judge_rate", "judge_calls", "ray", "workers", "gpus_per_worker", "judges",
    "judge_gpus", "target_server", "target_workers", "target_rate", "target_engine",
)  # fmt: skip


class RunStore:
    """A run directory.

    Args:
        path: The directory, or the URL of one; made when it is not there.
    """

    def __init__(self, path: str | Path) -> None:
        self.files = files_at(path)

    @property
    def path(self) -> PurePath:
        """The directory, for the reader of a message."""
        return self.files.place

    @property
    def address(self) -> PurePath:
        """The directory, not relative to any other."""
        return self.path.resolve() if isinstance(self.path, Path) else self.path

    @contextmanager
    def as_file(self, name: str) -> Iterator[Path]:
        """A copy of a file of the directory on this machine, for the while.

        Raises:
            StoreError: If it cannot be read.
        """
        try:
            content = self.files.read(name)
        except FileNotFoundError:
            raise StoreError(f"{self.path / name} does not exist: make it first.") from None
        except OSError as error:
            raise StoreError(f"{self.path / name} cannot be read ({error}).") from None
        with TemporaryDirectory(prefix="tailcast-") as scratch:
            copy = Path(scratch) / name.rsplit("/", 1)[-1]
            copy.write_bytes(content)
            yield copy

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for one process.

        Raises:
            StoreError: If it cannot be made or written, or another process holds it.
        """
        lock = self.files.locked()
        try:
            with self._sentences():
                lock.__enter__()
        except Taken:
            raise StoreError(f"run directory {self.path} is in use by another process.") from None
        with ExitStack() as stack:
            stack.push(lock)
            yield

    def holds(self, name: str) -> bool:
        """Whether there is such a file."""
        return self.files.holds(name)

    def check(self, config: dict[str, Any], facts: dict[str, str]) -> bool:
        """Start a run, or make sure that it is the one that has computed something here.

        Args:
            config: The run's settings; samples may grow, directory and engine may have moved.
            facts: Digests of what the settings name: queries, model, vector.

        Returns:
            Whether anything was computed before.

        Raises:
            StoreError: Naming the first field that differs, then and now.
        """
        old = self.read_json("manifest.json")
        if old is None and self.files.there() and not self.files.empty():
            raise StoreError(f"{self.path} is not empty and no run directory: use another --out.")
        begun = bool({*self.files.names("")} - {"manifest.json", "queries.jsonl"})
        manifest = {"format": 1, **(old or {}), **({} if begun else {"versions": _versions()})}
        if begun:
            self._compare(manifest.get("config", {}), config)
            before = manifest.get("facts", {})
            for name, value in facts.items():
                if before.get(name, value) != value:
                    raise StoreError(
                        f"run directory {self.path} was made with other {name} "
                        f"({before[name]}, now {value}): restore them or use another --out."
                    )
            facts = {**before, **facts}
        self.write_json("manifest.json", {**manifest, "config": config, "facts": facts})
        return begun

    def fact(self, name: str) -> str | None:
        """A fact that the manifest keeps."""
        found = (self.read_json("manifest.json") or {}).get("facts", {}).get(name)
        return None if found is None else str(found)

    def note(self, kind: str, what: Any) -> None:
        """Add an item to the manifest's list of a kind."""
        manifest = self.read_json("manifest.json") or {}
        self.write_json("manifest.json", {**manifest, kind: [*manifest.get(kind, []), what]})

    def _compare(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        for name in sorted({*old, *new} - {*FREE}):
            before, now = old.get(name), new.get(name)
            if name in GROWING and (before or 0) <= (now or 0):
                continue
            if before != now:
                more = "it may only grow" if name in GROWING else f"restore {name}"
                raise StoreError(
                    f"run directory {self.path} was made with {name} = {before!r}, now {now!r}: "
                    f"{more}, or use another --out."
                )

    def read_json(self, name: str) -> Any:
        """Content of a JSON file of the directory; None when it is not there.

        Raises:
            StoreError: If the file is not JSON.
        """
        try:
            return parsed(name, self.files.read(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{self.path / name} is damaged ({error}): delete it or the run."
            ) from None

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the directory, whole or not at all."""
        text = json.dumps(value, indent=1, allow_nan=False) + "\n"
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file of the directory, whole or not at all."""
        with self._sentences():
            self.files.write(name, content)

    def write_lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write a file of one JSON object a line, whole or not at all."""
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        self.write_bytes(name, text.encode())

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """Objects of a file of one JSON object a line.

        Raises:
            StoreError: If it is missing or damaged.
        """
        try:
            return parsed_lines(name, self.files.read(name))
        except FileNotFoundError:
            raise StoreError(f"{self.path} holds no {name}: it is no finished run.") from None
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{self.path / name} is damaged ({error}): run again to write it."
            ) from None

    def rounds(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Stage and plan of every round of a mixture, in order; none where there are none."""
        for number in count():
            plan = self.read_json(f"rounds/{number:04d}.json")
            if plan is None:
                return
            yield f"round-{number}", plan

    def shards(self, stage: str, query_id: str) -> list[tuple[int, int]]:
        """Ranges of draws that are there, in order."""
        names = self.files.names(f"samples/{stage}/{slug(query_id)}")
        stems = [name.removesuffix(".parquet") for name in names if name.endswith(".parquet")]
        return sorted((int(a), int(b)) for a, b in (stem.split("-") for stem in stems))

    def write_batch(self, stage: str, shard: tuple[int, int], batch: SampleBatch) -> None:
        """Write the draws of a shard."""
        self._write_table("samples", stage, batch.query_id, shard, table_of_batch(batch))

    def read_batch(self, stage: str, query_id: str, shard: tuple[int, int]) -> SampleBatch:
        """Read the draws of a shard.

        Raises:
            StoreError: If the file is damaged.
        """
        return self._read_shard("samples", stage, query_id, shard, partial(batch_of, query_id))

    def write_swarms(
        self, stage: str, query_id: str, shard: tuple[int, int], record: dict[str, Any]
    ) -> None:
        """Write what a shard's draws have besides: their places in the swarms of splitting."""
        self.write_json(self._swarms(stage, query_id, shard), record)

    def read_swarms(self, stage: str, query_id: str, shard: tuple[int, int]) -> dict[str, Any]:
        """Read it.

        Raises:
            StoreError: If it is not there.
        """
        name = self._swarms(stage, query_id, shard)
        found: dict[str, Any] | None = self.read_json(name)
        if found is None:
            raise StoreError(f"{self.path / name} is missing: delete the run and make it again.")
        return found

    def _swarms(self, stage: str, query_id: str, shard: tuple[int, int]) -> str:
        return f"swarms/{stage}/{slug(query_id)}/{shard[0]:08d}-{shard[1]:08d}.json"

    def has_verdicts(self, stage: str, query_id: str, shard: tuple[int, int]) -> bool:
        """Whether a shard has been judged."""
        return self.holds(shard_name("verdicts", stage, slug(query_id), shard))

    def write_verdicts(
        self, stage: str, query_id: str, shard: tuple[int, int], verdicts: Verdicts
    ) -> None:
        """Write the verdicts of a shard."""
        self._write_table("verdicts", stage, query_id, shard, table_of_verdicts(verdicts))

    def read_verdicts(self, stage: str, query_id: str, shard: tuple[int, int]) -> Verdicts:
        """Read the verdicts of a shard.

        Raises:
            StoreError: If the file is damaged.
        """
        return self._read_shard("verdicts", stage, query_id, shard, verdicts_of)

    def has_scores(self, stage: str, query_id: str, shard: tuple[int, int]) -> bool:
        """Whether the hits of a shard are scored."""
        return self.holds(shard_name("scores", stage, slug(query_id), shard))

    def write_scores(
        self, stage: str, query_id: str, shard: tuple[int, int], scores: Scores
    ) -> None:
        """Write the scores of a shard's hits."""
        self._write_table("scores", stage, query_id, shard, table_of_scores(scores))

    def read_scores(self, stage: str, query_id: str, shard: tuple[int, int]) -> Scores:
        """Read the scores of a shard's hits.

        Raises:
            StoreError: If the file is damaged.
        """
        return self._read_shard("scores", stage, query_id, shard, scores_of)

    @contextmanager
    def readable(self, what: str) -> Iterator[None]:
        """Say in a sentence that files hold something else than they should.

        Args:
            what: Of the run is being read.

        Raises:
            StoreError: If what is done meanwhile fails by what it reads.
        """
        try:
            yield
        except DAMAGES as error:
            reason = (str(error).splitlines() or [""])[0]
            raise StoreError(
                f"{what} in {self.path} are damaged ({type(error).__name__}: {reason}): delete "
                "them and run again."
            ) from None

    def _write_table(
        self, kind: str, stage: str, query_id: str, shard: tuple[int, int], table: pa.Table
    ) -> None:
        content = io.BytesIO()
        parquet.write_table(table, content, compression="zstd")
        with self._sentences():
            self.files.create(shard_name(kind, stage, slug(query_id), shard), content.getvalue())

    def _read_shard(
        self, kind: str, stage: str, query_id: str, shard: tuple[int, int],
        made: Callable[[pa.Table], Found],
    ) -> Found:  # fmt: skip
        return self.read_table(shard_name(kind, stage, slug(query_id), shard), made)

    def read_table(
        self, name: str, made: Callable[[pa.Table], Found], columns: list[str] | None = None
    ) -> Found:
        """What a function makes of a file of draws, verdicts or scores.

        Args:
            name: The file's name in the directory.
            made: The function.
            columns: Those that are read; all if None.

        Raises:
            StoreError: If the file is damaged, or the function finds something else in it.
        """
        try:
            file = parquet.ParquetFile(pa.BufferReader(self.files.read(name)))
            if missing := sorted(set(columns or ()) - set(file.schema_arrow.names)):
                raise ValueError(f"it has no column {missing[0]}")
            # a shard is small: threads cost more than they do
            return made(file.read(columns=columns, use_threads=False))
        except (*DAMAGES, OSError, pa.ArrowException) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise StoreError(
                f"{self.path / name} is damaged ({reason}): delete it and run again."
            ) from None

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error).splitlines()[0]
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = "free some space" if full else "use another --out or mend its permissions"
            raise StoreError(
                f"cannot write to run directory {self.path} ({reason}): {remedy}, and run again; "
                "what was finished is kept."
            ) from error


def existing_run(directory: str | Path) -> RunStore:
    """A run directory that is there.

    Raises:
        StoreError: If it is not, or its store does not answer.
    """
    store = RunStore(directory)
    try:
        there = store.files.there()
    except OSError as error:
        raise StoreError(f"run directory {store.path} cannot be read ({error}).") from None
    if not there:
        raise StoreError(f"run directory {str(store.path)!r} does not exist: check the path.")
    return store


def _versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import platform
    from importlib.metadata import version

    packages = ("tailcast", "torch", "transformers", "peft", "numpy", "scipy", "arviz-stats")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
