"""Is the mean weight 1, do control variates pay, and what does bfloat16 do to the weights?

    python benchmarks/weights.py --out DIR

Makes `tailcast demo` in bfloat16 under DIR unless it is there, scores every draw of it under all
components, and its hits again in float32. Writes benchmarks/results/weights.md.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import tailcast
from tailcast.analysis.draws import read_draws
from tailcast.config import RunConfig
from tailcast.data import load_queries
from tailcast.mixtures import Mixture, log_ratios, streams_of
from tailcast.models import load_target
from tailcast.models.embedded import asset
from tailcast.proposals import Proposal
from tailcast.sampling import Streams, score
from tailcast.steering import load_steering
from tailcast.store import RunStore

RESULT = Path(__file__).resolve().parent / "results" / "weights.md"
FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="/tmp/weights-run")
    out = Path(parser.parse_args().out)
    if not (out / "estimates.jsonl").exists():
        tailcast.estimate(
            "embedded", asset("demo_queries.jsonl"), "refusal", out=out, samples=300,
            pairs=str(asset("demo_pairs.jsonl")), temperature=0.7, max_new_tokens=24,
            dtype="bfloat16", openings=False,
        )  # fmt: skip
    store = RunStore(out)
    config = RunConfig(**store.read_json("manifest.json")["config"])
    plans = []
    while plan := store.read_json(f"rounds/{len(plans):04d}.json"):
        plans.append(plan)
    components = tuple(Proposal(*one) for one in plans[0]["components"])
    scorers = {dtype: Scorer(config, dtype, components, out) for dtype in ("bfloat16", "float32")}
    rows = [
        measured(store, query, plans, components, scorers) for query in load_queries(config.queries)
    ]
    RESULT.write_text(page(rows), "utf-8")
    print(RESULT.read_text("utf-8"))


class Scorer:
    """Log-ratios of completions under all components, by a model of one dtype."""

    def __init__(self, config: RunConfig, dtype: str, components: Any, out: Path) -> None:
        settings = config.model_settings.model_copy(update={"dtype": dtype})
        self.target = load_target(settings)
        self.components, self.streams = components, streams_of(components)
        self.settings = config.sampling_settings
        self.steering = load_steering(out / "steering.safetensors")
        self.forwards = 0

    def ratios(self, query: Any, completions: list[list[int]], tokens: int) -> np.ndarray:
        """Log q_j - log p, [n, J]."""
        logp, logs, forwards = score(
            Streams(self.target, self.steering), [self.target.encode(query)] * len(completions),
            completions, self.streams, self.settings, tokens=tokens,
        )  # fmt: skip
        self.forwards += forwards
        lengths = np.minimum([len(one) for one in completions], tokens)
        return log_ratios(self.components, logp, logs, self.streams, lengths)


def measured(store: RunStore, query: Any, plans: Any, components: Any, scorers: Any) -> Any:
    """One query: all draws of all rounds."""
    tokens = max(one.steered_tokens for one in components)
    parts = []
    for number, plan in enumerate(plans):
        draws = read_draws(store, f"round-{number}", query.id)
        mixture = Mixture(components, tuple(plan["counts"][query.id]))
        completions = [
            row[:length].tolist()
            for batch in draws.batches
            for row, length in zip(batch.tokens, batch.lengths, strict=True)
        ]
        cost = sum(batch.token_forwards for batch in draws.batches)
        with np.errstate(divide="ignore"):
            shares = np.log(mixture.shares)
        parts.append((completions, draws.hits, np.tile(shares, (len(completions), 1)), cost))
    completions = [one for part in parts for one in part[0]]
    hits = np.concatenate([part[1] for part in parts])
    shares = np.concatenate([part[2] for part in parts])
    half = scorers["bfloat16"]
    before = half.forwards
    ratios = half.ratios(query, completions, tokens)
    scored = half.forwards - before
    first = half.ratios(query, [one[:1] for one in completions], 1)
    log_w = -np.logaddexp.reduce(ratios + shares, axis=1)
    value = np.where(hits, np.exp(log_w), 0.0)
    full = [one for one, hit in zip(completions, hits, strict=True) if hit]
    exact = scorers["float32"].ratios(query, full, tokens)
    moved = -np.logaddexp.reduce(exact + shares[hits], axis=1) - log_w[hits]
    return {
        "query": query.id, "draws": len(hits), "hits": int(hits.sum()),
        "mean_w": np.exp(log_w).mean(), "mean_w_error": np.exp(log_w).std() / np.sqrt(len(hits)),
        "first": explained(value, controls(first, shares)),
        "all": explained(value, controls(ratios, shares)),
        "drawing": sum(part[3] for part in parts), "scoring": scored,
        "sd": moved.std(), "change": np.exp(log_w[hits] + moved).sum() / value.sum() - 1,
    }  # fmt: skip


def controls(ratios: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """q_j / q - 1 of every component, of mean zero, [n, J - 1]; the last one is implied."""
    log_q = np.logaddexp.reduce(ratios + shares, axis=1)
    return np.exp(ratios - log_q[:, None])[:, :-1] - 1.0


def explained(value: np.ndarray, z: np.ndarray) -> float:
    """Share of the variance that controls take out, coefficients fitted on other draws."""
    fold = np.random.default_rng(0).integers(0, FOLDS, len(value))
    rest = value.copy()
    for k in range(FOLDS):
        other, mine = fold != k, fold == k
        centred = z[other] - z[other].mean(axis=0)
        ridge = np.vstack([centred, np.sqrt(1e-3 * len(centred)) * np.eye(z.shape[1])])
        wanted = np.concatenate([value[other] - value[other].mean(), np.zeros(z.shape[1])])
        beta = np.linalg.lstsq(ridge, wanted, rcond=None)[0]
        rest[mine] -= z[mine] @ beta
    return float(1 - rest.var() / value.var())


def page(rows: list[Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# Weights of the mixture on the embedded model",
        "",
        "Made by `python benchmarks/weights.py`: the 12 queries of `tailcast demo`, bfloat16. "
        "`mean w`: of all draws, 1 if the weights are right. `explained`: share of the variance "
        "of w*h that control variates q_j/q - 1 take out, coefficients from the other four fifths "
        "of the draws; `first` of the first token, `all` of every scored token; negative is "
        "harm. `scoring`: forwards that scoring all draws takes, over those of drawing them. `sd`: "
        "of a hit's log-weight between bfloat16 and float32; `change`: of the estimate.",
        "",
        "| query | draws | hits | mean w | explained, first | all | scoring | sd | change |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        lines.append(
            f"| {one['query']} | {one['draws']} | {one['hits']} | {one['mean_w']:.3f} ± "
            f"{one['mean_w_error']:.3f} | {one['first']:.0%} | {one['all']:.0%} | "
            f"{one['scoring'] / one['drawing']:.1f} | {one['sd']:.3f} | {one['change']:+.1%} |"
        )
    middle = {name: np.median([one[name] for one in rows]) for name in ("first", "all", "sd")}
    ratio = np.median([one["scoring"] / one["drawing"] for one in rows])
    change = np.median([abs(one["change"]) for one in rows])
    z = np.array([(one["mean_w"] - 1) / one["mean_w_error"] for one in rows])
    lines += [
        "",
        f"Medians: explained {middle['first']:.0%} and {middle['all']:.0%}, scoring {ratio:.1f} "
        f"times the forwards of drawing, sd {middle['sd']:.3f}, absolute change {change:.1%}. Mean "
        f"weights lie {z.mean():.2f} ± {z.std() / np.sqrt(len(z)):.2f} standard errors from 1.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
