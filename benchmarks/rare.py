"""Risks of 1e-6 to 1e-4 on the embedded model: do repeated runs agree, and what do they save?

    python benchmarks/rare.py --queries ../shared/data/strongreject.csv --out DIR

The first 12 StrongREJECT queries at temperature 0.5, four runs of a mixture each, the first of
them with 1,000 plain draws beside it for their cost. Runs that lie under DIR are not made again.
The truth is counted from a million plain draws a query, under benchmarks/reference/ with the
command that made them (an hour of one core). Writes benchmarks/results/rare.md.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

import tailcast
from mixtures import ROOT, reference, tokens
from tailcast.models.embedded import asset
from tailcast.stats import clopper_pearson
from tailcast.store import RunStore

RESULT = ROOT / "benchmarks" / "results" / "rare.md"
SEEDS = (11, 12, 13, 14)
DECADES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", default=str(ROOT.parent / "shared/data/strongreject.csv"))
    parser.add_argument("--out", default="/tmp/mixtures")
    options = parser.parse_args()
    runs = []
    for seed in SEEDS:
        place = Path(options.out) / f"rare-0.5-{seed}"
        if not (place / "estimates.jsonl").exists():
            tailcast.estimate(
                "embedded", options.queries, "refusal", limit=12, samples=1000, temperature=0.5,
                max_new_tokens=32, dtype="bfloat16", seed=seed, out=place, method="mixture",
                pairs=str(asset("demo_pairs.jsonl")), monte_carlo=1000 * (seed == SEEDS[0]),
            )  # fmt: skip
        runs.append(place)
    RESULT.write_text(page(runs), "utf-8")
    print(RESULT.read_text("utf-8"))


def page(runs: list[Path]) -> str:
    """The result as Markdown."""
    found = {place: estimates(place) for place in runs}
    lines = [
        "# Risks of one in ten thousand to one in a million",
        "",
        "Made by `python benchmarks/rare.py`: the embedded model in bfloat16, the first 12 "
        f"StrongREJECT queries, temperature 0.5, 32 new tokens, judge `refusal`; {len(runs)} runs "
        "of a mixture, 1,000 draws a query (what those would cost). `mean`: over the runs. "
        "`spread`: standard deviation of the runs' estimates over that mean; `stderr`: what the "
        "runs say it is. `gain`: variance of plain draws over the runs' mean squared deviation, "
        "per draw and per token forward of draws made alone, scoring included. `plain`: hits among "
        "a million plain draws, and z of the runs' mean against them.",
        "",
        "| query | mean | spread | stderr | hits | verdicts | gain, draws | tokens | plain, z |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    known, rows = reference("0.5", queries=12), []
    for query in found[runs[0]]:
        mine = [one[query] for one in found.values()]
        p = np.array([one["p"] or 0.0 for one in mine])
        mean, variance = p.mean(), p.var(ddof=1)
        stated = np.sqrt(np.mean([(one["stderr"] or 0.0) ** 2 for one in mine]))
        plain, drawn = plain_tokens(runs[0], query)
        cost = np.mean([
            tokens(place, query) - (drawn if place == runs[0] else 0) for place in runs
        ])  # fmt: skip
        draws = np.mean([one["n"] for one in mine])
        gains = mean * (1 - mean) / variance / np.array([draws, cost / plain])
        hits, plain_draws = known[query]["hits"], known[query]["n"]
        z = (mean - hits / plain_draws) / np.sqrt(
            stated**2 / len(runs) + max(hits, 1) / plain_draws**2
        )
        rows.append((mean, *gains, variance, stated**2, hits, plain_draws, z))
        verdicts = "/".join(one["verdict"] for one in mine)
        lines.append(
            f"| {query} | {mean:.1e} | {np.sqrt(variance) / mean:.2f} | {stated / mean:.2f} | "
            f"{np.mean([one['n_hits'] for one in mine]):.0f} | {verdicts} | {gains[0]:.2g} | "
            f"{gains[1]:.2g} | {hits}, {z:.1f} |"
        )
    table = np.array(rows)
    lines.append("")
    for low, high in itertools.pairwise(DECADES):
        some = table[(table[:, 0] >= low) & (table[:, 0] < high)]
        if len(some):
            lines.append(
                f"Risks of {low:g} to {high:g}: {len(some)} queries, median gain "
                f"{np.median(some[:, 1]):.2g} (draws), {np.median(some[:, 2]):.2g} (tokens)."
            )
    ratio = np.sqrt(
        np.mean(table[:, 3] / table[:, 0] ** 2) / np.mean(table[:, 4] / table[:, 0] ** 2)
    )
    rare = table[table[:, 0] < 1e-4]
    hits, expected = int(rare[:, 5].sum()), float((rare[:, 0] * rare[:, 6]).sum())
    ends = [
        end * rare[:, 6].sum() / expected for end in clopper_pearson(hits, int(rare[:, 6].sum()))
    ]
    audits = [json.loads((place / "audit.json").read_text("utf-8"))[0] for place in runs]
    said = "; ".join(
        f"{one['observed']} against {one['expected']:.1f} ({one['low']:.2f} to {one['high']:.2f})"
        for one in audits
    )
    lines += [
        "",
        f"Spread over stated error, all queries: {ratio:.2f}.",
        "",
        f"Plain draws of the {len(rare)} queries below 1e-4, pooled: {hits} hits, {expected:.1f} "
        f"expected by the runs, ratio {hits / expected:.2f} ({ends[0]:.2f} to {ends[1]:.2f}).",
        "",
        f"Audits of the runs: {said}.",
    ]
    return "\n".join(lines) + "\n"


def estimates(place: Path) -> dict[str, Any]:
    """The mixture's estimates of a run, by query."""
    rows = RunStore(place).read_lines("estimates.jsonl")
    return {row["query_id"]: row for row in rows if row["method"] == "mixture"}


def plain_tokens(place: Path, query: str) -> tuple[float, float]:
    """Tokens of one plain draw, and of all of them."""
    store = RunStore(place)
    batches = [store.read_batch("mc", query, shard) for shard in store.shards("mc", query)]
    total = float(sum(batch.lengths.sum() for batch in batches))
    return total / sum(map(len, batches)), total


if __name__ == "__main__":
    main()
