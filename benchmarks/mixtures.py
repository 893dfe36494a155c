"""Mixtures, the paper's method and one defended proposal against 10,000 plain draws a query.

    python benchmarks/mixtures.py --queries ../shared/data/strongreject.csv --out DIR

Runs what is missing of it under DIR (about two hours on two cores), reads what is there, and
writes benchmarks/results/mixtures.md. The plain draws' hit counts lie under
benchmarks/reference/, with the command that made them; `--count REF` writes them from its run.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as compute
from pyarrow import parquet

import tailcast
from tailcast.models.embedded import asset
from tailcast.proposals import Proposal
from tailcast.store import RunStore

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "mixtures.md"
RUNS = [
    ("mixture", "0.7", (11,), 1000),
    ("paper", "0.7", (11,), 1000),
    ("defended", "0.7", (11,), 1000),
    ("mixture", "1.0", (11,), 1000),
]
DECADES = [(1e-2, 1.0), (1e-3, 1e-2), (1e-4, 1e-3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", default=str(ROOT.parent / "shared/data/strongreject.csv"))
    parser.add_argument("--out", default="/tmp/mixtures")
    parser.add_argument("--count", type=Path, help="run of plain draws to make a reference of")
    options = parser.parse_args()
    if options.count:
        count(options.count)
        return
    rows = []
    for method, temperature, seeds, samples in RUNS:
        known = reference(temperature)
        for seed in seeds:
            place = Path(options.out) / f"{method}-{temperature}-{seed}"
            if not (place / "estimates.jsonl").exists():
                measure(options.queries, method, temperature, seed, place, samples)
            rows += compared(method, temperature, place, known)
    RESULT.write_text(page(rows), "utf-8")
    print(RESULT.read_text("utf-8"))


def count(place: Path) -> None:
    """Write hits, draws and cost of plain sampling under benchmarks/reference/."""
    store, lines = RunStore(place), []
    manifest = store.read_json("manifest.json") or {}
    config = manifest["config"]
    rows = store.read_lines("estimates.jsonl")
    for row in rows:
        id = row["query_id"]
        batches = [store.read_batch("mc", id, shard) for shard in store.shards("mc", id)]
        mean = sum(int(one.lengths.sum()) for one in batches) / sum(map(len, batches))
        facts = {
            "hits": row["n_hits"], "n": row["n"],
            "token_forwards": row["cost"]["token_forwards"], "tokens": round(mean, 3),
        }  # fmt: skip
        lines.append(f'  "{id}": {json.dumps(facts)}')
    heat, samples = config["temperature"], config["samples"]
    command = (
        "tailcast estimate --model embedded --queries ../shared/data/strongreject.csv "
        f"--limit {len(rows)} --judge refusal --samples {samples} --temperature {heat} "
        f"--max-new-tokens {config['max_new_tokens']} --seed {config['seed']} "
        f"--dtype {config['dtype']} --out REF"
    )
    body, model = ",\n".join(lines), json.dumps(manifest["facts"]["model"])
    head = f'"command": {json.dumps(command)},\n "model": {model}'
    text = f'{{\n {head},\n "queries": {{\n{body}\n }}\n}}\n'
    name = f"strongreject-{len(rows)}-T{heat}.json"
    (ROOT / "benchmarks" / "reference" / name).write_text(text, "utf-8")


def reference(temperature: str, queries: int = 40) -> dict[str, Any]:
    """Hits, draws and cost of plain sampling, by query."""
    path = ROOT / "benchmarks" / "reference" / f"strongreject-{queries}-T{temperature}.json"
    known: dict[str, Any] = json.loads(path.read_text("utf-8"))["queries"]
    return known


def measure(
    queries: str, method: str, temperature: str, seed: int, place: Path, samples: int
) -> None:
    """One run of so many draws a query (in the mixture: of what those would cost)."""
    own: dict[str, Any] = {"pairs": str(asset("demo_pairs.jsonl")), "method": method}
    if method == "defended":
        chosen = place.parent / f"paper-{temperature}-{seed}"
        record = json.loads((chosen / "selection.json").read_text("utf-8"))
        phi = next(iter(record["proposals"].values()))
        own = {
            "method": "mixture",
            "proposal": ",".join(f"{one:g}" for one in phi[:3]),
            "steering": str(chosen / "steering.safetensors"),
        }
    tailcast.estimate(
        "embedded", queries, "refusal", limit=40, samples=samples, max_new_tokens=32,
        temperature=float(temperature), seed=seed, dtype="bfloat16", out=place, **own,
    )  # fmt: skip


def compared(method: str, temperature: str, place: Path, known: dict[str, Any]) -> list[Any]:
    """A record for every query of a run."""
    audits = json.loads((place / "audit.json").read_text("utf-8"))
    rows = []
    for line in (place / "estimates.jsonl").read_text("utf-8").splitlines():
        one = json.loads(line)
        plain = known[one["query_id"]]
        truth = plain["hits"] / plain["n"]
        noise = truth * (1 - truth) / plain["n"]
        p, stderr = one["p"] or 0.0, one["stderr"] or 0.0
        variance = truth * (1 - truth)  # of one plain draw
        spread, joint = max(stderr**2, 1e-30), stderr**2 + noise
        rows.append({
            "method": method, "temperature": temperature, "run": place.name, "truth": truth,
            "query": one["query_id"], "p": p, "verdict": one["verdict"],
            "z": (p - truth) / np.sqrt(joint), "joint": joint,
            "agree": one["ci_low"] <= truth + 1.96 * np.sqrt(noise)
            and one["ci_high"] >= truth - 1.96 * np.sqrt(noise),
            "draws": variance / (spread * one["n"]),
            "tokens": variance * plain["tokens"] / (spread * tokens(place, one["query_id"])),
            "made": variance * plain["token_forwards"] / plain["n"]
            / (spread * one["cost"]["token_forwards"]),
            "audit": audits[0] if audits else None,
        })  # fmt: skip
    return rows


def tokens(place: Path, query_id: str) -> float:
    """Forwards of a query's draws if each were made alone, both streams, scoring of hits too."""
    total = 0.0
    for path in sorted((place / "samples").glob(f"*/{query_id}/*.parquet")):
        table = parquet.read_table(path, partitioning=None)
        total += compute.sum(compute.list_value_length(table["tokens"])).as_py()
        names = ("strength", "switch", "mix", "heat", "kind")
        proposals = [Proposal(*phi) for phi in zip(*(table[name].to_pylist() for name in names),
                                                   strict=True)]  # fmt: skip
        switch = np.array([
            one.steered_tokens if other_pass(one.strength, one.kind) else 0 for one in proposals
        ])  # fmt: skip
        lengths = compute.list_value_length(table["tokens"]).to_numpy()
        total += float(np.minimum(lengths, switch).sum())
    for path in sorted((place / "scores").glob(f"*/{query_id}/*.parquet")):
        table = parquet.read_table(path, partitioning=None)
        facts = table.schema.metadata
        passes = {other_pass(one[0], one[2]) for one in json.loads(facts[b"streams"])}
        streams = 1 + len(passes - {""})
        lengths = np.array(table["length"].to_pylist() or [0])
        total += streams * float(np.minimum(lengths, int(facts[b"tokens"])).sum())
    return total


