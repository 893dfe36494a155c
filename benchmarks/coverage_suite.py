"""Do the intervals cover, and are the estimates that miss flagged?

    python benchmarks/coverage_suite.py            # 1,000 estimates in each scenario
    python benchmarks/coverage_suite.py --runs 20  # quick

Every query is a tabular model whose completions are listed with their exact probabilities, so
that draws of any component are draws from a list; what is made of them (rounds, shares,
intervals, verdicts, audit) is the package's own code. The stream of earlier hits' openings, whose
law changes by the round, is left out. Writes benchmarks/results/coverage.md.
"""

import argparse
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tailcast.config import RunConfig
from tailcast.mixtures import log_ratios, streams_of
from tailcast.models import TabularTarget
from tailcast.pipeline.allocation import Spent, first_round, next_round
from tailcast.pipeline.check import audits_of, history_case
from tailcast.pipeline.rounds import History
from tailcast.pipeline.stopping import reached
from tailcast.pipeline.weigh import Work
from tailcast.proposals import Proposal
from tailcast.stats import Round, importance_sampling, weighted_hits_interval
from tailcast.types import Query

RESULT = Path(__file__).resolve().parent / "results" / "coverage.md"
STEPS, TOKENS = 4, 6
QUERIES = 20


@dataclass(frozen=True)
class World:
    """A query with all of its completions listed, m of them.

    Attributes:
        law: Probabilities under every component, [J, m].
        log_ratios: log q_j - log p, [m, J].
        hit: Probability that the judge calls each a hit, [m].
        components: J of them, the target first.
    """

    law: np.ndarray
    log_ratios: np.ndarray
    hit: np.ndarray
    components: tuple[Proposal, ...]

    @property
    def risk(self) -> float:
        """QRISK, by enumeration."""
        return float(self.law[0] @ self.hit)


def listed(table: np.ndarray, shift: np.ndarray, components: tuple[Proposal, ...]) -> tuple:
    """Every completion of a tabular model, its law under the components, and their ratios."""
    target = TabularTarget(table, shift)
    found = list(target.completions((0,), STEPS))
    lengths = np.array([len(tokens) for tokens, _ in found])
    streams = streams_of(components)
    logs = np.zeros((len(found), 1 + len(streams), STEPS))
    for s, (strength, heat) in enumerate([(0.0, 1.0), *(key[:2] for key in streams)]):
        scores = (table + strength * shift) / heat
        law = scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)
        for row, (tokens, _) in zip(logs, found, strict=True):
            for t, token in enumerate(tokens):
                row[s, t] = law[t, tokens[t - 1] if t else 0, token]
    ratios = log_ratios(components, logs[:, 0], logs[:, 1:], streams, lengths)
    p = np.exp(np.array([logp for _, logp in found]))
    law = (np.exp(ratios) * p[:, None]).T
    assert np.allclose(law.sum(axis=1), 1), "a component's law does not add up to 1"
    return [tokens for tokens, _ in found], law / law.sum(axis=1, keepdims=True), ratios


def world(scenario: str, seed: int, *, lowered: float = 0.0) -> World:
    """A query of a scenario; token 5 hits, and in "second mode" token 4 does too."""
    rng = np.random.default_rng(seed)
    config = RunConfig(
        model="", queries="", steering="v", switches=(2, 4), max_new_tokens=STEPS, openings=False
    )
    components = config.components
    table = rng.normal(size=(STEPS, TOKENS, TOKENS))
    shift = 0.2 * rng.normal(size=table.shape)
    table[:, :, 5] -= rng.uniform(3.0, 5.0) + lowered
    shift[:, :, 5] += 4.0 + 2 * lowered
    wanted = 2
    if scenario == "second mode":
        components = tuple(one for one in components if one.heat == 1.0)
        table[0, :, 4] -= rng.uniform(5.0, 6.0)
        shift[0, :, 4] -= 400.0
    if scenario == "heavy tails":
        shift += 3.0 * rng.normal(size=table.shape)
    if scenario == "no hit":
        table[:, :, 5] -= 9.0
        shift[:, :, 5] = 0.0
        wanted = 3
    tokens, law, ratios = listed(table, shift, components)
    hit = np.array([one.count(5) >= wanted for one in tokens], dtype=float)
    if scenario == "second mode":
        hit = np.maximum(hit, [float(one[0] == 4) for one in tokens])
    if scenario == "judge noise":
        hit = 0.9 * hit + 2e-4 * (1 - hit)
    return World(law, ratios, hit, components)


def rare_world(risk: float) -> World:
    """A well-covered query of an exact risk: token 5 is lowered until two of it are so rare."""
    low, high = 0.0, 20.0
    for _ in range(40):
        lowered = (low + high) / 2
        one = world("covered", 1001, lowered=lowered)
        low, high = (lowered, high) if one.risk > risk else (low, lowered)
    return one


