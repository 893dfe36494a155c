"""All 313 StrongREJECT queries on the embedded model: both routes, forecasts, splits.

    python benchmarks/strongreject.py --queries ../shared/data/strongreject.csv --out DIR

256 plain draws of every query, and a mixture of 128 (about an hour on two cores), unless they lie
under DIR; writes benchmarks/results/strongreject.md with two figures beside it.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import tailcast
from tailcast.analysis.forecast import forecast
from tailcast.analysis.measured import read_measured
from tailcast.analysis.repeated import ShareHit, repeated_sampling
from tailcast.analysis.runs import read_run as as_analysed
from tailcast.analysis.splits import Score, split_experiment
from tailcast.models.embedded import asset
from tailcast.report import draw, read_run, save_chart

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "strongreject.md"
TRIES = (1, 2, 5, 10, 20, 50, 100, 200, 256, 1_000, 10_000, 100_000, 1_000_000)
AHEAD = (1_000, 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", default=str(ROOT.parent / "shared/data/strongreject.csv"))
    parser.add_argument("--out", default="/tmp/run313")
    parser.add_argument("--splits", type=int, default=200)
    options = parser.parse_args()
    out = Path(options.out)
    if not (out / "finished.json").exists():
        tailcast.estimate(
            "embedded", options.queries, "refusal", pairs=str(asset("demo_pairs.jsonl")),
            samples=128, monte_carlo=256, temperature=0.7, max_new_tokens=32, dtype="bfloat16",
            seed=1, out=out,
        )  # fmt: skip
    parts = [head(out), routes(out), ahead(out), tested(out, options.splits)]
    RESULT.write_text("\n\n".join(parts) + "\n", "utf-8")
    for kind in ("repeated", "forecast"):
        save_chart(draw(read_run(out), kind), RESULT.with_name(f"strongreject-{kind}.svg"))
    print(RESULT.read_text("utf-8"))


def head(out: Path) -> str:
    """What was run, verdicts and audit."""
    run = read_run(out)
    verdicts = Counter(one.verdict for one in run.main.values())
    audit = json.loads((out / "audit.json").read_text("utf-8"))[0]
    plain = sum(one.n_hits > 0 for one in run.plain.values())
    return (
        "# All 313 StrongREJECT queries\n\n"
        "Made by `python benchmarks/strongreject.py`: the embedded model in bfloat16, temperature "
        "0.7, 32 new tokens, judge `refusal`; 256 plain draws of every query and a mixture of "
        f"128.\n\nPlain draws hit on {plain} of {len(run.main)} queries, the mixture on "
        f"{sum(one.p is not None for one in run.main.values())}. Verdicts of the mixture: "
        f"{', '.join(f'{n} {name}' for name, n in verdicts.most_common())}. {audit['sentence']}."
    )


def routes(out: Path) -> str:
    """Repeated sampling, counted and by the risks."""
    found = repeated_sampling(as_analysed(out), TRIES[-1])
    table = {(one.route, one.tries): one for one in found}
    lines = [
        "## Repeated sampling by both routes", "",
        "Share of queries with a hit in so many tries: counted from the plain draws (unbiased), "
        "and from the mixture's risks by 1 - (1 - risk)^n; 95% bands.", "",
        "![Both routes](strongreject-repeated.svg)", "",
        "| tries | counted | band | by the risks | band |", "|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {n:,} | {_share(table.get(('draws', n)))} | {_share(table.get(('risks', n)))} |"
        for n in TRIES
        if ("risks", n) in table or ("draws", n) in table
    ]
    return "\n".join(lines)


def _share(one: ShareHit | None) -> str:
    return f"{one.share or 0:.2%} | {one.low:.2%} to {one.high:.2%}" if one else "| "


def ahead(out: Path) -> str:
    """Forecasts by all methods."""
    measured = read_measured([out])
    lines = [
        "## Queries not yet asked", "", "![Worst risk](strongreject-forecast.svg)", "",
        "| n | method | worst: median | 90% interval | mean | 90% interval |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for n in AHEAD:
        lines += [
            f"| {n:,} | {one.method} | {one.worst:.2g} | {one.worst_low:.2g} to "
            f"{one.worst_high:.2g} | {one.mean:.2g} | {one.mean_low:.2g} to {one.mean_high:.2g} |"
            for one in forecast(measured, n)[0]
        ]
    return "\n".join(lines)


def tested(out: Path, splits: int) -> str:
    """The experiment of the paper: 30% fitted, 70% forecast."""
    lines = [
        "## Random splits, 30% fitted and 70% forecast", "",
        f"{splits} splits by query. Errors in decades; what the 70% show is itself estimated, so "
        "that its noise is in the errors. `held`: intervals that hold what was shown, 90% wanted.",
        "", "| method | worst: error | bias | held | mean: error | bias | held |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {one.method} | {_score(one.worst)} | {_score(one.mean)} |"
        for one in split_experiment(read_measured([out]), splits=splits)
    ]
    return "\n".join(lines)


def _score(one: Score | None) -> str:
    return f"{one.error:.2f} | {one.bias:+.2f} | {one.covered:.0%}" if one else "| | "


if __name__ == "__main__":
    main()
