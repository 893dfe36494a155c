"""Two models side by side: the embedded one, and one whose refusal adapter was trained less.

    python scripts/train_refusal_adapter.py --steps 100 --output DIR
    python benchmarks/two_adapters.py --less DIR --out RUNS

24 shipped queries each, a mixture of 400 draws; writes benchmarks/results/two_adapters.md and
docs/figures/crossing.svg. Runs that lie under RUNS are not made again.
"""

import argparse
from pathlib import Path

import tailcast
from tailcast.analysis.compare import Comparison, Order, compare
from tailcast.analysis.runs import read_run as as_analysed
from tailcast.report import read_run
from tailcast.report.figures import repeated_of
from tailcast.report.render import save_plot

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "two_adapters.md"
FIGURE = ROOT / "docs" / "figures" / "crossing.svg"
TRIES = (1, 10, 100, 1_000, 10_000, 100_000)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--less", required=True, help="the adapter that was trained less")
    parser.add_argument("--out", type=Path, default=Path("/tmp/two-adapters"))
    options = parser.parse_args()
    places = [options.out / "shipped", options.out / "trained-less"]
    for place, adapter in zip(places, (None, options.less)):
        measure(place, adapter)
    found = compare([as_analysed(one) for one in places], TRIES[-1])
    RESULT.write_text(page(found), "utf-8")
    runs = [read_run(one) for one in places]
    save_plot(lambda look: repeated_of(runs, look), FIGURE)
    print(RESULT.read_text("utf-8"))


def measure(place: Path, adapter: str | None) -> None:
    """One run, unless it is there."""
    if not (place / "finished.json").exists():
        tailcast.estimate(
            "embedded", behaviour="harmful-compliance", adapter=adapter, samples=400,
            temperature=0.7, max_new_tokens=32, dtype="bfloat16", seed=1, out=place,
        )  # fmt: skip


def page(found: Comparison) -> str:
    """The result as Markdown."""
    first, second = found.models
    lines = [
        "# Two adapters",
        "",
        "Made by `python scripts/train_refusal_adapter.py --steps 100 --output DIR` and `python "
        "benchmarks/two_adapters.py --less DIR`: the embedded model with its shipped adapter (480 "
        f"steps) and with one of 100, the {found.queries} queries of `harmful-compliance`, "
        "temperature 0.7, 32 new tokens, bfloat16, a mixture of 400 draws each.",
        "",
        "![Both curves](../../docs/figures/crossing.svg)",
        "",
        "| tries of every query | shipped | 95% band | trained less | 95% band | riskier | chance "
        "of this order |",
        "|---|---|---|---|---|---|---|",
    ]
    for tries in TRIES:
        ends = [
            next([each.value, each.low, each.high] for each in one.shares if each.tries == tries)
            for one in (first, second)
        ]
        lines.append(row(f"{tries:,}", *ends, order_at(found, tries)))
    return "\n".join([*lines, "", crossed(found)]) + "\n"


def row(name: str, first: list[float | None], second: list[float | None], order: Order) -> str:
    cells = [name]
    for value, low, high in (first, second):
        cells += [f"{value or 0:.2%}", f"{low:.2%} .. {high:.2%}"]
    return f"| {' | '.join([*cells, name_of(order.riskier), f'{order.chance:.0%}'])} |"


def name_of(run: str | None) -> str:
    return Path(run).name if run else "equal"


def order_at(found: Comparison, tries: int) -> Order:
    return next(one for one in found.orders if one.tries == tries)


def crossed(found: Comparison) -> str:
    """Where the order turns, in words."""
    if not found.crossings:
        return "The order does not turn: no crossing up to the largest number of tries."
    parts = [
        f"At about {one.tries:,.0f} tries the order turns: before, {name_of(one.first)} is riskier "
        f"(chance {one.chance_before:.0%} where it is surest), after, {name_of(one.second)} "
        f"({one.chance_after:.0%})."
        for one in found.crossings
    ]
    return " ".join(parts)


if __name__ == "__main__":
    main()
