"""Which draws of a run came from the target itself, and how many of them were hits?

Read from the store alone; a share of queries hit in n tries can be counted from these.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailcast.analysis.draws import mixture_of
from tailcast.mixtures import Mixture
from tailcast.store import RunStore

__all__ = ["PlainDraws", "read_plain"]


@dataclass(frozen=True)
class PlainDraws:
    """Draws of the target, counted; each array is [queries].

    Attributes:
        hits: Hits of each query.
        failed: Draws that the judge failed on, which are counted as no hits.
        n: Draws.
    """

    hits: NDArray[np.int64]
    failed: NDArray[np.int64]
    n: NDArray[np.int64]


def read_plain(store: RunStore, query_ids: list[str]) -> PlainDraws | None:
    """The target's draws of these queries: of stage "mc", else those among a mixture's rounds.

    None where a query has none, or where roulette or a screen lets hits count unequally.
    How many of the rounds' draws are the target's depends a little on earlier hits.

    Args:
        store: A finished run.
        query_ids: Which queries.

    Raises:
        StoreError: If a file is damaged.
    """
    config = (store.read_json("manifest.json") or {}).get("config", {})
    if config.get("roulette", 1.0) < 1.0 or config.get("screen"):
        return None
    with store.readable("the draws"):
        counts = np.array([_of_stage(store, "mc", one) for one in query_ids])
        if not counts[:, 2].all():
            several = int(config.get("continuations", 1))
            counts = _of_rounds(store, query_ids, several)
    return PlainDraws(*counts.T) if counts[:, 2].all() else None


def _of_rounds(store: RunStore, query_ids: list[str], several: int) -> NDArray[np.int64]:
    """Hits, failures and draws of the target in all rounds, [queries, 3]."""
    counts = np.zeros((len(query_ids), 3), dtype=np.int64)
    for stage, plan in store.rounds():
        for row, query_id in zip(counts, query_ids, strict=True):
            mixture = mixture_of(plan, query_id)
            if mixture is not None:
                row += _of_stage(store, stage, query_id, mixture, several)
    return counts


def _of_stage(
    store: RunStore, stage: str, query_id: str, mixture: Mixture | None = None, several: int = 1
) -> NDArray[np.int64]:
    """Hits, failures and draws of the target in a stage, [3]; its first component, or all."""
    found = [store.read_verdicts(stage, query_id, shard) for shard in store.shards(stage, query_id)]
    if not found:
        return np.zeros(3, dtype=np.int64)
    hits = np.concatenate([one.hits for one in found])
    failed = np.concatenate([one.failed for one in found])
    mine = np.ones(len(hits), dtype=bool)
    if mixture is not None:
        mine = mixture.index(np.arange(len(hits)) // several) == 0
    return np.array([hits[mine].sum(), failed[mine].sum(), mine.sum()], dtype=np.int64)
