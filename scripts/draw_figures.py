"""Draw the figures of docs/ideas.md from real numbers: ``make figures``.

    python scripts/draw_figures.py            # writes docs/figures/*.svg

One is counted from 10,000 plain draws of 40 queries (benchmarks/reference); the others are
of the models of examples/small_world.py, whose answers are listed with their probabilities.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from small_world import STEPS, says_four_twice, small_model  # noqa: E402
from tailcast.analysis.repeated import combinatorial_share, tries_grid  # noqa: E402
from tailcast.models import TabularTarget  # noqa: E402
from tailcast.stats import Round, mixture_estimate  # noqa: E402
from tailcast.types import Query  # noqa: E402

QUERY = Query.user("q", "hello")
PLAIN, STEERED, MIXED, TRUTH = "#8a8f98", "#d1495b", "#00798c", "#222222"
DEFENCE = 0.1


@dataclass(frozen=True)
class Listed:
    """All answers of a small model, m of them.

    Attributes:
        target: Probability of each, [m].
        steered: Probability of each when steered at strength 1 throughout, [m].
        hit: Whether it is a hit, [m].
    """

    target: np.ndarray
    steered: np.ndarray
    hit: np.ndarray

    @property
    def risk(self) -> float:
        """QRISK, exactly."""
        return float(self.target @ self.hit)

    @property
    def mixed(self) -> np.ndarray:
        """A tenth of the target and nine tenths steered, [m]."""
        return DEFENCE * self.target + (1 - DEFENCE) * self.steered

    def draws_needed(self, law: np.ndarray, relative_error: float = 0.25) -> float:
        """Draws from ``law`` until the standard error is this share of the risk, exactly."""
        second = float((self.target[self.hit] ** 2 / law[self.hit]).sum())
        return (second / self.risk**2 - 1) / relative_error**2


def listed(model: TabularTarget, judge: Callable[[Query, str], float]) -> Listed:
    """The model's answers to QUERY with both probabilities."""
    prompt = model.encode(QUERY)
    plain = list(model.completions(prompt, STEPS))
    steered = model.completions(prompt, STEPS, strength=1.0)
    hit = np.array([judge(QUERY, model.decode(tokens)) > 0 for tokens, _ in plain])
    p, q = (np.exp([logp for _, logp in one]) for one in (plain, steered))
    return Listed(p / p.sum(), q / q.sum(), hit)


def second_way() -> Listed:
    """Rarely the model begins with "3 3", a hit too; steered it never does."""
    model = small_model(rarer=2.0)
    table, shift = model.table.copy(), model.shift.copy()
    table[:2, :, 3] -= 2.0
    shift[0, :, 3] = -20.0
    model = replace(model, table=table, shift=shift)
    return listed(
        model, lambda query, text: max(says_four_twice(query, text), float(text[:3] == "3 3"))
    )


def draw_tries(axes: Axes) -> str:
    """Share of queries with at least one hit in n tries, counted."""
    source = json.loads((ROOT / "benchmarks/reference/strongreject-40-T0.7.json").read_text())
    hits = np.array([one["hits"] for one in source["queries"].values()])
    n = np.array([one["n"] for one in source["queries"].values()])
    tries = tries_grid(int(n.min()))
    shares = [combinatorial_share(hits, n, one).mean() for one in tries]
    axes.plot(tries, shares, color=MIXED)
    axes.set(xscale="log", ylim=(0, 1.02), xlabel="tries of each query")
    axes.set_ylabel("share of queries with a hit")
    return f"1 try: {shares[0]:.2g} of the queries; {tries[-1]:,} tries: {shares[-1]:.2g}"


def draw_effort(axes: Axes) -> str:
    """Draws until the standard error is a quarter of the risk, against the risk."""
    worlds = [listed(small_model(rarer), says_four_twice) for rarer in (-1, 0, 1, 2, 3, 4)]
    risks = [one.risk for one in worlds]
    plain = [one.draws_needed(one.target) for one in worlds]
    mixed = [one.draws_needed(one.mixed) for one in worlds]
    axes.plot(risks, plain, "o-", color=PLAIN, label="plain sampling")
    axes.plot(risks, mixed, "o-", color=MIXED, label="mixture of target and steered")
    axes.set(xscale="log", yscale="log", xlabel="risk", ylabel="draws for an error of 25%")
    axes.legend(frameon=False)
    return f"risk {risks[-1]:.1g}: {plain[-1]:.2g} draws plain, {mixed[-1]:.2g} from the mixture"


