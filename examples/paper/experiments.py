"""The five experiments of Angell et al. 2026 (arXiv 2604.22167), one command each.

    python examples/paper/experiments.py repeated --model llama-3.2-1b --behaviour harm
    python examples/paper/experiments.py is-vs-mc --model embedded
    python examples/paper/experiments.py table

Each prints the tailcast commands that it stands for, then its result, and keeps the result beside
its runs, where ``table`` collects all of them. Run it from the repository's root.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from study import BEHAVIOURS, MODELS, SCALES, Study, measure, steering, verb
from tables import Result, errors_of, markdown, write_table

from tailcast.config import make_config
from tailcast.data import read_rows
from tailcast.errors import TailcastError
from tailcast.models.embedded import asset
from tailcast.proposals import Proposal
from tailcast.store import RunStore

__all__ = ["EXPERIMENTS", "run_experiment"]

_PROPOSAL_NOTES = [
    "`plain mse`: of as many plain draws. It is owned by the riskiest queries and by the luck of "
    "few draws: a proposal that misses ways to hit can look good in it, as decades off and the "
    "overlap of intervals show."
]


def repeated(study: Study) -> Result:
    """Share of queries with at least one hit: greedy, then after ever more samples."""
    measure(study)
    measure(study, "greedy", method="mc", top_k=1, samples=1, monte_carlo=0)
    words = ["analyse", "repeated", str(study.out), "--tries", "1e4"]
    points = _lines([*words, "--greedy", str(study.beside("greedy")), "--json"])
    last = {one["route"]: one for one in points}
    ladder = [one for one in points if one is last[one["route"]] or _decade(one["tries"])]
    names = {"greedy": "greedy", "draws": "counted", "risks": "by 1 - (1 - risk)^n"}
    rows = [
        [names[one["route"]], f"{one['tries']:,}", _share(one["share"]),
         f"{_share(one['low'])} .. {_share(one['high'])}"]
        for one in ladder
    ]  # fmt: skip
    numbers = {"greedy": last["greedy"]["share"] or 0.0, "after_10000": last["risks"]["share"]}
    if "draws" in last and last["draws"]["tries"] >= 10_000:
        numbers["after_10000"] = last["draws"]["share"]
    return Result(("by", "samples", "share of queries hit", "95% band"), rows, numbers)


def is_vs_mc(study: Study) -> Result:
    """Importance sampling against brute force, on the same queries."""
    found = _by_method(measure(study))
    chosen, plain = found["is"], found["mc"]
    rows = [
        [one["query_id"], *_estimate(one), *_estimate(other), one["verdict"]]
        for one, other in zip(chosen, plain, strict=True)
    ]
    error = errors_of(chosen, plain)
    numbers = {"mean_mc": _mean(plain), "mean_is": _mean(chosen), "mse": error.mse}
    audit = (RunStore(study.out).read_json("audit.json") or [{}])[0]
    notes = [
        f"Mean risk {numbers['mean_is']:.2e} by importance sampling, {numbers['mean_mc']:.2e} by "
        f"plain sampling. {error.sentence}",
        f"Audit: {audit.get('sentence', 'there is none')}.",
    ]
    head = ("query", "is", "draws", "95%", "mc", "draws", "95%", "verdict of is")
    return Result(head, rows, numbers, notes)


def proposals(study: Study) -> Result:
    """Mean squared error by the choice of the proposal, at the draws of the config."""
    found = _by_method(measure(study))
    config = make_config(study.fields)
    grid, random = config.grid, np.random.default_rng(config.seed)
    strongest = Proposal(max(grid.strengths), max(grid.switches), min(grid.mixes))
    rivals = {"strongest of the grid": strongest}
    for number in range(study.scale.rivals):
        rivals[f"random {number + 1}"] = grid.draw(random.random())
    runs = {f"cross-entropy, {_chosen(study)}": found["is"]}
    for number, (name, one) in enumerate(rivals.items()):
        values = f"{one.strength},{one.switch},{one.mix:.6g}"
        changes = {"proposal": values, "monte_carlo": 0, "seed": config.seed + 1 + number}
        runs[f"{name}, {one}"] = measure(study, f"proposal-{number}", **changes)
    usual: dict[str, Any] = {"strengths": (0.1, 0.2, 0.3, 0.5, 0.75, 1.0), "switches": (2, 4, 8)}
    runs["tailcast's mixture"] = measure(
        study, "mixture", method="mixture", monte_carlo=0, **usual
    )  # fmt: skip
    rows = [[name, *errors_of(rows, found["mc"]).cells()] for name, rows in runs.items()]
    head = ("proposal", "draws", "hits", "mse", "plain mse / mse", "median decades off", "overlap")
    return Result(head, rows, {}, _PROPOSAL_NOTES)


def paraphrases(study: Study) -> Result:
    """How far the risk of a query moves when it is said in other words."""
    found = json.loads(verb(["analyse", "sensitivity", str(_reworded(study)), "--json"]))
    rows = []
    for one in found["bases"]:
        spread, worst = f"{one['spread']['value']:.1f}", one["worst"]
        cells = [one["base"], f"{one['queries']}", f"{one['unhit']}", f"{one['typical']:.1e}"]
        last = [worst["query_id"], *_interval(worst), worst["verdict"]] if worst else ["none"] * 4
        rows.append([*cells, spread, f"{one['shown']:.1f}", *last])
    share = (found["share_within"] or {}).get("value")
    within = found["within"]["value"]
    notes = [f"Standard deviation within a base query: {within:.2f} decades."]
    notes += [f"The wording's share of the variance of log risk: {share:.0%}."] if share else []
    spread = max(one["spread"]["value"] for one in found["bases"])
    head = ("base", "wordings", "no hit", "typical", "spread, decades", "shown by bounds alone")
    head += ("worst", "risk", "95%", "verdict")
    return Result(head, rows, {"widest_spread": spread}, notes)


def forecasts(study: Study) -> Result:
    """A random 30% of the queries foretell the largest and the mean risk of the other 70%."""
    words = ["analyse", "forecast", str(_reworded(study))]
    scores = _lines([*words, "--splits", str(study.scale.splits), "--json"])
    rows = [
        [one["by"], one["method"], str(one["splits"]),
         *(f"{one[part][name]:.2f}" if one[part] else ""
           for part in ("worst", "mean") for name in ("error", "bias", "covered"))]
        for one in scores
    ]  # fmt: skip
    parts = [
        f"{part}: {what}" for part in ("worst", "mean") for what in ("error", "bias", "covered")
    ]
    notes = ["Errors in decades; the intervals aim at 90%.", "The paper splits by query."]
    return Result(("split by", "method", "splits", *parts), rows, {}, notes)


EXPERIMENTS: dict[str, Callable[[Study], Result]] = {
    "repeated": repeated,
    "is-vs-mc": is_vs_mc,
    "proposals": proposals,
    "paraphrases": paraphrases,
    "forecasts": forecasts,
}


def run_experiment(name: str, study: Study) -> Result:
    """Run one, and keep its result beside its runs."""
    begun = time.perf_counter(), time.process_time()
    steering(study)
    result = EXPERIMENTS[name](study)
    spent = time.perf_counter() - begun[0], time.process_time() - begun[1]
    study.out.parent.mkdir(parents=True, exist_ok=True)
    record = result.record() | {"experiment": name, "study": study.name, "seconds": spent}
    study.beside(f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return result


def _reworded(study: Study) -> Path:
    """The run of all wordings, by the proposal that the main run chose."""
    measure(study)
    file = study.beside("wordings.jsonl")
    if not file.is_file():
        file.write_text("".join(json.dumps(row) + "\n" for row in _wordings(study)), "utf-8")
    draws = study.scale.draws or study.fields.get("samples", 500)
    changes = {"queries": str(file), "limit": None, "monte_carlo": 0, "samples": draws}
    chosen = _chosen(study)
    if chosen.is_target:
        measure(study, "wordings", method="mc", **changes)
    else:
        values = f"{chosen.strength},{chosen.switch},{chosen.mix:.6g}"
        measure(study, "wordings", proposal=values, **changes)
    return study.beside("wordings")


def _wordings(study: Study) -> list[dict[str, Any]]:
    """Base queries and their paraphrases: the shipped ones, or made by the model itself."""
    if study.name == "embedded/harm":
        source = asset("paraphrases.jsonl")
    else:
        source = study.beside("paraphrases.jsonl")
        fields, n = study.fields, str(study.scale.wordings - 1)
        words = ["paraphrase", fields["queries"], "--model", fields["model"], "--n", n]
        print(verb([*words, "--out", str(source)]))
    groups: dict[str, list[dict[str, Any]]] = {}
    for _, row in read_rows(source):
        groups.setdefault(str(row["id"]).split("/")[0], []).append(row)
    some = list(groups.values())[: study.scale.bases]
    return [row for group in some for row in group[: study.scale.wordings]]


def _chosen(study: Study) -> Proposal:
    """The proposal that the main run chose for all queries."""
    record = RunStore(study.out).read_json("selection.json") or {}
    return Proposal(*next(iter(record["proposals"].values())))


def _lines(words: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in verb(words).splitlines()]


def _by_method(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Estimates by method; "is" are plain ones where the pilot gave up."""
    plain = [row for row in rows if row["method"] == "mc"]
    return {"mc": plain, "is": [row for row in rows if row["method"] != "mc"] or plain}


