"""Which distinct completions did a run judge, and what does each stand for?

Two laws are told apart. Under the target's law a hit stands for what it adds to the risk; a
non-hit has no weight of its own in a mixture, where only hits are scored, so that non-hits are
those of the target's own draws, an unbiased sample of p. Under the law of the draws every draw
of a proposal counts the same: missed hits are found there where the target has none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailcast.analysis.draws import Draws, mixtures_of, read_draws, read_round
from tailcast.errors import StoreError
from tailcast.stats import Measured, betting_upper_bound, weighted_hits_interval
from tailcast.store import RunStore

__all__ = ["DRAWN", "LAWS", "TARGET", "Completion", "Judged", "Stake", "pooled_risk", "read_judged"]

TARGET, DRAWN = LAWS = ("target", "drawn")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stake:
    """What a completion stands for under a law.

    Attributes:
        mass: Sum over its draws: of w / n under the target's law, of 1 under that of the draws.
        square: Sum of their squares, where draws of one prefix count as one.
        lump: The largest of them.
    """

    mass: float = 0.0
    square: float = 0.0
    lump: float = 0.0

    def scaled(self, factor: float) -> "Stake":
        """All masses times a factor."""
        return Stake(self.mass * factor, self.square * factor**2, self.lump * factor)


@dataclass(frozen=True)
class Completion:
    """A distinct text of a query with its verdict.

    Attributes:
        text: The completion.
        hit: The verdict.
        score: The judge's; 1 where it failed.
        cut: Whether its draws were ended once their verdict was settled.
        stakes: By law.
    """

    text: str
    hit: bool
    score: float
    cut: bool
    stakes: dict[str, Stake]


@dataclass(frozen=True)
class Judged:
    """All completions of one query behind one of its estimates.

    Attributes:
        row: The estimate, as in estimates.jsonl.
        completions: Its distinct completions.
        clusters: What each draw adds to the estimate, or each prefix with all its
            continuations; of hits alone, [hits].
        n: Number of draws, or of prefixes.
        target: Hits among draws of the target, and their number; none where roulette or a
            screen kept some of them from the judge.
        drawn: The same among draws of the proposals.
    """

    row: dict[str, Any]
    completions: tuple[Completion, ...]
    clusters: Floats
    n: int
    target: tuple[int, int]
    drawn: tuple[int, int]


@dataclass(frozen=True)
class _Part:
    """The draws of a stage: log-weights of the estimate, [n], and how many continue one prefix."""

    draws: Draws
    log_weights: Floats
    several: int
    counts: bool = True  # whether its hits are part of the estimate

    @property
    def prefix(self) -> NDArray[np.int64]:
        """Number of each draw's prefix, [n]."""
        return np.arange(len(self.log_weights)) // self.several


def read_judged(store: RunStore, method: str | None = None) -> list[Judged]:
    """The completions of every query of a finished run.

    Args:
        store: The run.
        method: Which estimate of each query; the last one if None.

    Raises:
        StoreError: If the run is not finished, or has no estimate by that method, or by splitting
            alone: what its completions stand for is no weight of a draw.
    """
    rows = {
        row["query_id"]: row
        for row in store.read_lines("estimates.jsonl")
        if method in (None, row["method"])
    }
    if not rows:
        raise StoreError(f"{store.path} holds no estimate by method {method!r}: leave it out.")
    if any(row["method"] == "splitting" for row in rows.values()):
        raise StoreError(
            f"{store.path} was estimated by splitting, whose completions are no draws to label: "
            "name another --method of it, or measure with mc or mixture."
        )
    with store.readable("the draws"):
        return [_judged(row, list(_parts(store, row))) for row in rows.values()]


def pooled_risk(queries: Sequence[Judged], *, level: float) -> Measured:
    """Mean risk of queries by the judge, with an interval.

    All draws are taken for draws of one law: the interval is a little too wide.
    """
    share = 1 / len(queries)
    found = np.concatenate([one.clusters for one in queries]) * share
    n = sum(one.n for one in queries)
    found = found[found > 0]
    low, high = weighted_hits_interval(np.log(found * n), n, level=level)
    if len(found) < 2:  # weights of unknown spread bound nothing from above
        least = len(queries) * min(one.target[1] for one in queries)
        hits = sum(one.target[0] for one in queries)
        high = min(high, betting_upper_bound(hits, max(least, hits), level=(1 + level) / 2))
    return Measured(float(found.sum()), low, high)


def _parts(store: RunStore, row: dict[str, Any]) -> Iterator[_Part]:
    """The stages of an estimate, and plain draws made beside them."""
    config = (store.read_json("manifest.json") or {}).get("config", {})
    several, query_id = int(config.get("continuations", 1)), row["query_id"]
    stage = "is" if row["method"] == "is" else "mc"
    by_rounds = row["method"] == "mixture" or not store.shards(stage, query_id)
    if by_rounds:
        yield from _rounds(store, query_id, several)
    else:
        draws = read_draws(store, stage, query_id)
        yield _Part(draws, draws.log_weights, several if stage == "is" else 1)
    if (by_rounds or stage == "is") and store.shards("mc", query_id):
        draws = read_draws(store, "mc", query_id)
        yield _Part(draws, draws.log_weights, 1, counts=False)