def draw_round(one: World, counts: tuple[int, ...], rng: np.random.Generator) -> tuple[Round, Work]:
    """Draws of every component from the list; the target's cost a sixth of the others'."""
    component = np.repeat(np.arange(len(counts)), counts)
    drawn = np.concatenate([
        rng.choice(one.law.shape[1], size=count, p=law)
        for count, law in zip(counts, one.law, strict=True)
    ])  # fmt: skip
    hit = rng.random(len(drawn)) < one.hit[drawn]
    ratios = one.log_ratios[drawn[hit]]
    draws = np.array(counts, dtype=float)
    cost = draws * np.where(np.arange(len(counts)) == 0, 5.0, 30.0)
    found = Round(np.array(counts), component[hit], ratios, np.zeros(len(ratios)))
    return found, Work(draws, cost)


def mixture_run(worlds: list[World], config: RunConfig, rng: np.random.Generator) -> list[History]:
    """All rounds of all queries, as tailcast.pipeline.rounds makes them."""
    history = {str(k): History() for k in range(len(worlds))}
    done, plan = 0, {}
    while (left := config.draws - done) > 0:
        ids = [id for id, one in history.items() if not one.ended]
        if not ids:
            break
        least, components = config.target_share, worlds[0].components
        if not done:
            plan = first_round(ids, components, done, left, least)
        else:
            spent = {
                id: Spent(tuple(one.rounds), tuple(one.works), one.estimate(config))
                for id, one in history.items()
            }
            plan = next_round(spent, ids, components, plan["streams"], done, left, least)
        for id in ids:
            found, work = draw_round(worlds[int(id)], plan["counts"][id], rng)
            history[id].rounds.append(found)
            history[id].works.append(work)
            history[id].ended = reached(config.until, history[id].estimate(config))
        done += plan["size"]
    return list(history.values())


def paper_run(one: World, n: int, rng: np.random.Generator) -> object:
    """One proposal, strength 1 to the end without defence."""
    j = next(k for k, c in enumerate(one.components) if (c.strength, c.switch) == (1.0, STEPS))
    drawn = rng.choice(one.law.shape[1], size=n, p=one.law[j])
    hit = rng.random(n) < one.hit[drawn]
    return importance_sampling(-one.log_ratios[drawn, j], hit)


SCENARIOS = {
    "a well covered": ("covered", {}),
    "b second mode": ("second mode", {}),
    "c heavy tails": ("heavy tails", {}),
    "d no hit": ("no hit", {}),
    "e adaptive stop": ("covered", {"until": ("relative-error", 0.5), "samples": 3000}),
    "f judge noise": ("judge noise", {}),
}


def record(estimate: object, risk: float, fires: bool) -> tuple[float, ...]:
    """Coverage, whether it misses by two and that is flagged, the ratio, what the verdict reads."""
    e = estimate
    misses = e.ci_high < risk / 2 or e.ci_low > risk * 2
    flagged = fires or e.verdict != "ok"
    return (
        e.ci_low <= risk <= e.ci_high, e.p_low <= risk, risk <= e.p_high_guaranteed,
        misses, misses and flagged, (e.p or 0.0) / risk, e.verdict == "ok" and not fires,
        e.ess_hits, math.nan if e.khat is None else e.khat, (e.max_share or 0.0) < 0.2,
    )  # fmt: skip