def other_pass(strength: float, kind: str) -> str:
    """Names the forward pass that a stream reads besides the target's; empty without one."""
    inner = kind.split(":", 2)[2] if kind.startswith("tilt:") else kind
    own = strength or inner.startswith(("prompt:", "adapter:", "model:"))
    return f"{inner} {strength:g}" if own else ""


def agreed(rows: list[Any]) -> str:
    """How many intervals agree with the reference."""
    return f"{sum(one['agree'] for one in rows)} of {len(rows)}"


def decades(head: str, rows: list[Any]) -> list[str]:
    """Lines of a table, one for each decade of risk; after the head what holds for all rows."""
    lines, columns = [], head.count("|") - 1
    good = [one for one in rows if one["verdict"] == "ok"]
    z = np.array([one["z"] for one in rows])
    audits = {one["run"]: one["audit"] for one in rows if one["audit"]}.values()
    said = ", ".join(f"{one['low']:.2f} to {one['high']:.2f}" for one in audits) or "none"
    facts = (
        f"{agreed(rows)} | {agreed(good)} | {z.mean():.2f}, {z.std():.2f} | {whole(rows)} | {said}"
    )
    for low, high in DECADES:
        some = [one for one in rows if low <= one["truth"] < high and one["p"] > 0]
        if some:
            units = ("draws", "tokens", "made")
            medians = (float(f"{np.median([one[unit] for one in some]):.2g}") for unit in units)
            gains = " | ".join(f"{gain:g}" for gain in medians)
            alone = sorted(one["tokens"] for one in some)
            below = f"{sum(gain < 0.7 for gain in alone)}, {alone[0]:.2g}"
            lines.append(
                f"{head} {facts} | {low:g} to {high:g} | {len(some)} | {gains} | {below} |"
            )
            head, facts = "| " * columns + "|", "| | | |"
    return lines


def whole(rows: list[Any]) -> str:
    """The risks of all queries together, in those of the reference, and its joint error."""
    truth = sum(one["truth"] for one in rows)
    error = np.sqrt(sum(one["joint"] for one in rows)) / truth
    return f"{sum(one['p'] for one in rows) / truth:.2f} ± {error:.2f}"


def page(rows: list[Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# Mixtures against 10,000 plain draws of 40 StrongREJECT queries",
        "",
        "Made by `python benchmarks/mixtures.py`: the embedded model in bfloat16, 32 new tokens, "
        "judge `refusal`, `samples` draws a query (`mixture` and `defended`: what so many draws of "
        "the first round would cost). `agree`: joint 95% intervals, of all and of those flagged "
        "ok. `z`: "
        "distance over joint standard error, mean and sd. `sum`: all risks together over those of "
        "the reference, joint error. `audit`: the target's draws in the run over what the others "
        "foretold. `gain`: variance of plain sampling over "
        "that of the method, by its own standard error, which `z` bears out: per draw; per token "
        "forward if every draw were made alone (`tokens`: both streams, and scoring of hits under "
        "every stream); and per forward that tailcast makes, equal prefixes once (`made`: refusals "
        "are alike, and 10,000 plain draws of these queries cost little more than 1,000). The "
        "pilot of `paper` is in neither. Medians over queries; `below 0.7`: queries whose gain per "
        "token is less than that, and the least gain.",
        "",
        "| method | T | samples | agree, all | ok | z | sum | audit | risk | queries | gain, draws "
        "| tokens | made | below 0.7 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, temperature, _, samples in RUNS:
        mine = [one for one in rows if (one["method"], one["temperature"]) == (method, temperature)]
        lines += decades(f"| {method} | {temperature} | {samples} |", mine)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
