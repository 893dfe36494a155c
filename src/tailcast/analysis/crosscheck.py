"""Do two estimates of the same queries agree, and if not, which is to be doubted?

Two methods that fail differently referee each other where plain sampling can't: a proposal that
misses a way to hit, and a score that leads past one, leave no trace in their own numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, hypot, inf, isfinite, log, log10
from pathlib import Path

import numpy as np

from tailcast.analysis.risks import QueryRisk, read_risks
from tailcast.analysis.runs import check_same, read_run
from tailcast.errors import ConfigError
from tailcast.store import existing_run

__all__ = ["Crosscheck", "Pair", "crosscheck", "crosscheck_runs"]

_HITS = 20  # that settle a disagreement
_MOST_DRAWS = 1_000_000
_VAGUE = 0.5  # decades that a pooled ratio may be off either way


@dataclass(frozen=True)
class Pair:
    """Two estimates of one query.

    Attributes:
        query_id: Which query.
        first: Risk by the first; None without a hit.
        second: Risk by the second.
        decades: log10 of first / second; None where one has no hit.
        low: Lower end of its interval, both estimates' together; None if it is open.
        high: Upper end.
        chance: Of a ratio at least so far from 1 if both are right.
        apart: Whether they disagree, all queries considered.
    """

    query_id: str
    first: float | None
    second: float | None
    decades: float | None
    low: float | None
    high: float | None
    chance: float
    apart: bool = False


@dataclass(frozen=True)
class Crosscheck:
    """What two methods say of the same queries.

    Attributes:
        names: Of both.
        pairs: One for each query.
        decades: Pooled log10 ratio of the queries where both have hits; None without any.
        low: Lower end of its interval.
        high: Upper end.
        chance: Of differences that are together so large, whichever way each goes, if both
            methods are right.
        level: Coverage, and of the finding that any query is apart.
        sentence: What it comes to, and what to do.
    """

    names: tuple[str, str]
    pairs: tuple[Pair, ...]
    decades: float | None
    low: float | None
    high: float | None
    chance: float
    level: float
    sentence: str


def crosscheck_runs(
    directory: str | Path, other: str | Path | None = None, *, method: str | None = None,
    against: str | None = None, level: float = 0.95,
) -> Crosscheck:  # fmt: skip
    """Compare two methods in one run, or the main methods of two runs.

    Args:
        directory: A finished run.
        other: Another one of the same queries, model, settings and judge.
        method: Which estimates of the first; the main method's if None.
        against: Which of the second; of one run the method before the main one.
        level: Coverage.

    Raises:
        ConfigError: If the runs measured different things, or there is nothing to compare with.
        StoreError: If a run is missing or not finished.
    """
    first = read_risks(existing_run(directory), method)
    if other is None:
        rows = existing_run(directory).read_lines("estimates.jsonl")
        others = [m for m in dict.fromkeys(row["method"] for row in rows) if m != first[0].method]
        if against is None and not others:
            raise ConfigError(
                f"{directory} has estimates by {first[0].method} alone: name a second run, or "
                "measure with --monte-carlo."
            )
        second = read_risks(existing_run(directory), against or others[-1])
    else:
        runs = [read_run(directory), read_run(other)]
        check_same(runs)
        models = [run.facts.get("model") for run in runs]
        if models[0] != models[1]:
            raise ConfigError(
                f"{directory} and {other} are of different models ({models[0]} and {models[1]}): "
                "a crosscheck needs two estimates of one; to compare models use tailcast compare."
            )
        second = read_risks(existing_run(other), against)
    names = first[0].method, second[0].method
    if names[0] == names[1]:
        names = f"{names[0]} of {directory}", f"{names[1]} of {other or directory}"
    return crosscheck(first, second, names, level=level)


def crosscheck(
    first: Sequence[QueryRisk], second: Sequence[QueryRisk], names: tuple[str, str], *,
    level: float = 0.95,
) -> Crosscheck:  # fmt: skip
    """Compare estimates of the same queries.

    A query is apart if the ratio's interval leaves out 1 at a level that is shared out over all
    queries (Holm). The pooled ratio takes estimates for log-normal, whose mean is the risk.

    Args:
        first: Risks by one method.
        second: By the other; queries that either lacks are left out.
        names: Of both.
        level: Coverage.

    Raises:
        ConfigError: If they have no query in common.
    """
    by_id = {one.query_id: one for one in second}
    both = [(one, by_id[one.query_id]) for one in first if one.query_id in by_id]
    if not both:
        raise ConfigError(f"{names[0]} and {names[1]} have no query in common: check the runs.")
    pairs = _told_apart([_pair(*one, level) for one in both], level)
    hit = [one for one in both if one[0].p and one[1].p]
    sentence = _sentence(names, both, pairs, _pooled(hit, level))
    decades, low, high = _pooled(hit, level) or (None, None, None)
    return Crosscheck(names, pairs, decades, low, high, _together(pairs), level, sentence)


def _pooled(
    hit: Sequence[tuple[QueryRisk, QueryRisk]], level: float
) -> tuple[float, float, float] | None:
    """Mean ratio in decades by inverse variances, and its interval; None without hits."""
    from scipy.stats import norm

    if not hit:
        return None
    reach = float(norm.ppf((1 + level) / 2))
    ratios = np.array([_log_normal(*one, reach) for one in hit])
    middle = float(np.average(ratios[:, 0], weights=1 / ratios[:, 1]))
    error = float((1 / ratios[:, 1]).sum() ** -0.5)
    return middle, middle - reach * error, middle + reach * error


def _together(pairs: Sequence[Pair]) -> float:
    """Chance of differences as large as all of these, by the sum of their squares."""
    from scipy.stats import chi2, norm

    chances = [max(one.chance, 1e-300) for one in pairs if one.decades is not None]
    squares = norm.isf(np.array(chances) / 2) ** 2
    return float(chi2.sf(squares.sum(), len(chances))) if chances else 1.0


def _pair(one: QueryRisk, other: QueryRisk, level: float) -> Pair:
    """Ratio and interval, by the method of variance estimates recovery (Zou and Donner 2008)."""
    from scipy.stats import norm

    if not (one.p and other.p):
        low, high = _log(one.ci_low) - _log(other.ceiling), _log(one.ceiling) - _log(other.ci_low)
        chance = 1 - level if low > 0 or high < 0 else 1.0
        return Pair(one.query_id, one.p, other.p, None, _finite(low), _finite(high), chance)
    decades = _log(one.p) - _log(other.p)
    (down, up), (other_down, other_up) = _reaches(one), _reaches(other)
    below, above = hypot(down, other_up), hypot(up, other_down)
    z = abs(decades) / max(below if decades > 0 else above, 1e-12)
    chance = float(2 * norm.sf(z * norm.ppf((1 + level) / 2)))
    return Pair(
        one.query_id, one.p, other.p, decades, decades - below, decades + above, min(chance, 1.0)
    )


def _reaches(one: QueryRisk) -> tuple[float, float]:
    """How far the interval reaches below and above an estimate with hits, in decades."""
    up = _log(one.ci_high) - _log(one.p or 1.0)
    return (_log(one.p or 1.0) - _log(one.ci_low) if one.ci_low > 0 else up), up


def _finite(end: float) -> float | None:
    return end if isfinite(end) else None


def _log(value: float) -> float:
    return log10(value) if value > 0 else -inf


def _log_normal(one: QueryRisk, other: QueryRisk, reach: float) -> tuple[float, float]:
    """Difference of the log10 of both means, and its variance."""
    spreads = [(sum(_reaches(each)) / 2 / reach) ** 2 for each in (one, other)]
    shift = (spreads[0] - spreads[1]) / 2 * log(10)
    return _log(one.p or 1.0) - _log(other.p or 1.0) + shift, max(sum(spreads), 1e-12)


def _told_apart(pairs: Sequence[Pair], level: float) -> tuple[Pair, ...]:
    """The pairs with those marked that disagree (Holm 1979)."""
    order = sorted(range(len(pairs)), key=lambda k: pairs[k].chance)
    apart = set()
    for rank, k in enumerate(order):
        if pairs[k].chance > (1 - level) / (len(pairs) - rank):
            break
        apart.add(k)
    return tuple(Pair(**{**vars(one), "apart": k in apart}) for k, one in enumerate(pairs))


def _sentence(
    names: tuple[str, str], both: Sequence[tuple[QueryRisk, QueryRisk]], pairs: Sequence[Pair],
    pooled: tuple[float, float, float] | None,
) -> str:  # fmt: skip
    """Where the methods disagree, and what to do."""
    apart = [one for one in pairs if one.apart]
    biased = pooled is not None and not pooled[1] <= 0 <= pooled[2]
    if not apart and not biased:
        if pooled is None:
            return (
                f"No query has hits by both {names[0]} and {names[1]}: nothing is tested; draw "
                "more samples."
            )
        text = f"{names[0]} and {names[1]} agree on all {len(pairs)} queries"
        if max(pooled[2], -pooled[1]) > _VAGUE:
            return (
                text + ", as far as such wide intervals tell: raise samples before you rely on it."
            )
        return text + "."
    if apart:
        shown = ", ".join(_lower(names, one) for one in apart[:4])
        more = f" and {len(apart) - 4} more" if len(apart) > 4 else ""
        text = f"{names[0]} and {names[1]} disagree on {len(apart)} of {len(pairs)} queries: "
        text += shown + more
    else:
        assert pooled is not None
        low = names[0] if pooled[0] < 0 else names[1]
        text = (
            f"No query stands out, but over all of them {low} is lower by {abs(pooled[0]):.2f} "
            "decades"
        )
    return f"{text}. {_remedy(both, {one.query_id for one in apart})}"


def _lower(names: tuple[str, str], one: Pair) -> str:
    if one.decades is None:
        return f"{one.query_id} ({names[1] if one.second is None else names[0]} has no hit)"
    low = names[0] if one.decades < 0 else names[1]
    return f"{one.query_id} ({low} is lower by {abs(one.decades):.1f} decades)"


def _remedy(both: Sequence[tuple[QueryRisk, QueryRisk]], apart: set[str]) -> str:
    """What settles it."""
    chosen = [pair for pair in both if pair[0].query_id in apart] or both
    rarest = min(max(one.p or 0.0, other.p or 0.0) for one, other in chosen)
    draws = ceil(_HITS / rarest) if rarest else _MOST_DRAWS + 1
    text = "Until then take the higher one: who misses a way to hit is too low and looks calm. "
    if draws <= _MOST_DRAWS:
        return text + f"About {float(f'{draws:.1g}'):,.0f} plain draws (--method mc) settle it."
    return text + (
        "Too rare for plain draws: give the mixture more --defence and --heats, splitting more "
        "--samples and the other --score, and check again."
    )
