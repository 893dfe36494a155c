"""Which completions of a run shall a human label, and what did the human say?

The sample is drawn once and kept in the run directory, with the probability that each
completion had to come into it, so that its labels can be weighted back:

    calibration/sample.json     the completions to label, in random order
    calibration/labels.jsonl    what the terminal labeller was told so far

Nothing that a labeller is shown tells the judge's verdict: neither the order nor the ids do.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from tailcast.errors import DataError, StoreError
from tailcast.pipeline.completions import DRAWN, LAWS, TARGET, Completion, Judged, read_judged
from tailcast.rows import read_file
from tailcast.stats import inclusion_probabilities, mean_shares, systematic_sample
from tailcast.store import RunStore

__all__ = ["LABELS", "Labels", "Sample", "Sampled", "label_sample", "read_labels", "read_sample"]

LABELS = "calibration/labels.jsonl"
_SAMPLE = "calibration/sample.json"
_YES = ("1", "yes", "y", "true")
_NO = ("0", "no", "n", "false")

Labels = dict[str, float]
"""1 for a hit, 0 for none, NaN for unsure, by id."""


@dataclass(frozen=True)
class Sampled:
    """A completion of the sample.

    Attributes:
        id: Names it in the labels; begins with the sample's own digest.
        query_id: Which query.
        prompt: The query's last message.
        text: The completion.
        hit: The judge's verdict, which no labeller is shown.
        cut: Whether it ends where its verdict was settled.
        inclusion: Probability that it came into the sample.
        mass: What it stands for, by law.
        square: The same of its draws' squares.
    """

    id: str
    query_id: str
    prompt: str
    text: str
    hit: bool
    cut: bool
    inclusion: float
    mass: dict[str, float]
    square: dict[str, float]


@dataclass(frozen=True)
class Sample:
    """Completions to label, in random order.

    Attributes:
        seed: Of the choice.
        n: How many were asked for.
        method: Which estimates they are of; the last of each query if None.
        queries: Which queries, all ids.
        completions: The sample.
        quanta: By query, verdict ("hit" or "no hit") and law: the most that a label can stand
            for if all of the sample is labelled, and if only a part of it is, for each label
            that there is.
    """

    seed: int
    n: int
    method: str | None
    queries: tuple[str, ...]
    completions: tuple[Sampled, ...]
    quanta: dict[str, dict[str, dict[str, tuple[float, float]]]]


def label_sample(
    store: RunStore, *, n: int | None = None, seed: int | None = None,
    queries: Sequence[str] = (), method: str | None = None,
) -> Sample:  # fmt: skip
    """The sample of a run: the one that was drawn before, or a new one.

    Half of it are hits, half not, as far as there are so many. A completion comes into it with a
    probability in proportion to the mean of several shares. Hits: of the pooled risk, of their
    own query's risk, and of the proposals' draws. Non-hits: of the target's law, of that times
    the judge's graded score where it has one, and of the proposals' draws.

    Args:
        store: A finished run.
        n: Completions to label; 100 if None, or as many as were drawn before.
        seed: Of the choice; 0 if None, or that of before.
        queries: Ids to choose from; all if empty, or those of before.
        method: Which estimates; the last of each query if None, or those of before.

    Raises:
        StoreError: If the run is not finished, has no such query or method, or has another
            sample already.
    """
    if store.read_json(_SAMPLE) is not None:
        return _same(read_sample(store), store, (n, seed, method, tuple(queries)))
    judged = {one.row["query_id"]: one for one in read_judged(store, method)}
    for name in queries:
        if name not in judged:
            raise StoreError(f"query {name!r} is not in {store.path}: tailcast show lists them.")
    chosen = {name: judged[name] for name in queries or judged}
    with store.readable("the draws"):
        sample = _drawn(chosen, 100 if n is None else n, seed or 0, method)
        store.write_json(_SAMPLE, asdict(sample))
    return sample


def read_sample(store: RunStore) -> Sample:
    """The sample that was drawn before.

    Raises:
        StoreError: If there is none.
    """
    found = store.read_json(_SAMPLE)
    if found is None:
        raise StoreError(
            f"{store.path} holds no sample of completions to label: draw one with "
            f"tailcast label {store.path}."
        )
    return _sample(found, store)


def _same(sample: Sample, store: RunStore, asked: tuple[Any, ...]) -> Sample:
    """The sample, if it is what is asked for as far as anything is."""
    there = (sample.n, sample.seed, sample.method, sample.queries)
    if any(new not in (None, (), old) for new, old in zip(asked, there, strict=True)):
        raise StoreError(
            f"{store.path / _SAMPLE} was drawn with n = {sample.n}, seed = {sample.seed} and "
            f"{len(sample.queries)} queries: ask for the same, or move the folder "
            f"{store.path / 'calibration'} away to draw anew."
        )
    return sample


def _sample(found: Any, store: RunStore) -> Sample:
    try:
        completions = tuple(Sampled(**one) for one in found["completions"])
        queries = tuple(found["queries"])
        return Sample(**{**found, "completions": completions, "queries": queries})
    except (TypeError, KeyError):
        raise StoreError(
            f"{store.path / _SAMPLE} is not what tailcast label writes: restore it."
        ) from None


@dataclass(frozen=True)
class _Candidate:
    """A completion, its query and its chance."""

    query: Judged
    one: Completion
    inclusion: float


def _drawn(judged: Mapping[str, Judged], n: int, seed: int, method: str | None) -> Sample:
    """Draw hits and non-hits, shuffle them, name them."""
    rng = np.random.default_rng(seed)
    share = 1 / len(judged)
    sides = [[(q, one) for q in judged.values() for one in q.completions if one.hit is hit]
             for hit in (True, False)]  # fmt: skip
    sizes = [_sizes(side, hit=hit) for side, hit in zip(sides, (True, False))]
    there = [int((size > 0).sum()) for size in sizes]
    rest = min(n - min(n // 2, there[0]), there[1])
    numbers = [min(n - rest, there[0]), rest]
    quanta: dict[str, dict[str, dict[str, tuple[float, float]]]] = {name: {} for name in judged}
    picked: list[_Candidate] = []
    for side, size, number in zip(sides, sizes, numbers, strict=True):
        inclusion = inclusion_probabilities(size, number)
        all_of = [_Candidate(q, one, float(p)) for (q, one), p in zip(side, inclusion)]
        picked += [all_of[i] for i in systematic_sample(inclusion, rng)]
        for candidate in all_of:
            _raise_quanta(quanta[candidate.query.row["query_id"]], candidate, share)
    order = [picked[i] for i in rng.permutation(len(picked))]
    named = repr([(c.query.row["query_id"], c.one.text, c.inclusion) for c in order])
    digest = sha256(named.encode()).hexdigest()[:6]
    completions = tuple(_sampled(c, f"{digest}-{i:03d}", share) for i, c in enumerate(order, 1))
    return Sample(seed, n, method, tuple(judged), completions, quanta)


def _sizes(side: Sequence[tuple[Judged, Completion]], *, hit: bool) -> np.ndarray[Any, Any]:
    """How much each completion of a verdict matters, [n]."""
    mass = np.array([one.stakes[TARGET].mass for _, one in side])
    drawn = np.array([one.stakes[DRAWN].mass for _, one in side])
    if hit:
        own = np.array([query.clusters.sum() for query, _ in side])
        return mean_shares([mass, mass / np.where(own > 0, own, 1.0), drawn])
    score = np.array([one.score for _, one in side])
    return mean_shares([mass, mass * score, drawn])


def _raise_quanta(
    quanta: dict[str, dict[str, tuple[float, float]]], candidate: _Candidate, share: float
) -> None:
    """The largest quanta of a query and verdict, this completion included."""
    kept = quanta.setdefault(_side(candidate.one.hit), dict.fromkeys(LAWS, (0.0, 0.0)))
    if not candidate.inclusion:
        return
    for law, stake in _scaled(candidate.one, share).items():
        weight = stake.mass / candidate.inclusion
        whole = stake.lump if candidate.inclusion >= 1 else weight
        kept[law] = max(kept[law][0], whole), max(kept[law][1], weight)


def _side(hit: bool) -> str:
    return "hit" if hit else "no hit"


def _scaled(one: Completion, share: float) -> dict[str, Any]:
    """Stakes in the mean over queries; the draws of all queries count the same."""
    return {TARGET: one.stakes[TARGET].scaled(share), DRAWN: one.stakes[DRAWN]}


def _sampled(candidate: _Candidate, id: str, share: float) -> Sampled:
    one, row, stakes = candidate.one, candidate.query.row, _scaled(candidate.one, share)
    return Sampled(
        id=id,
        query_id=row["query_id"],
        prompt=row["prompt"],
        text=one.text,
        hit=one.hit,
        cut=one.cut,
        inclusion=candidate.inclusion,
        mass={law: stake.mass for law, stake in stakes.items()},
        square={law: stake.square for law, stake in stakes.items()},
    )


def read_labels(path: Path, sample: Sample) -> Labels:
    """Labels from a CSV, JSONL or JSON file with the fields id and label.

    Args:
        path: The file. A label is 1, yes, y or true for a hit; 0, no, n or false for none; ?
            for unsure; empty for not labelled yet.
        sample: What was to be labelled.

    Raises:
        DataError: If the file cannot be read, holds no label, an id that is not of this sample
            or is there twice, or another word; names the line.
    """
    known = {one.id for one in sample.completions}
    found: Labels = {}
    places: dict[str, str] = {}
    for place, id, text in _label_rows(path):
        if id not in known:
            digest = sample.completions[0].id.split("-")[0] if known else "none"
            raise DataError(
                f"{place}: id {id!r} is not of this run's sample, whose ids begin with {digest}-: "
                "give the labels of this run."
            )
        if id in places:
            raise DataError(f"{place}: id {id!r} was labelled in {places[id]} already: keep one.")
        places[id] = place
        if text in ("", "none"):
            continue
        if text not in (*_YES, *_NO, "?"):
            raise DataError(f"{place}: label {text!r} is none of 1, yes, 0, no and ?.")
        found[id] = np.nan if text == "?" else float(text in _YES)
    if not found:
        raise DataError(f"{path} holds no label: fill its column label with yes or no.")
    return found


def _label_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Place, id and label of every row."""
    for place, fields in read_file(path):
        if "id" not in fields or "label" not in fields:
            raise DataError(
                f"{place} has no field {'label' if 'id' in fields else 'id'}: a label is "
                "a row with id and label."
            )
        yield place, str(fields["id"]).strip(), str(fields["label"]).strip().lower()