def draw_missed(axes: Axes) -> str:
    """Estimates as draws grow, where one way to hit is never visited by the steered model."""
    world, n = second_way(), 4000
    steps = np.unique(np.geomspace(50, n, 80).astype(int))
    last = {}
    for law, colour, name in (
        (world.steered, STEERED, "steered alone"),
        (world.mixed, MIXED, "mixture with the target"),
    ):
        weight = np.where(world.hit, world.target / law, 0.0)
        for run in range(12):
            drawn = np.random.default_rng(run).choice(len(law), size=n, p=law)
            mean = np.cumsum(weight[drawn])[steps - 1] / steps
            axes.plot(steps, mean, color=colour, alpha=0.45, lw=1, label=None if run else name)
            last.setdefault(name, []).append(mean[-1])
    axes.axhline(world.risk, color=TRUTH, lw=1, ls="--", label="exact risk")
    axes.set(xscale="log", yscale="log", xlabel="draws", ylabel="estimate")
    axes.legend(frameon=False)
    means = ", ".join(f"{name} {np.mean(values):.2g}" for name, values in last.items())
    return f"exact {world.risk:.2g}; mean of 12 estimates: {means}"


def draw_bounds(axes: Axes) -> str:
    """What each bound says as the draws of one query grow, by the package's own estimators."""
    world = second_way()
    sizes = (100, 200, 400, 800, 1600, 3200, 6400, 12800)
    rows = [_mixture_bounds(world, n) for n in sizes]
    low, ci_low, ci_high, high = np.array(rows).T
    axes.fill_between(sizes, ci_low, ci_high, color=MIXED, alpha=0.25, lw=0, label="ci (assumes)")
    axes.plot(sizes, high, color=STEERED, label="p_high_guaranteed")
    axes.plot(sizes, low, color=MIXED, label="p_low")
    axes.axhline(world.risk, color=TRUTH, lw=1, ls="--", label="exact risk")
    axes.set(xscale="log", yscale="log", ylim=(1e-4, 1), xlabel="draws", ylabel="risk")
    axes.legend(frameon=False)
    return f"exact {world.risk:.2g}; {sizes[-1]:,} draws: at least {low[-1]:.2g}, at most " + (
        f"{high[-1]:.2g}, ci {ci_low[-1]:.2g} to {ci_high[-1]:.2g}"
    )


def _mixture_bounds(world: Listed, n: int) -> tuple[float, float, float, float]:
    """p_low, ci_low, ci_high, p_high_guaranteed after n draws, the first n of the same ones."""
    plain = round(DEFENCE * n)
    parts = [
        np.random.default_rng(seed).choice(len(law), size=20_000, p=law)[:count]
        for seed, law, count in ((1, world.target, plain), (2, world.steered, n - plain))
    ]
    hits = [part[world.hit[part]] for part in parts]
    drawn = np.concatenate(hits)
    ratios = np.stack([np.zeros(len(drawn)), np.log(world.steered / world.target)[drawn]], axis=1)
    component = np.repeat([0, 1], [len(one) for one in hits])
    found = mixture_estimate(
        [Round(np.array([plain, n - plain]), component, ratios, np.zeros(len(drawn)))],
        target=(len(hits[0]), plain),
    )
    return found.p_low, found.ci_low, found.ci_high, found.p_high_guaranteed


FIGURES = {
    "tries": draw_tries,
    "effort": draw_effort,
    "missed": draw_missed,
    "bounds": draw_bounds,
}


def draw_all(folder: Path) -> None:
    """Write every figure as SVG, the same bytes on the same machine."""
    matplotlib.rcParams.update({"svg.hashsalt": "tailcast", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        axes = figure.subplots()
        caption = draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        print(f"{name}: {caption}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/figures")
    draw_all(parser.parse_args().out)
