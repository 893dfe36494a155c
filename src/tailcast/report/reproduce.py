"""Which command makes a run's numbers anew?"""

import shlex
from typing import Any

from tailcast.report.run import Run

__all__ = ["command"]


def command(run: Run) -> str | None:
    """The command line of a run, or None where it was made of objects in memory.

    It names files as they were called on the machine of the run.
    """
    if "in memory" in run.given.values():
        return None
    first = {"model": run.config.model, "queries": run.config.queries, "judge": run.config.judge}
    values = {**first, **run.given}
    samples = (run.store.read_json("finished.json") or {}).get("samples")
    if run.config.until and samples == run.config.samples:  # else at most 100,000
        values["samples"] = samples
    words = ["tailcast", "estimate"]
    for name, value in values.items():
        words += _flag(name.replace("_", "-"), value)
    return shlex.join([*words, "--out", f"{run.name}-again"])


def _flag(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if value == []:
        return [f"--empty-{name}"]
    if isinstance(value, list | tuple) and isinstance(value[0], str):  # a rule and its number
        return [f"--{name}", *map(str, value)]
    if isinstance(value, list | tuple):  # a grid: a flag for each
        return [word for one in value for word in (f"--{name}", str(one))]
    return [f"--{name}", str(value)]
