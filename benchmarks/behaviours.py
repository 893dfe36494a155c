"""The shipped behaviours on the embedded model: how rare, and what does importance sampling gain?

    python benchmarks/behaviours.py --out DIR

The first 10 queries of each behaviour, 2,000 plain draws of each, and two runs of a mixture of
300 draws with the vector that the shipped pairs give. Runs that lie under DIR are not made again.
Writes benchmarks/results/behaviours.md; --small tries it in a few minutes, and writes into DIR.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import tailcast
from tailcast.behaviours import load_behaviour, shipped_behaviours
from tailcast.store import RunStore

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "behaviours.md"
FULL = {"queries": 10, "plain": 2000, "draws": 300, "runs": 2}
SMALL = {"queries": 3, "plain": 200, "draws": 60, "runs": 2}
COUNTED = 5  # hits of the reference from which a query's error is compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="/tmp/behaviours")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    sizes = SMALL if options.small else FULL
    result = Path(options.out) / "behaviours.md" if options.small else RESULT
    parts = [section(name, Path(options.out), sizes) for name in shipped_behaviours()]
    result.write_text(page(parts, sizes), "utf-8")
    print(result.read_text("utf-8"))


def section(name: str, out: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """All runs of a behaviour, made or found, and what they say."""
    plain = estimates(measure(name, out, sizes, "mc", 0), "mc")
    places = [measure(name, out, sizes, "mixture", seed) for seed in range(1, sizes["runs"] + 1)]
    runs = [estimates(place, "mixture") for place in places]
    rows = [row(query, one, [run[query] for run in runs]) for query, one in plain.items()]
    audits = [json.loads((place / "audit.json").read_text("utf-8"))[0] for place in places]
    return {"name": name, "rows": rows, "audits": audits}


def measure(name: str, out: Path, sizes: dict[str, int], method: str, seed: int) -> Path:
    """One run, unless it is there."""
    draws = sizes["plain" if method == "mc" else "draws"]
    place = out / f"{name}-{method}-{seed}-{draws}"
    if not (place / "estimates.jsonl").exists():
        tailcast.estimate(
            "embedded", behaviour=name, limit=sizes["queries"], method=method, samples=draws,
            seed=seed, temperature=0.7, max_new_tokens=32, dtype="bfloat16", out=place,
        )  # fmt: skip
    return place


def estimates(place: Path, method: str) -> dict[str, Any]:
    """The estimates of a run, by query."""
    lines = RunStore(place).read_lines("estimates.jsonl")
    return {one["query_id"]: one for one in lines if one["method"] == method}


def row(query: str, plain: dict[str, Any], mixtures: list[dict[str, Any]]) -> dict[str, Any]:
    """A query's risk by plain draws, and the error of the mixture beside that of as many.

    The mixture's error is its mean squared deviation from the reference, less the reference's
    own variance (never below 0); that of n plain draws is p (1 - p) / n.
    """
    risk = plain["n_hits"] / plain["n"]
    found = np.array([one["p"] or 0.0 for one in mixtures])
    draws = float(np.mean([one["n"] for one in mixtures]))
    variance = risk * (1 - risk)
    missed = max(float(np.mean((found - risk) ** 2)) - variance / plain["n"], 0.0)
    cost = np.mean([one["cost"]["token_forwards"] / one["n"] for one in mixtures])
    return {
        "query": query, "risk": risk, "hits": plain["n_hits"], "n": plain["n"],
        "found": float(found.mean()),
        "stderr": float(np.mean([one["stderr"] or 0.0 for one in mixtures])),
        "squares": (missed, variance / draws), "counted": plain["n_hits"] >= COUNTED,
        "verdicts": "/".join(one["verdict"] for one in mixtures),
        "dearer": float(cost * plain["n"] / plain["cost"]["token_forwards"]),
    }  # fmt: skip


def page(parts: list[dict[str, Any]], sizes: dict[str, int]) -> str:
    """The result as Markdown."""
    lines = [
        "# The shipped behaviours", "",
        f"Made by `python benchmarks/behaviours.py`: the embedded model in bfloat16, the first "
        f"{sizes['queries']} queries of each, temperature 0.7, 32 new tokens, the behaviour's own "
        f"judge and pairs; {sizes['plain']:,} plain draws against {sizes['runs']} runs of a "
        f"mixture of {sizes['draws']} draws. `error ratio`: root mean squared error of the "
        "mixture over that of as many plain draws, both relative to the risk, over the queries "
        f"with {COUNTED} hits or more among the plain draws (the reference's own noise is taken "
        "off; 0 means that the mixture's error is lost in it). `dearer`: token forwards of a "
        "mixture's draw over those of a plain one.", "",
        "| behaviour | median risk | queries below 1e-2 | without a plain hit | compared | "
        "error ratio | dearer |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for part in parts:
        rows = part["rows"]
        risks = np.array([one["risk"] for one in rows])
        some = [one for one in rows if one["counted"]]
        squares = np.array([np.array(one["squares"]) / one["risk"] ** 2 for one in some])
        ratio = "" if not some else f"{np.sqrt(squares[:, 0].mean() / squares[:, 1].mean()):.2f}"
        lines.append(
            f"| {part['name']} | {np.median(risks):.1e} | {(risks < 1e-2).sum()} | "
            f"{(risks == 0).sum()} | {len(some)} | {ratio} | "
            f"{np.mean([one['dearer'] for one in rows]):.1f} |"
        )
    for part in parts:
        lines += ["", f"## {part['name']}", "", load_behaviour(part["name"]).description, ""]
        lines += [
            "| query | plain: hits | risk | mixture: mean | stderr | error ratio | verdicts |"
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        for one in part["rows"]:
            ratio = f"{np.sqrt(np.divide(*one['squares'])):.2f}" if one["counted"] else ""
            lines.append(
                f"| {one['query']} | {one['hits']} / {one['n']:,} | {one['risk']:.1e} | "
                f"{one['found']:.1e} | {one['stderr']:.1e} | {ratio} | {one['verdicts']} |"
            )
        said = "; ".join(
            f"{one['observed']} hits against {one['expected']:.1f} "
            f"({one['low']:.2f} to {one['high']:.2f})"
            for one in part["audits"]
        )
        lines += ["", f"Audits: {said}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