def _mean(rows: list[dict[str, Any]]) -> float:
    return float(np.mean([row["p"] or 0.0 for row in rows]))


def _estimate(row: dict[str, Any]) -> list[str]:
    risk, interval = _interval(row)
    return [risk, f"{row['n']:,}", interval]


def _interval(row: dict[str, Any]) -> list[str]:
    return [_number(row["p"]), f"{row['ci_low']:.1e} .. {row['ci_high']:.1e}"]


def _number(value: float | None) -> str:
    return "no hit" if value is None else f"{value:.2e}"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"


def _decade(number: int) -> bool:
    return str(number).strip("0") == "1"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=[*EXPERIMENTS, "table"])
    parser.add_argument("--model", choices=[*MODELS, "embedded"], default="embedded")
    parser.add_argument("--behaviour", choices=BEHAVIOURS, default="harm")
    parser.add_argument(
        "--scale", choices=SCALES, help="small if the model is embedded, else paper"
    )
    parser.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("FIELD", "VALUE"),
        help="another value of a field of the run, as JSON or as it is",
    )  # fmt: skip
    parser.add_argument("--write", type=Path, help="table: also write it to this file")
    options = parser.parse_args()
    try:
        if options.experiment == "table":
            print(write_table(Path("runs"), options.write))
            return
        scale = options.scale or ("small" if options.model == "embedded" else "paper")
        changes = {name: _value(text) for name, text in options.set}
        study = Study.of(options.model, options.behaviour, scale, changes)
        print("\n" + markdown(run_experiment(options.experiment, study)))
    except TailcastError as error:
        sys.exit(f"experiments: {error}")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    main()
