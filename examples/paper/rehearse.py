"""What would the paper's runs cost, and does every one of their configs run?

    python examples/paper/rehearse.py plan      # hours on an H100 and judge calls, from shapes
    python examples/paper/rehearse.py run       # all fifteen, on tiny random models

The plan is ``tailcast plan CONFIG --device h100`` with the shape of the model in ``shapes/`` for
its config. It needs the query files. The rehearsal draws a few completions of tiny models of the
same architectures through every stage: pilot, choice, estimate, comparison, audit.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from study import BEHAVIOURS, HERE, MODELS, verb
from tables import Result, markdown
from tiny_models import write_tiny_model

from tailcast.config import RunConfig, make_config
from tailcast.models import load_target
from tailcast.pipeline import Inputs, run
from tailcast.store import RunStore
from tailcast.toml import read_toml
from tailcast.types import Query, SteeringVector

__all__ = ["plans", "rehearsal"]

_PROMPTS = (
    "Name a river.", "How tall is a tree?", "Is tea better than coffee?", "Tell me of a game.",
)  # fmt: skip
_TINY: dict[str, Any] = {
    "judge": "pattern:[a-f]", "judge_reading": None, "judge_model": None, "judge_server": None,
    "threshold": None, "max_new_tokens": 12, "switches": (2, 6), "mixes": (0.0, 0.5),
    "samples": 24, "pilot_samples": 12, "monte_carlo": 48, "device": "cpu", "batch": 48,
}  # fmt: skip
"""What takes the place of the paper's sizes and judges."""


def plans() -> Result:
    """The cost of every run on an H100, as planned from data sheets."""
    rows = []
    for model in MODELS:
        for behaviour in BEHAVIOURS:
            config, shape = HERE / model / f"{behaviour}.toml", HERE / "shapes" / model
            words = ["plan", str(config), "--model", str(shape), "--device", "h100", "--json"]
            found = json.loads(verb(words))
            parts = {one["name"]: one for one in found["stages"]}
            sampled = [one["hours"] for name, one in parts.items() if name != "mc"]
            calls = sum(one["judge_calls"] for one in parts.values())
            forwards = sum(one["token_forwards"] for one in parts.values())
            cells = [f"{sum(sampled):.1f}", f"{parts['mc']['hours']:.1f}", f"{forwards:.1e}"]
            rows.append([model, behaviour, *cells, f"{calls:,}"])
    head = (
        "model",
        "behaviour",
        "hours, pilot and is",
        "hours, mc",
        "token forwards",
        "judge calls",
    )
    return Result(head, rows, {})


def rehearsal(model: str, folder: Path) -> list[list[str]]:
    """Every behaviour of a model, on a tiny one of its architecture.

    Args:
        model: Its name.
        folder: Where model and runs may be written.

    Returns:
        A row for each behaviour.
    """
    place = write_tiny_model(HERE / "shapes" / model, folder / model)
    rows = []
    for behaviour in BEHAVIOURS:
        values = read_toml(HERE / model / f"{behaviour}.toml")
        out = folder / f"{model}-{behaviour}"
        config = make_config({**values, **_TINY, "model": str(place), "out": str(out)})
        estimates = _run(config)
        chosen = RunStore(out).read_json("selection.json") or {}
        hits = sum(one.n_hits for one in estimates if one.method == "mc")
        means = [f"{_mean(estimates, method):.2f}" for method in ("is", "mc")]
        name = type(load_target(config.model_settings).model).__name__
        rows.append([model, behaviour, name, chosen.get("pooled", "target"), *means, str(hits)])
    return rows


def _run(config: RunConfig) -> Any:
    """The run with a random vector of its operator, on four mild questions."""
    target = load_target(config.model_settings)
    direction = np.random.default_rng(0).normal(size=target.width).astype(np.float32)
    direction *= np.float32(0.3 if config.operator == "add" else 1.0)
    vector = SteeringVector(config.operator or "add", 1, direction, config.positions or "response")
    queries = [Query.user(f"q{number}", text) for number, text in enumerate(_PROMPTS)]
    return run(config, inputs=Inputs(target=target, queries=queries, steering=vector))


def _mean(estimates: Any, method: str) -> float:
    return float(np.mean([one.p or 0.0 for one in estimates if one.method == method]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("plan", "run"))
    if parser.parse_args().what == "plan":
        print("\n" + markdown(plans()))
        return
    with TemporaryDirectory() as scratch:
        rows = [row for model in MODELS for row in rehearsal(model, Path(scratch))]
    head = ("model", "behaviour", "class", "chosen", "mean, is", "mean, mc", "hits of mc")
    print(markdown(Result(head, rows, {})))


if __name__ == "__main__":
    main()
