"""Which proposals find which ways to hit, and what does each of them carry and cost?

A way to hit is told by its opening, the first words of a completion: a refusal that gives way
and a plain answer begin differently. Read from a run directory alone.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from tailcast.analysis.draws import mixtures_of
from tailcast.analysis.explain import Explanation, explain_estimate, stage_of
from tailcast.store import RunStore

__all__ = ["Opening", "Use", "explained", "proposals_used", "tokens_drawn", "ways_to_hit"]


@dataclass(frozen=True)
class Use:
    """What a proposal did in a run.

    Attributes:
        proposal: Which.
        draws: Draws of it, of all queries.
        hits: Hits among them.
        tokens: Tokens of its draws.
        carried: Share of the estimates that its hits make up, mean over queries with hits.
        queries: Queries whose estimate it carries more of than any other.
    """

    proposal: str
    draws: int
    hits: int
    tokens: int
    carried: float
    queries: int


@dataclass(frozen=True)
class Opening:
    """A way to hit.

    Attributes:
        words: How its completions begin.
        hits: How many hits begin so.
        queries: In how many queries.
        carried: Share of the estimates that they make up, mean over queries with hits.
        found_by: The proposals that brought most of what they weigh, and their shares of it.
    """

    words: str
    hits: int
    queries: int
    carried: float
    found_by: tuple[tuple[str, float], ...]


def explained(store: RunStore) -> dict[str, Explanation]:
    """The last estimate of every query taken apart, by query.

    Raises:
        StoreError: If it is no finished run.
    """
    last = {row["query_id"]: row for row in store.read_lines("estimates.jsonl")}
    return {id: explain_estimate(store, row) for id, row in last.items()}


def proposals_used(
    found: Mapping[str, Explanation], tokens: Mapping[str, int] | None = None
) -> list[Use]:
    """What every proposal did, those that carry most first.

    Args:
        found: From :func:`explained`.
        tokens: From :func:`tokens_drawn`; 0 for all if None.
    """
    with_hits = [one for one in found.values() if one.hits]
    leaders = Counter(one.by_proposal[0][0] for one in with_hits)
    totals: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0.0])
    for one in found.values():
        for name, draws, hits, share in one.by_proposal:
            row = totals[name]
            row[0], row[1] = row[0] + draws, row[1] + hits
            row[2] += share / max(1, len(with_hits))
    uses = [
        Use(name, int(draws), int(hits), (tokens or {}).get(name, 0), carried, leaders[name])
        for name, (draws, hits, carried) in totals.items()
    ]
    return sorted(uses, key=lambda one: (-one.carried, -one.hits, one.proposal))


def tokens_drawn(store: RunStore, found: Mapping[str, Explanation]) -> Counter[str]:
    """Tokens of the draws of every proposal.

    Args:
        store: The run.
        found: From :func:`explained`.

    Raises:
        StoreError: If a file of draws is damaged.
    """
    tokens: Counter[str] = Counter()
    for id, one in found.items():
        rounds = [stage for stage, _ in mixtures_of(store, id)]
        mixture = one.estimate["method"] == "mixture"
        for stage in rounds if mixture else [stage_of(one.estimate)]:
            for shard in store.shards(stage, id):
                batch = store.read_batch(stage, id, shard)
                for proposal, length in zip(batch.proposals, batch.lengths, strict=True):
                    tokens[str(proposal)] += int(length)
    return tokens


def ways_to_hit(found: Mapping[str, Explanation], *, words: int = 3) -> list[Opening]:
    """The hits by their first words, those that carry most first.

    Args:
        found: From :func:`explained`.
        words: How many first words tell ways apart.
    """
    groups: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
    with_hits = sum(bool(one.hits) for one in found.values())
    for id, one in found.items():
        for hit in one.hits:
            groups[" ".join(hit.text.split()[:words])].append((id, hit.proposal, hit.share))
    openings = [_opening(name, hits, with_hits) for name, hits in groups.items()]
    return sorted(openings, key=lambda one: (-one.carried, -one.hits, one.words))


def _opening(words: str, hits: list[tuple[str, str, float]], queries: int) -> Opening:
    total, by = sum(share for _, _, share in hits), Counter[str]()
    for _, proposal, share in hits:
        by[proposal] += share  # type: ignore[assignment]
    found = tuple((name, share / max(total, 1e-300)) for name, share in by.most_common(3))
    return Opening(words, len(hits), len({id for id, _, _ in hits}), total / queries, found)
