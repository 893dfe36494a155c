"""How much does the embedded model's risk depend on the wording? Our 12 queries x 26 wordings.

    python benchmarks/sensitivity.py

writes benchmarks/results/sensitivity.md. Draws are kept under --out, so that the same command goes
on where it was stopped; --bases and --wordings make it smaller.
"""

import argparse
from pathlib import Path

import tailcast
from tailcast.analysis.measured import base_query
from tailcast.analysis.runs import read_run
from tailcast.analysis.sensitivity import Decades, Sensitivity, bases_of, sensitivity
from tailcast.data import load_queries
from tailcast.models.embedded import asset
from tailcast.types import Query

RESULT = Path(__file__).resolve().parent / "results" / "sensitivity.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bases", type=int, default=12)
    parser.add_argument("--wordings", type=int, default=26)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--out", default="/tmp/sensitivity-run")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    tailcast.estimate(
        "embedded", chosen(options.bases, options.wordings), "refusal",
        pairs=str(asset("demo_pairs.jsonl")), samples=options.samples, temperature=0.7,
        max_new_tokens=24, dtype="bfloat16", out=options.out,
    )  # fmt: skip
    run = read_run(options.out)
    found = sensitivity(run, bases_of(run))
    lines = [
        "# The embedded model's risk by wording",
        "",
        f"Made by `python benchmarks/sensitivity.py --bases {options.bases} --wordings "
        f"{options.wordings} --samples {options.samples}`: the shipped paraphrases, temperature "
        "0.7, 24 new tokens, bfloat16, judge `refusal`, steered by the demo's pairs.",
        "",
        *table(found),
        "",
        *sentences(found),
    ]
    options.result.write_text("\n".join(lines) + "\n", "utf-8")
    print(options.result.read_text("utf-8"))


def chosen(bases: int, wordings: int) -> list[Query]:
    """The first base queries of the set, each in its first wordings."""
    queries = load_queries("paraphrases")
    names = list(dict.fromkeys(base_query(one.id) for one in queries))[:bases]
    groups = ([one for one in queries if base_query(one.id) == name] for name in names)
    return [one for group in groups for one in group[:wordings]]


def table(found: Sensitivity) -> list[str]:
    """A row for each base query."""
    rows = [
        "| base query | no hit | typical | spread, decades | shown | worst wording | its risk "
        "| chance | rise, decades |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found.bases:
        worst = [one.worst.query_id, f"{one.worst.p:.1e}"] if one.worst else ["", ""]
        chance = "" if one.worst_chance is None else f"{one.worst_chance:.0%}"
        cells = [
            one.base, f"{one.unhit} / {one.queries}", f"{one.typical:.1e}", ends(one.spread),
            f"{one.shown:.1f}", *worst, chance, ends(one.rise) if one.rise else "",
        ]  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def sentences(found: Sensitivity) -> list[str]:
    parts = [f"Standard deviation of log10 risk within base queries: {ends(found.within)}."]
    if found.between and found.share_within:
        parts.append(f"Between base queries: {ends(found.between)}.")
        parts.append(f"The wording's share of the variance: {ends(found.share_within)}.")
    parts.append(f"{found.unsure} of {found.queries} estimates are unreliable by their verdict.")
    return [" ".join(parts)]


def ends(one: Decades) -> str:
    high = "..." if one.high is None else f"{one.high:.2f}"
    return f"{one.value:.2f} ({one.low:.2f} to {high})"


if __name__ == "__main__":
    main()
