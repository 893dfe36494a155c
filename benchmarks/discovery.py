"""Are all ways to fail found, or does a run say that it may have missed one?

    python benchmarks/discovery.py --runs 500

A tabular model with three disjoint ways to fail, of which the steering vector sees one. Every run
is a whole `tailcast.estimate`; the exact risk of each way is known. Writes
benchmarks/results/discovery.md.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import tailcast
from tailcast.analysis.explain import explain
from tailcast.store import RunStore

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "discovery.md"
STEPS, WAYS = 4, ("3", "4", "5")
STREAMS: dict[str, dict[str, Any]] = {
    "steering, heats, openings of hits": {},
    "steering and heats": {"openings": False},
    "steering alone": {"heats": (), "openings": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--samples", type=int, default=3000)
    options = parser.parse_args()
    target, query = world(), tailcast.Query.user("q", "hello")
    risks = {w: target.exact_risk(query, lambda text, w=w: w in ways(text), STEPS) for w in WAYS}
    truth = target.exact_risk(query, lambda text: bool(ways(text)), STEPS)
    rows = {
        name: [one_run(target, query, seed, options.samples, truth, more)
               for seed in range(options.runs)]
        for name, more in STREAMS.items()
    }  # fmt: skip
    RESULT.write_text(page(rows, risks, options), "utf-8")
    print(RESULT.read_text("utf-8"))


def world() -> tailcast.TabularTarget:
    """Twelve tokens; saying 3, 4 or 5 twice is a failure, and steering raises 3."""
    rng = np.random.default_rng(3)
    table = rng.normal(size=(STEPS, 12, 12))
    table[:, :, 3:6] -= 3.5
    shift = np.zeros_like(table)
    shift[:, :, 3] = 3.0
    return tailcast.TabularTarget(table, shift)


def ways(text: str) -> list[str]:
    """The ways in which a completion fails."""
    return [way for way in WAYS if text.split().count(way) >= 2]


def one_run(
    target: tailcast.TabularTarget, query: tailcast.Query, seed: int, samples: int, truth: float,
    more: dict[str, Any],
) -> dict[str, float]:  # fmt: skip
    """Whether a run found all ways, whether it warns, and whether its interval holds the truth."""
    unit = tailcast.SteeringVector("add", 0, np.ones(1, np.float32))
    with TemporaryDirectory() as place:
        (one,) = tailcast.estimate(
            target, [query], lambda query, text: float(bool(ways(text))), steering=unit,
            samples=samples, max_new_tokens=STEPS, switches=(2, 4), seed=seed, out=place, **more,
        )  # fmt: skip
        store = RunStore(place)
        found = {way for hit in explain(store, "q").hits for way in ways(hit.text)}
        fired = any(each["fires"] for each in audits(store))
    warned = one.verdict != "ok" or fired
    return {
        "all": len(found) == 3, "warned": warned, "either": len(found) == 3 or warned,
        "covers": one.ci_low <= truth <= one.ci_high, "ratio": (one.p or 0.0) / truth,
    }  # fmt: skip


def audits(store: RunStore) -> list[dict[str, Any]]:
    """The audits of a run."""
    found: list[dict[str, Any]] = json.loads((store.path / "audit.json").read_text("utf-8"))
    return found


def page(rows: dict[str, list[dict[str, float]]], risks: dict[str, float], options: Any) -> str:
    """The result as Markdown."""
    lines = [
        "# Three ways to fail", "",
        f"Made by `python benchmarks/discovery.py --runs {options.runs} --samples "
        f"{options.samples}`: a tabular model that fails in three disjoint ways, with exact risks "
        f"{', '.join(f'{one:.1e}' for one in risks.values())}; the steering vector sees the first. "
        "`warned`: the verdict is not ok, or the audit fires. `rmse`: root mean squared error over "
        "the risk.", "",
        "| mixture of | all found | warned | found or warned | covers | mean | rmse |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, found in rows.items():
        mean = {key: np.mean([float(one[key]) for one in found]) for key in found[0]}
        error = np.sqrt(np.mean([(one["ratio"] - 1) ** 2 for one in found]))
        lines.append(
            f"| {name} | {mean['all']:.1%} | {mean['warned']:.1%} | {mean['either']:.1%} | "
            f"{mean['covers']:.1%} | {mean['ratio']:.2f} | {error:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
