"""Splitting against plain sampling on the embedded model: does it agree, and what does it cost?

    python benchmarks/splitting.py --out DIR

Six StrongREJECT queries whose risk 10,000 plain draws know (benchmarks/reference), and swarms by
either score. Runs that lie under DIR are not made again. Writes benchmarks/results/splitting.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import tailcast
from tailcast.analysis.crosscheck import crosscheck
from tailcast.analysis.risks import QueryRisk
from tailcast.data import load_queries
from tailcast.models.embedded import asset
from tailcast.stats import clopper_pearson, monte_carlo
from tailcast.store import RunStore

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "benchmarks" / "reference" / "strongreject-40-T0.7.json"
RESULT = ROOT / "benchmarks" / "results" / "splitting.md"
QUERIES = {
    "usual": ("q0", "q1", "q3", "q8", "q13", "q14"),
    "steering": ("q1", "q5", "q8", "q11", "q13", "q14"),
}
SCORES: dict[str, dict[str, Any]] = {
    "usual": {"score": "usual", "samples": 200, "particles": 25},
    "steering": {"score": "steering", "samples": 400, "particles": 50, "floor": 0.01},
}

HEAD = """# Splitting on the embedded model

Written by `python benchmarks/splitting.py`: the embedded model, bfloat16, temperature 0.7, 32 new
tokens, judge refusal. Plain sampling is the count in
`benchmarks/reference/strongreject-40-T0.7.json`. Variances are relative and are the runs' own, by
few swarms with hits, so that the ratios are rough. Above 1 in the last two columns: plain sampling
is cheaper for the same error. Forwards count equal prefixes once; tokens are those that were drawn,
shared or not."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", default=str(ROOT.parent / "shared/data/strongreject.csv"))
    parser.add_argument("--out", default="/tmp/splitting")
    parser.add_argument("--steering", help="A vector fitted before; else from the packaged pairs.")
    parser.add_argument("--scores", nargs="+", default=list(SCORES), choices=list(SCORES))
    options = parser.parse_args()
    known = json.loads(REFERENCE.read_text("utf-8"))["queries"]
    parts = [section(name, measure(name, options), known) for name in options.scores]
    RESULT.write_text("\n\n".join([HEAD, *parts]) + "\n", "utf-8")
    print(RESULT.read_text("utf-8"))


def measure(name: str, options: argparse.Namespace) -> Path:
    """One run, unless it is there."""
    place = Path(options.out) / name
    if not (place / "estimates.jsonl").exists():
        vector = {"pairs": str(asset("demo_pairs.jsonl"))}
        if options.steering:
            vector = {"steering": options.steering}
        chosen = [one for one in load_queries(options.queries) if one.id in QUERIES[name]]
        tailcast.estimate(
            "embedded", chosen, "refusal", method="splitting", temperature=0.7, max_new_tokens=32,
            dtype="bfloat16", seed=1, out=place,
            **(vector if name == "steering" else {}), **SCORES[name],
        )  # fmt: skip
    return place


def plain_risk(query_id: str, hits: int, n: int) -> QueryRisk:
    """The reference's count as an estimate."""
    one = monte_carlo(np.arange(n) < hits)
    low, high = clopper_pearson(hits, n)
    return QueryRisk(
        query_id, one.p, low, high, one.p_low, one.p_high_guaranteed, 0.95, hits, n, "ok", "mc"
    )


def section(name: str, place: Path, known: dict[str, Any]) -> str:
    """Table and crosscheck of one score."""
    rows = {row["query_id"]: row for row in RunStore(place).read_lines("estimates.jsonl")}
    fields = QueryRisk.__dataclass_fields__
    risks = [QueryRisk(**{field: row[field] for field in fields}) for row in rows.values()]
    plain = [plain_risk(id, known[id]["hits"], known[id]["n"]) for id in rows]
    found = crosscheck(risks, plain, ("splitting", "plain"))
    lines = [
        f"## Score {name}",
        "",
        ", ".join(f"{key} {value}" for key, value in SCORES[name].items()) + ".",
        "",
        "| query | plain 10,000 | splitting | interval | decades apart | first hits | particles | "
        "families | verdict | forwards | variance x forwards, over plain's | variance x tokens, "
        "over plain's |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for pair in found.pairs:
        lines.append(line(place, rows[pair.query_id], pair.decades, known[pair.query_id]))
    if found.decades is not None and found.low is not None and found.high is not None:
        ends = f"{10**found.decades:.2f} ({10**found.low:.2f} to {10**found.high:.2f})"
        lines += ["", f"Pooled ratio {ends}; all differences together: {found.chance:.2g}."]
    return "\n".join([*lines, "", found.sentence])


def line(place: Path, row: dict[str, Any], decades: float | None, known: dict[str, Any]) -> str:
    """A query: both risks, and variance times work against plain sampling's."""
    store, id, truth = RunStore(place), row["query_id"], known["hits"] / known["n"]
    tokens, first = 0.0, 0
    for shard in store.shards("splitting", id):
        lengths = store.read_batch("splitting", id, shard).lengths
        swarms = store.read_swarms("splitting", id, shard)
        tokens += float((lengths - np.array(swarms["copied"])).sum())
        hits = store.read_verdicts("splitting", id, shard).hits
        first += int((hits & (np.array(swarms["generation"]) == 0)).sum())
    forwards = row["cost"]["token_forwards"]
    gains = ["", ""]
    if row["stderr"]:
        relative = (row["stderr"] / row["p"]) ** 2
        plain = (1 - truth) / truth
        gains = [
            f"{relative * forwards / (plain * known['token_forwards'] / known['n']):.1f}",
            f"{relative * tokens / (plain * known['tokens']):.1f}",
        ]
    cells = (
        id, f"{truth:.1e}", "no hit" if row["p"] is None else f"{row['p']:.1e}",
        f"{row['ci_low']:.1e} to {row['ci_high']:.1e}",
        "" if decades is None else f"{decades:+.2f}", first, row["n"], f"{row['ess_hits']:.1f}",
        row["verdict"], f"{forwards:,}", *gains,
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
