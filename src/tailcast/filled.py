"""Which settings do a preset, a behaviour and an Inspect task fill in?"""

from typing import Any

from tailcast.behaviours import judge_fields, load_behaviour, no_judge
from tailcast.errors import ConfigError

__all__ = ["PRESETS", "filled"]

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "method": "paper",
        "strengths": tuple(round(0.1 * step, 1) for step in range(1, 11)),
        "switches": tuple(range(0, 151, 5)),
        "mixes": tuple(step / 24 for step in range(25)),
        "pilot_samples": 500,
        "pilot_share": 0.1,
        "samples": 500,
        "max_new_tokens": 150,
        "temperature": 1.0,
    }
}
"""Settings of Angell et al. 2026 for harm (method.md section 8)."""


def filled(values: dict[str, Any], preset: str | None = None) -> dict[str, Any]:
    """The values with those that they imply.

    Args:
        values: Field names and values.
        preset: Name of a preset, if not the values' own.

    Raises:
        ConfigError: If there is no such preset, or behaviour and task contradict other values.
        DataError: If a behaviour is named that cannot be read.
    """
    preset = preset or values.get("preset")
    values = {name: value for name, value in values.items() if name != "preset"}
    if preset is not None and str(preset) not in PRESETS:
        raise ConfigError(f"preset {preset!r} is unknown: the presets are {', '.join(PRESETS)}.")
    return _with_task(_with_behaviour({**PRESETS.get(preset or "", {}), **values}))


def _with_behaviour(values: dict[str, Any]) -> dict[str, Any]:
    """The values with what their behaviour has: it serves as its own queries and pairs."""
    name = values.get("behaviour")
    if not isinstance(name, str):
        return values
    if values.get("task"):
        raise ConfigError("behaviour and task exclude each other: drop one of them.")
    behaviour = load_behaviour(name)
    has_model = bool(values.get("judge_model") or values.get("judge_server"))
    judge = values.get("judge") or ("trait" if values.get("judge_prompt") else None)
    filled: dict[str, Any] = {
        "queries": name, **judge_fields(behaviour, judge, has_model=has_model),
    }  # fmt: skip
    if not (judge or "judge" in filled):
        raise ConfigError(no_judge(name, behaviour))
    here = not (values.get("steering") or values.get("target_server"))
    here = here and values.get("target_engine") != "vllm"  # which fits no vectors
    if behaviour.pairs and here and values.get("method") != "mc":
        filled["pairs"] = name
    return {**filled, **values}


def _with_task(values: dict[str, Any]) -> dict[str, Any]:
    """The values with a task as queries and judge."""
    if not values.get("task"):
        return values
    name = f"inspect:{values['task']}"
    for field in ("queries", "judge", "column"):
        if values.get(field) not in (None, name):
            raise ConfigError(
                f"{field} and task exclude each other: a task brings its queries and its scorer. "
                f"For its queries alone, give queries {name!r} and a judge."
            )
    return {**values, "queries": name, "judge": name}
