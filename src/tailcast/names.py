"""What are the files of a run directory called?"""

import re
from hashlib import sha256

__all__ = ["shard_name", "slug"]


def slug(query_id: str) -> str:
    """A file name for a query id: itself where it is plain, else cleaned with a digest."""
    clean = re.sub(r"[^A-Za-z0-9_-]+", "_", query_id)[:48]
    if clean == query_id:
        return clean
    return f"{clean}.{sha256(query_id.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def shard_name(kind: str, stage: str, folder: str, shard: tuple[int, int]) -> str:
    """The file of a shard.

    Args:
        kind: "samples", "verdicts" or "scores".
        stage: Name of the stage.
        folder: Of the query: its :func:`slug`.
        shard: First draw, and the one after the last.
    """
    return f"{kind}/{stage}/{folder}/{shard[0]:08d}-{shard[1]:08d}.parquet"
