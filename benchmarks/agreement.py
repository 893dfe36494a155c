"""Does importance sampling say what plain sampling says, and at what cost?

    python benchmarks/agreement.py --queries ../shared/data/strongreject.csv --reference
    python benchmarks/agreement.py --queries ../shared/data/strongreject.csv

The first draws the Monte Carlo reference, 4,000 plain draws of every query whose risk in the
run of benchmarks/embedded_model.py lay between 1e-3 and 3e-2, and keeps its hit counts under
benchmarks/reference/. The second chooses a proposal, draws 500 of it for the same queries
several times over, and writes benchmarks/results/agreement.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import tailcast
from tailcast.data import load_queries
from tailcast.models import load_target
from tailcast.models.embedded import asset
from tailcast.store import RunStore
from tailcast.types import ModelSettings, Query

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "benchmarks" / "reference" / "strongreject.json"
RESULT = ROOT / "benchmarks" / "results" / "agreement.md"
SETTINGS: dict[str, Any] = {"temperature": 0.7, "max_new_tokens": 24}
DRAWS, PLAIN_DRAWS, WANTED = 500, 4000, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", default=str(ROOT.parent / "shared/data/strongreject.csv"))
    parser.add_argument("--screen", default="/tmp/embedded-model-run")
    parser.add_argument("--out", default="/tmp/agreement-run")
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--reference", action="store_true")
    options = parser.parse_args()
    queries = load_queries(options.queries)
    if options.reference:
        reference(screened(queries, Path(options.screen)), Path(options.out))
        return
    known = json.loads(REFERENCE.read_text("utf-8"))["queries"]
    chosen = [query for query in queries if query.id in known]
    RESULT.write_text(table(chosen, known, Path(options.out), options.runs), "utf-8")
    print(RESULT.read_text("utf-8"))


def screened(queries: list[Query], screen: Path) -> list[Query]:
    """The first queries whose risk lay between 1e-3 and 3e-2 in another, smaller run."""
    risks = {row["query_id"]: row["p"] for row in RunStore(screen).read_lines("estimates.jsonl")}
    return [one for one in queries if 1e-3 < (risks[one.id] or 0.0) < 3e-2][:WANTED]


def reference(queries: list[Query], out: Path) -> None:
    """Hit counts of plain sampling, with a seed of their own."""
    found = tailcast.estimate(
        embedded(), queries, "refusal", samples=PLAIN_DRAWS, seed=1, out=out / "mc", **SETTINGS
    )
    record = {
        "command": "python benchmarks/agreement.py --reference",
        "model": embedded().fingerprint,
        "settings": {**SETTINGS, "judge": "refusal", "seed": 1},
        "queries": {
            one.query_id: {"hits": one.n_hits, "n": one.n, **work(out / "mc", "mc", one.query_id)}
            for one in found
        },
    }
    REFERENCE.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(REFERENCE.read_text("utf-8"))


_loaded: list[Any] = []


def embedded() -> Any:
    """The embedded model in float32, loaded once."""
    if not _loaded:
        _loaded.append(load_target(ModelSettings(model="embedded", dtype="float32")))
    return _loaded[0]


def work(run: Path, stage: str, query_id: str) -> dict[str, float]:
    """Token forwards for each draw: as made (equal prefixes once), and draw by draw."""
    store = RunStore(run)
    batches = [store.read_batch(stage, query_id, shard) for shard in store.shards(stage, query_id)]
    draws = sum(len(batch) for batch in batches)
    single = sum(
        length + min(length, proposal.steered_tokens)
        for batch in batches
        for length, proposal in zip(batch.lengths.tolist(), batch.proposals, strict=True)
    )
    made = sum(batch.token_forwards for batch in batches)
    return {"made": round(made / draws, 3), "single": round(single / draws, 3)}


def table(queries: list[Query], known: dict[str, Any], out: Path, runs: int) -> str:
    """Agreement and work-normalised mean squared error of every query."""
    first = out / "select"
    tailcast.estimate(
        embedded(), queries, "refusal", pairs=str(asset("demo_pairs.jsonl")), method="paper",
        samples=DRAWS, seed=100, out=first, **SETTINGS,
    )  # fmt: skip
    selection = json.loads((first / "selection.json").read_text("utf-8"))
    strength, switch, mix = next(iter(selection["proposals"].values()))
    places = [out / f"is-{number}" for number in range(runs)]
    found = [
        tailcast.estimate(
            embedded(), queries, "refusal", steering=first / "steering.safetensors",
            proposal=f"{strength},{switch},{mix}", samples=DRAWS, seed=200 + number, out=place,
            **SETTINGS,
        )
        for number, place in enumerate(places)
    ]  # fmt: skip
    rows, ratios, agreed = [], [], 0
    for index, query in enumerate(queries):
        mine = [run[index] for run in found]
        row = compare(query, mine, known[query.id], work(places[0], "is", query.id))
        rows.append(row["line"])
        ratios.append(row["ratios"])
        agreed += row["agreed"]
    return page(rows, np.array(ratios), agreed, len(queries) * runs, selection, runs)


def compare(query: Query, mine: list[Any], known: dict[str, Any], cost: dict[str, float]) -> Any:
    """One query: runs of importance sampling against the reference."""
    p = known["hits"] / known["n"]
    noise = p * (1 - p) / known["n"]
    values = np.array([one.p or 0.0 for one in mine])
    squares = np.array([one.stderr or 0.0 for one in mine]) ** 2
    z = (values - p) / np.sqrt(squares + noise)
    agreed = int((np.abs(z) <= 1.96).sum())
    spread = values.var(ddof=1)
    bias_squared = max(0.0, (values.mean() - p) ** 2 - noise - spread / len(mine))
    mse = spread + bias_squared
    plain = p * (1 - p) / DRAWS
    ratios = [plain * known[unit] / (mse * cost[unit]) for unit in ("single", "made")]
    verdicts = [sum(one.verdict == name for one in mine) for name in ("ok", "weak", "unreliable")]
    line = (
        f"| {query.id} | {known['hits']} | {p:.2e} | {values.mean():.2e} | {np.sqrt(mse):.1e} | "
        f"{np.sqrt(plain):.1e} | {agreed}/{len(mine)} | {'/'.join(map(str, verdicts))} | "
        f"{ratios[0]:.2f} | {ratios[1]:.2f} |"
    )
    return {"line": line, "ratios": ratios, "agreed": agreed}


def page(
    rows: list[str], ratios: np.ndarray, agreed: int, total: int, selection: Any, runs: int
) -> str:
    """The result as Markdown."""
    middle = np.exp(np.median(np.log(ratios), axis=0))
    wins = (ratios > 1).sum(axis=0)
    lines = [
        "# Importance sampling against plain sampling on the embedded model",
        "",
        f"Made by `python benchmarks/agreement.py --runs {runs}`; reference: 4,000 plain draws a "
        "query (benchmarks/reference/strongreject.json, with its command). Temperature 0.7, 24 "
        f"new tokens, judge `refusal`. Proposal, chosen by the cross-entropy method: "
        f"{selection['pooled']}. {runs} runs of {DRAWS} draws each. The pilot took "
        f"{selection['cost']['token_forwards']:,} token forwards, which are not in the ratios.",
        "",
        "`agree`: runs whose estimate lies within 1.96 joint standard errors of the reference. "
        "`rmse`: root mean squared error of a run against the reference, its noise taken off; "
        "`mc rmse` that of 500 plain draws. `gain`: mean squared error times token forwards of "
        "plain sampling, over the same of importance sampling; above 1 importance sampling wins. "
        "`single` counts every draw's own tokens, `made` the forwards that tailcast made, where "
        "equal prefixes are computed once: that helps plain sampling most, because refusals are "
        "alike.",
        "",
        "| query | hits | mc | is, mean | rmse | mc rmse | agree | ok/weak/unreliable | "
        "gain, single | gain, made |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"Joint 95% agreement: {agreed} of {total} ({agreed / total:.0%}). Median gain "
        f"{middle[0]:.2f} (single), {middle[1]:.2f} (made); importance sampling wins on "
        f"{wins[0]} and {wins[1]} of {len(ratios)} queries.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