def _rounds(store: RunStore, query_id: str, several: int) -> Iterator[_Part]:
    """Rounds of a mixture; hits have weights, all others -inf."""
    for stage, mixture in mixtures_of(store, query_id):
        found, draws = read_round(store, stage, query_id, mixture, continuations=several)
        hits = np.flatnonzero(draws.hits)
        _, prefix = np.unique(hits // several, return_inverse=True)
        weights = np.full(len(draws.hits), -np.inf)
        part = _Part(draws, weights, several)
        weights[hits] = (found.log_weighted - found.log_values)[prefix] + _played(part)[hits]
        yield part


def _judged(row: dict[str, Any], parts: list[_Part]) -> Judged:
    """Masses of all draws of a query, put together by text and verdict."""
    target = [_is_target(one) for one in parts]
    masses = _target_masses(parts, target)
    drawn = [np.where(mine, 0.0, np.exp(_played(one))) for one, mine in zip(parts, target)]
    hits = [one.draws.hits for one in parts]
    clusters = [
        np.bincount(one.prefix, np.where(hit, mass, 0.0))
        for one, hit, mass in zip(parts, hits, masses)
    ]
    seen = all((_played(one) == 0).all() for one in parts)
    adds = np.concatenate(clusters).astype(float)
    return Judged(
        row=row,
        completions=_distinct(parts, {TARGET: masses, DRAWN: drawn}),
        clusters=adds[adds > 0],
        n=sum(len(cluster) for one, cluster in zip(parts, clusters) if one.counts),
        target=_hits_among(hits, target) if seen else (0, 0),
        drawn=(_hits_among(hits, drawn)[0], sum(int((~one).sum()) for one in target)),
    )


def _hits_among(
    hits: Sequence[NDArray[np.bool_]], counts: Sequence[NDArray[Any]]
) -> tuple[int, int]:
    """Hits among draws that count so often each, and the number of those draws."""
    among = np.concatenate(counts)
    return round(float(among[np.concatenate(hits)].sum())), round(float(among.sum()))


def _target_masses(parts: Sequence[_Part], target: Sequence[NDArray[np.bool_]]) -> list[Floats]:
    """What each draw stands for under the target's law, [n] for each part.

    Hits by the estimate they are part of. Non-hits by the target's draws; where it has none,
    by the draws of the one proposal, whose weights are all known.
    """
    draws = sum(len(one.log_weights) for one in parts if one.counts)
    plain = sum(int(one.sum()) for one in target)
    found = []
    for part, mine in zip(parts, target, strict=True):
        counted = part.log_weights - np.log(draws) if part.counts else np.full(len(mine), -np.inf)
        own = np.where(_played(part) > -np.inf, part.draws.log_weights, -np.inf)
        own -= np.log(plain or draws)
        rest = own if not plain else np.where(mine, own, -np.inf)
        found.append(np.exp(np.where(part.draws.hits, counted, rest)))
    return found


def _distinct(
    parts: Sequence[_Part], masses: Mapping[str, Sequence[Floats]]
) -> tuple[Completion, ...]:
    """The distinct completions with their stakes."""
    texts = [text for one in parts for batch in one.draws.batches for text in batch.texts]
    hits = np.concatenate([one.draws.hits for one in parts])
    scores = np.concatenate([v.scores for one in parts for v in one.draws.verdicts])
    finish = [end for one in parts for batch in one.draws.batches for end in batch.finish]
    keys = list(zip(texts, hits.tolist(), strict=True))
    first: dict[tuple[str, bool], int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    number = {key: i for i, key in enumerate(first)}
    index = np.array([number[key] for key in keys])
    stakes = {
        law: _stakes(index, np.concatenate(mass), np.concatenate(_shared(parts, mass)))
        for law, mass in masses.items()
    }
    return tuple(
        Completion(
            text=text,
            hit=hit,
            score=float(np.nan_to_num(scores[i], nan=1.0)),
            cut=finish[i] in ("settled", "roulette"),
            stakes={law: found[number[text, hit]] for law, found in stakes.items()},
        )
        for (text, hit), i in first.items()
    )


def _shared(parts: Sequence[_Part], masses: Sequence[Floats]) -> list[Floats]:
    """Of each draw the mass of its prefix that has the same verdict, [n] for each part."""
    found = []
    for part, mass in zip(parts, masses, strict=True):
        key = 2 * part.prefix + part.draws.hits
        found.append(np.bincount(key, mass).astype(float)[key])
    return found


def _stakes(index: NDArray[np.int64], mass: Floats, shared: Floats) -> list[Stake]:
    """Draws' masses put together by completion."""
    lumps = np.zeros(index.max() + 1)
    np.maximum.at(lumps, index, np.where(mass > 0, shared, 0.0))
    sums = np.bincount(index, mass), np.bincount(index, mass * shared), lumps
    return [Stake(*map(float, one)) for one in zip(*sums, strict=True)]


def _is_target(part: _Part) -> NDArray[np.bool_]:
    return np.array([one.is_target for batch in part.draws.batches for one in batch.proposals])


def _played(part: _Part) -> Floats:
    """What roulette and a screen add to each log-weight, [n]; -inf for draws they ended or hid."""
    shares = np.concatenate([one.shares for one in part.draws.verdicts])
    added = np.concatenate([batch.log_roulette for batch in part.draws.batches])
    return np.where(shares > 0, added, -np.inf)
