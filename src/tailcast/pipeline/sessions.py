"""Which process works on a run, and since when?

Kept in the manifest, so that whoever sees the directory can tell: see
:mod:`tailcast.analysis.status`.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import gethostname
from typing import Any

from tailcast.errors import StoreError
from tailcast.store import RunStore

__all__ = ["session"]


@contextmanager
def session(store: RunStore, size: dict[str, Any]) -> Iterator[None]:
    """Note this process while it works; one that is killed leaves no end of its session.

    Args:
        store: The run, held by this process.
        size: What ends the run, as it is kept in finished.json.
    """
    mine = {"host": gethostname(), "pid": os.getpid(), "began": time.time(), "size": size}
    store.note("sessions", mine)
    try:
        yield
    finally:
        with suppress(StoreError):  # what stopped the run is what must be said
            manifest = store.read_json("manifest.json")
            manifest["sessions"][-1] = {**mine, "ended": time.time()}
            store.write_json("manifest.json", manifest)
