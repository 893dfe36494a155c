"""What do the labels say of the judge, and of the risks that it gave?

Of the run as a whole, and of each query that has enough labels. Where the run has proposals the
judge is also measured on their draws, which hold far more hits than the target's.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tailcast.pipeline.completions import DRAWN, TARGET, Judged, pooled_risk, read_judged
from tailcast.pipeline.labels import LABELS, Labels, Sample, Sampled, read_labels, read_sample
from tailcast.stats import (
    JudgeError,
    Labelled,
    Measured,
    clopper_pearson,
    judge_error,
    quotient,
)
from tailcast.store import RunStore

__all__ = ["Calibration", "Counts", "calibrate"]

_FEWEST = 5  # labels of a query's non-hits below which nothing is said of the query


@dataclass(frozen=True)
class Counts:
    """Labels of one verdict: how many there are, and how many say hit or are unsure."""

    labelled: int
    yes: int
    unsure: int


@dataclass(frozen=True)
class Calibration:
    """The judge's errors in a run.

    Attributes:
        judge: Its specification.
        level: Coverage of every interval.
        sampled: Completions that were to be labelled.
        cut: Labelled completions that end where their verdict was settled.
        hits: Labels of the judge's hits.
        passed: Labels of its non-hits.
        passed_target: Those of them that are the target's draws: they bound what is missed.
        pooled: Over all queries of the sample; risks are means over queries.
        queries: The same of each query, None where it has too few labels.
        drawn: Over the proposals' draws, each counting the same; None without proposals.
        alike: The pooled corrected risk if the judge missed the target's hits as often as the
            proposals'; None without proposals.
    """

    judge: str
    level: float
    sampled: int
    cut: int
    hits: Counts
    passed: Counts
    passed_target: Counts
    pooled: JudgeError
    queries: dict[str, JudgeError | None]
    drawn: JudgeError | None
    alike: Measured | None

    def record(self) -> dict[str, Any]:
        """For JSON."""
        plain = ("judge", "level", "sampled", "cut")
        counts = ("hits", "passed", "passed_target")
        return {
            **{name: getattr(self, name) for name in plain},
            **{name: asdict(getattr(self, name)) for name in counts},
            "pooled": self.pooled.record(),
            "queries": {id: one and one.record() for id, one in self.queries.items()},
            "drawn": self.drawn and self.drawn.record(),
            "alike": self.alike and self.alike.record(),
        }


def calibrate(store: RunStore, path: Path | None = None) -> Calibration:
    """Measure the judge of a run by labels of its sample, and write ``calibration.json``.

    Args:
        store: The run.
        path: The labels; those of the terminal labeller if None.

    Raises:
        StoreError: If the run has no sample.
        DataError: As :func:`tailcast.pipeline.labels.read_labels`.
    """
    sample = read_sample(store)
    with nullcontext(path) if path else store.as_file(LABELS) as file:
        labels = read_labels(file, sample)
    judged = {one.row["query_id"]: one for one in read_judged(store, sample.method)}
    chosen = [judged[id] for id in sample.queries]
    level = float(chosen[0].row["level"])
    pooled = _error(sample, labels, TARGET, pooled_risk(chosen, level=level), level)
    drawn = _drawn(sample, labels, chosen, level)
    labelled = [one for one in sample.completions if one.id in labels]
    passed = [one for one in labelled if not one.hit]
    found = Calibration(
        judge=(store.read_json("manifest.json") or {}).get("config", {}).get("judge", ""),
        level=level,
        sampled=len(sample.completions),
        cut=sum(one.cut for one in labelled),
        hits=_counts([one for one in labelled if one.hit], labels),
        passed=_counts(passed, labels),
        passed_target=_counts([one for one in passed if one.mass[TARGET] > 0], labels),
        pooled=pooled,
        queries={one.row["query_id"]: _of_query(sample, labels, one, level) for one in chosen},
        drawn=drawn,
        alike=quotient(pooled.confirmed, drawn.sensitivity) if drawn else None,
    )
    store.write_json("calibration.json", found.record())
    return found


def _counts(completions: Sequence[Sampled], labels: Labels) -> Counts:
    found = np.array([labels[one.id] for one in completions])
    return Counts(len(found), int((found == 1).sum()), int(np.isnan(found).sum()))


def _error(
    sample: Sample, labels: Labels, law: str, risk: Measured, level: float,
    query_id: str | None = None,
) -> JudgeError:  # fmt: skip
    """Under a law, of one query or of all."""
    hits, passed = (_labelled(sample, labels, law, hit, query_id) for hit in (True, False))
    return judge_error(risk, hits, passed, level=level)


def _labelled(
    sample: Sample, labels: Labels, law: str, hit: bool, query_id: str | None
) -> Labelled:
    """The labelled completions of a verdict, as far as a law knows them.

    They were shown in random order, so that those labelled so far are a random part of the
    sample: every one's probability is that part of what it was.
    """
    side = [one for one in sample.completions if one.hit is hit]
    there = [one for one in side if one.id in labels]
    part = len(there) / max(len(side), 1)
    mine = [one for one in there if one.mass[law] > 0 and query_id in (None, one.query_id)]
    quanta = [
        kept["hit" if hit else "no hit"][law]
        for id, kept in sample.quanta.items()
        if query_id in (None, id) and ("hit" if hit else "no hit") in kept
    ]
    whole, each = np.max([*quanta, (0.0, 0.0)], axis=0)
    return Labelled(
        mass=np.array([one.mass[law] for one in mine]),
        square=np.array([one.square[law] for one in mine]),
        inclusion=np.array([one.inclusion for one in mine]) * part,
        label=np.array([labels[one.id] for one in mine]),
        quantum=float(whole if part == 1.0 else each / max(part, 1e-300)),
    )


def _of_query(sample: Sample, labels: Labels, one: Judged, level: float) -> JudgeError | None:
    """The judge on one query; None where too few of its completions are labelled."""
    id, row = one.row["query_id"], one.row
    mine = [each for each in sample.completions if each.query_id == id and each.id in labels]
    passed = sum(not each.hit and each.mass[TARGET] > 0 for each in mine)
    if passed < _FEWEST or (row["n_hits"] and not any(each.hit for each in mine)):
        return None
    risk = Measured(row["p"] or 0.0, row["ci_low"], row["ci_high"])
    return _error(sample, labels, TARGET, risk, level, id)


def _drawn(
    sample: Sample, labels: Labels, judged: Sequence[Judged], level: float
) -> JudgeError | None:
    """The judge on the draws of the proposals, whatever they weigh."""
    hits, n = np.sum([one.drawn for one in judged], axis=0)
    if not n:
        return None
    risk = Measured(float(hits / n), *clopper_pearson(int(hits), int(n), level=level))
    return _error(sample, labels, DRAWN, risk, level)
