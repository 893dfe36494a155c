"""What was a run asked? Its queries, as it kept them itself.

Nothing outside the directory is read: what a manifest names may be another's file by now, or
code.
"""

from tailcast.store import RunStore
from tailcast.types import Query

__all__ = ["QUERIES", "read_queries"]

QUERIES = "queries.jsonl"


def read_queries(store: RunStore) -> list[Query]:
    """The queries of a run; none if it was made before runs kept them.

    Such a run is given them by the command that made it.

    Raises:
        StoreError: If the file is damaged.
    """
    if QUERIES not in store.files.names(""):
        return []
    return [
        Query(row["id"], tuple(row["messages"]), tuple(row["tags"]), tuple(row["target"]))
        for row in store.read_lines(QUERIES)
    ]
