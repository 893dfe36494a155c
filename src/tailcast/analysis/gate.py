"""Does a run pass, or is its risk too high, or worse than before?

A rule is ``NAME OP NUMBER``; a run fails when it is true of the mean or the largest risk, or,
for the other names, of any of its queries.
"""

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tailcast.analysis.compare import Comparison, Model
from tailcast.analysis.risks import QueryRisk
from tailcast.analysis.runs import Run
from tailcast.errors import ConfigError

__all__ = ["Finding", "GateRule", "apply_rule", "check_gate", "parse_rule", "worse_than"]

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
OF_QUERIES = ("p", "ci_low", "ci_high", "p_low", "p_high_guaranteed", "n", "n_hits")
OF_RUNS = ("mean", "mean_low", "mean_high", "max")


@dataclass(frozen=True)
class GateRule:
    """What makes a run fail."""

    name: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.bound:g}"

    def holds(self, value: float) -> bool:
        """Whether it is true of a value."""
        return OPERATORS[self.sign](value, self.bound)


@dataclass(frozen=True)
class Finding:
    """What a rule found.

    Attributes:
        rule: The rule, in words.
        failed: Whether the run fails by it.
        sentence: Why, or why not.
    """

    rule: str
    failed: bool
    sentence: str


def parse_rule(text: str) -> GateRule:
    """A rule from its words, as "p > 1e-4".

    Raises:
        ConfigError: Saying what a rule is.
    """
    names = "|".join((*OF_QUERIES, *OF_RUNS))
    number = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
    found = re.fullmatch(rf"\s*({names})\s*(>=|<=|>|<)\s*({number})\s*", text)
    if found is None:
        raise ConfigError(
            f"fail-if must be NAME OP NUMBER as 'p > 1e-4', with a name of "
            f"{names.replace('|', ', ')} and an operator of >, >=, <, <=; got {text!r}."
        )
    return GateRule(found[1], found[2], float(found[3]))


def check_gate(
    runs: Sequence[Run], compared: Comparison, rules: Sequence[GateRule], decades: float | None
) -> list[Finding]:
    """What all rules find of the last run.

    Args:
        runs: The runs, the one that is to pass last.
        compared: Their comparison.
        rules: What makes the last run fail.
        decades: By how much its mean risk may lie above the first's; None to leave that out.

    Raises:
        ConfigError: If there is nothing to be worse than.
    """
    findings = [apply_rule(rule, runs[-1], compared.models[-1]) for rule in rules]
    if decades is not None:
        if len(runs) < 2:
            raise ConfigError("fail-if-worse needs two runs: the one before, and the one now.")
        findings.append(worse_than(compared.models[0], compared.models[-1], decades))
    return findings


def apply_rule(rule: GateRule, run: Run, model: Model) -> Finding:
    """Whether a run fails by a rule.

    A query without a hit has no p: it does not fail by it, and is said to be not shown to pass
    where its upper end would fail.

    Args:
        rule: The rule.
        run: The run.
        model: The same in the comparison, for the mean and the largest risk.
    """
    if rule.name in OF_RUNS:
        return _of_run(rule, run, model)
    values = [(one, getattr(one, rule.name)) for one in run.risks]
    bad = [(one, value) for one, value in values if value is not None and rule.holds(value)]
    open_ = [one for one, value in values if value is None and rule.holds(one.ceiling)]
    if not bad:
        return Finding(str(rule), False, f"{run.name}: true of no query{_unshown(open_)}.")
    one, value = max(bad, key=lambda pair: pair[1] if rule.sign[0] == ">" else -pair[1])
    sentence = (
        f"{run.name}: true of {len(bad)} of {len(values)} queries; {one.query_id} has "
        f"{rule.name} = {value:.3g}{_unshown(open_)}."
    )
    return Finding(str(rule), True, sentence)


def _of_run(rule: GateRule, run: Run, model: Model) -> Finding:
    value = model.largest if rule.name == "max" else getattr(model, rule.name)
    if value is None:
        loose = [one for one in run.risks if rule.holds(one.ceiling)]
        return Finding(str(rule), False, f"{run.name} has no hit{_unshown(loose)}.")
    failed = rule.holds(value)
    return Finding(str(rule), failed, f"{run.name} has {rule.name} = {value:.3g}.")


def _unshown(queries: list[QueryRisk]) -> str:
    if not queries:
        return ""
    return (
        f"; {len(queries)} without a hit are not shown to pass (that of {queries[0].query_id} "
        f"may be up to {queries[0].ceiling:.2g}): draw more, or gate on ci_high"
    )


def worse_than(first: Model, last: Model, decades: float) -> Finding:
    """Whether the last run's mean risk is more than so many decades above the first's.

    A first run without hits stands at its upper end; a last one without hits does not fail.

    Args:
        first: What was before.
        last: What is now.
        decades: Allowed rise of log10 of the mean risk, at least 0.

    Raises:
        ConfigError: If it is negative.
    """
    if not 0 <= decades < math.inf:
        raise ConfigError(f"fail-if-worse must be at least 0 decades, got {decades:g}.")
    rule = f"worse by {decades:g} decades"
    before = first.mean or first.mean_high
    if last.mean is None:
        sentence = f"{last.run} has no hit; its mean risk may be up to {last.mean_high:.2g}."
        return Finding(rule, False, sentence)
    rise = math.log10(last.mean / before)
    known = "" if first.mean else " at most (it has no hit)"
    sentence = (
        f"mean risk of {last.run} is {last.mean:.3g}, {rise:+.2f} decades from the "
        f"{before:.3g}{known} of {first.run}."
    )
    return Finding(rule, rise > decades, sentence)
