"""``tailcast export``: a run in the formats of others."""

from pathlib import Path

from tailcast.errors import ConfigError
from tailcast.store import existing_run

__all__ = ["export"]


def export(directory: Path, /, *, inspect: Path | None = None, others: int = 100) -> None:
    """Write a finished run as a file that other programs read.

    Args:
        directory: A run directory.
        inspect: File FILE.eval to write, a log for ``inspect view`` and Inspect's readers.
        others: Draws of each query that are no hits and go into the log, at most.
    """
    from tailcast.integrations.inspect_log import export_eval

    store = existing_run(directory)
    if inspect is None:
        raise ConfigError("nothing to write: give --inspect FILE.eval.")
    if others < 0:
        raise ConfigError(f"others must be 0 or more, got {others}.")
    counts = export_eval(store, inspect, others=others)
    print(f"{inspect}: {counts['logged']:,} of {counts['draws']:,} draws, every hit among them.")
