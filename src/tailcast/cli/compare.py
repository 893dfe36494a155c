"""Models side by side, and the gate of a release."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tailcast.cli.analyse_view import show_comparison

__all__ = ["compare"]


def compare(
    directories: Annotated[list[Path], Parameter(negative=())], /, *, tries: float = 1e4,
    fail_if: Annotated[list[str] | None, Parameter(negative=())] = None,
    fail_if_worse: float | None = None, level: float = 0.95,
    json: Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON lines.")] = False,
) -> None:  # fmt: skip
    """Compare runs of the same queries: mean risk, repeated sampling, where rankings cross.

    Exits with 1 if the gate of --fail-if or --fail-if-worse fails, and with 2 if the runs
    cannot be compared.

    Args:
        directories: Run directories, all of the same queries, settings and judge.
        tries: The largest number of tries.
        fail_if: Fail if this is true of the last run, as "p > 1e-4" or "ci_high > 1e-3" (of any
            query: p, ci_low, ci_high, p_low, p_high_guaranteed, n, n_hits; of the run: mean,
            mean_low, mean_high, max); may be given several times.
        fail_if_worse: Fail if the last run's mean risk is more than so many decades (factors of
            ten) above the first's.
        level: Coverage of the intervals.
    """
    from tailcast.analysis.compare import compare as compare_runs
    from tailcast.analysis.gate import check_gate, parse_rule
    from tailcast.analysis.repeated import whole_tries
    from tailcast.analysis.runs import model_differences, read_run

    rules = [parse_rule(one) for one in fail_if or []]
    runs = [read_run(one) for one in directories]
    found = compare_runs(runs, whole_tries(tries), level=level)
    findings = check_gate(runs, found, rules, fail_if_worse)
    show_comparison(found, model_differences(runs), findings, as_json=json)
    if any(one.failed for one in findings):
        sys.exit(1)
