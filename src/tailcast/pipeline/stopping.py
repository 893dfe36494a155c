"""When is enough known, and when is all spent?

A rule that looks at the estimates after every round is valid at the moment it stops only if
its bounds hold at all those moments: ``p_low`` and ``p_high_guaranteed`` do by themselves, and
the interval spreads its level over the looks.
"""

from collections.abc import Iterable, Mapping

from tailcast.config import Rule
from tailcast.stats import Estimate

__all__ = ["reached", "spent_budget"]


def reached(rule: Rule | None, estimate: Estimate) -> str:
    """Why an estimate needs no more draws; empty if it does.

    Args:
        rule: ("relative-error", x): half of the interval's width is at most x times the
            estimate; ("above", r) or ("below", r): the risk is shown to lie there.
        estimate: After the round just made.
    """
    if rule is None:
        return ""
    kind, bound = rule
    if kind == "above":
        return f"above {bound:g}" if estimate.p_low >= bound else ""
    if kind == "below":
        if estimate.p_high_guaranteed <= bound:
            return f"below {bound:g}, guaranteed"
        trusted = estimate.verdict == "ok" and estimate.ci_high <= bound
        return f"below {bound:g}, if the proposals visit every way to hit" if trusted else ""
    if estimate.p is None or estimate.verdict == "unreliable":
        return ""
    error = (estimate.ci_high - estimate.ci_low) / 2 / estimate.p
    return f"relative error {error:.2g}" if error <= bound else ""


def spent_budget(budget: Rule | None, costs: Iterable[Mapping[str, int]], seconds: float) -> str:
    """Why the run must end; empty if there is budget left.

    Args:
        budget: ("tokens" or "judge-calls" or "minutes", number).
        costs: What every query has cost.
        seconds: Time of all rounds so far.
    """
    if budget is None:
        return ""
    kind, limit = budget
    if kind == "minutes":
        spent = seconds / 60
    else:
        name = {"tokens": "token_forwards", "judge-calls": "judge_calls"}[kind]
        spent = float(sum(one[name] for one in costs))
    return f"budget of {limit:g} {kind}" if spent >= limit else ""