def scenario(name: str, runs: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Records of all estimates of a scenario, [estimates, 10], by method."""
    kind, extra = SCENARIOS[name]
    worlds = [world(kind, 1000 + k) for k in range(QUERIES)]
    settings = {"samples": 500, **extra}
    config = RunConfig(
        model="", queries="", steering="v", max_new_tokens=STEPS, openings=False, **settings
    )
    queries = [Query.user(str(k), "") for k in range(QUERIES)]
    rows = {"mixture": [], "paper": []}
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        histories = mixture_run(worlds, config, rng)
        cases = {str(k): history_case(one) for k, one in enumerate(histories)}
        fires = audits_of(queries, cases, 0.95)[0].fires
        for one, history in zip(worlds, histories, strict=True):
            rows["mixture"].append(record(history.estimate(config), one.risk, fires))
            rows["paper"].append(record(paper_run(one, 500, rng), one.risk, False))
    return {method: np.array(found, dtype=float) for method, found in rows.items()}


WEIGHTS = ("log-normal, sd 2", "power tail, index 2.5", "two clusters", "skewed to the left")
HIT_RATE, RISK, DEFENCE, POOL = 0.22, 3e-4, 0.1, 200_000


def simulated(kind: str, n: int, runs: int, seed: int = 0) -> tuple[float, float]:
    """How often the interval and the normal one hold RISK, for weights of a given law.

    Hits of the proposal have such weights u = p/q; a tenth of the draws is the target's, whose
    hits have them size-biased; all count with 1 / (0.1 + 0.9 / u).
    """
    rng = np.random.default_rng(seed)
    u = {
        "log-normal, sd 2": lambda: np.exp(2 * rng.standard_normal(POOL)),
        "power tail, index 2.5": lambda: (1 - rng.random(POOL)) ** (-1 / 2.5),
        "two clusters": lambda: (
            np.exp(0.3 * rng.standard_normal(POOL)) * np.where(rng.random(POOL) < 0.25, 100.0, 1.0)
        ),
        "skewed to the left": lambda: np.exp(-rng.gamma(1.0, 4.0, POOL)),
    }[kind]()
    u *= RISK / HIT_RATE / u.mean()
    biased = np.cumsum(u / u.sum())
    ours = normal = 0
    for _ in range(runs):
        plain = round(DEFENCE * n)
        steered = rng.integers(0, POOL, rng.binomial(n - plain, HIT_RATE))
        own = np.searchsorted(biased, rng.random(rng.binomial(plain, RISK)))
        drawn = u[np.concatenate([steered, np.minimum(own, POOL - 1)])]
        log_w = -np.logaddexp(np.log(DEFENCE), np.log1p(-DEFENCE) - np.log(drawn))
        low, high = weighted_hits_interval(log_w, n)
        ours += low <= RISK <= high
        value = np.exp(log_w)
        mean = value.sum() / n
        half = 1.96 * np.sqrt(max((value**2).sum() / n - mean**2, 0.0) / n)
        normal += abs(mean - RISK) <= half
    return ours / runs, normal / runs


def line(name: str, method: str, rows: np.ndarray) -> str:
    ci, low, high, misses, flagged, ratio, ok = rows[:, :7].mean(axis=0)
    caught = f"{flagged / misses:.0%}" if misses else "none misses"
    noise, middle = rows[:, 5].std() / np.sqrt(len(rows)), np.median(rows[:, 5])
    return (
        f"| {name} | {method} | {len(rows)} | {ratio:.3f} ± {noise:.3f} | {middle:.2f} "
        f"| {ci:.1%} | {low:.1%} | {high:.1%} | {misses:.1%} | {caught} | {ok:.0%} |"
    )


def tails(rows: np.ndarray) -> list[str]:
    """Does k-hat tell of misses what the number of effective hits does not?"""
    lines = [
        "",
        "Misses of mixtures by effective hits and k-hat, where no hit is a fifth of the estimate:",
        "",
        "| effective hits | k-hat up to 0.7 | 0.7 to 1 | above 1 | none |",
        "|---|---|---|---|---|",
    ]
    ess, khat, spread = rows[:, 7], rows[:, 8], rows[:, 9] > 0
    for low, high in itertools.pairwise((0, 15, 50, math.inf)):
        mine = spread & (ess >= low) & (ess < high)
        kinds = khat <= 0.7, (khat > 0.7) & (khat <= 1), khat > 1, np.isnan(khat)
        cells = [f"{rows[mine & one, 3].sum():.0f} of {(mine & one).sum()}" for one in kinds]
        lines.append(f"| {low} to {high} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50, help=f"each of {QUERIES} queries")
    runs = parser.parse_args().runs
    lines = [
        "# Coverage on tabular models",
        "",
        f"Made by `python benchmarks/coverage_suite.py --runs {runs}`: {runs} runs of {QUERIES} "
        "queries in each scenario, 500 draws a query (up to 3,000 in e), level 95%. `ratio`: mean "
        "estimate over exact risk, and its median. `ci`, `p_low`, `p_high`: how often each holds. "
        "`misses`: `ci` lies more than a factor 2 off; `flagged`: how many of those are weak or "
        "unreliable, or the audit fires. `ok`: flagged ok, and no audit fired. `paper`: one "
        "steered proposal without defence.",
        "",
        "| scenario | method | estimates | ratio | median | ci | p_low | p_high | misses | flagged "
        "| ok |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    every = []
    for name in SCENARIOS:
        for method, rows in scenario(name, runs).items():
            lines.append(line(name, method, rows))
            print(lines[-1], flush=True)
            if method == "mixture":
                every.append(rows)
    lines += tails(np.concatenate(every))
    lines += [
        "",
        "Weights alone (method.md section 9): risk 3e-4, hit rate 22%, a tenth of the draws the "
        "target's. How often the interval holds, and in brackets a normal one; "
        f"{20 * runs} runs each.",
        "",
        "| weights | n = 64 | n = 500 | n = 5,000 |",
        "|---|---|---|---|",
    ]
    for kind in WEIGHTS:
        found = [simulated(kind, n, 20 * runs) for n in (64, 500, 5000)]
        cells = " | ".join(f"{ours:.1%} ({normal:.0%})" for ours, normal in found)
        lines.append(f"| {kind} | {cells} |")
        print(lines[-1], flush=True)
    RESULT.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
