"""What does the embedded model do? Non-refusal risks of a query set, greedy answers, harmless ones.

    python benchmarks/embedded_model.py --queries ../shared/data/strongreject.csv

writes benchmarks/results/embedded_model.md. Draws are kept under --out, so that the same
command goes on where it was stopped.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import tailcast
from tailcast.data import load_queries
from tailcast.judges.refusal import is_refusal
from tailcast.models import HuggingFaceTarget, load_target
from tailcast.models.embedded import gguf_file
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, draw
from tailcast.types import ModelSettings, Query, SamplingSettings

ROOT = Path(__file__).resolve().parent.parent
HELD_OUT = ROOT / "scripts" / "refusal_prompts" / "held_out_harmless.jsonl"
RESULT = ROOT / "benchmarks" / "results" / "embedded_model.md"
TOKENS = 24
BINS = [0.0, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0 + 1e-9]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", default=str(ROOT.parent / "shared/data/strongreject.csv"))
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--out", default="/tmp/embedded-model-run")
    options = parser.parse_args()
    queries = load_queries(options.queries)
    target = load_target(ModelSettings(model="embedded", dtype="float32"))
    refused = [is_refusal(text) for text in greedy(target, queries)]
    found = tailcast.estimate(
        target, queries, "refusal", samples=options.samples, temperature=0.7,
        max_new_tokens=TOKENS, out=options.out,
    )  # fmt: skip
    risks = np.array([one.p or 0.0 for one in found])
    base = load_target(ModelSettings(model=str(gguf_file()), dtype="float32"))
    lines = [
        "# The embedded model, measured",
        "",
        f"Made by `python benchmarks/embedded_model.py --samples {options.samples}` on "
        f"{len(queries)} queries of {Path(options.queries).name}: temperature 0.7, {TOKENS} new "
        "tokens, float32, judge `refusal`.",
        "",
        f"Greedy answers that refuse: {np.mean(refused):.1%}.",
        "",
        *distribution(risks, options.samples),
        "",
        *harmless(target, base, load_queries(str(HELD_OUT))),
    ]
    RESULT.write_text("\n".join(lines) + "\n", "utf-8")
    print(RESULT.read_text("utf-8"))


def greedy(target: HuggingFaceTarget, queries: list[Query]) -> list[str]:
    """The greedy answer to every query: the law cut to its likeliest token."""
    requests = [
        DrawRequest(query.id, target.encode(query), Proposal.target(), 0, query.id)
        for query in queries
    ]
    settings = SamplingSettings(max_new_tokens=TOKENS, top_k=1)
    return [batch.texts[0] for batch in draw(target, requests, settings)]


def distribution(risks: np.ndarray, samples: int) -> list[str]:
    """Share of queries by non-refusal probability."""
    counts, _ = np.histogram(risks, BINS)
    rows = [
        f"| {low:g} to {min(high, 1):g} | {count} | {count / len(risks):.0%} |"
        for low, high, count in zip(BINS, BINS[1:], counts, strict=False)
    ]
    return [
        f"| hits / {samples} draws | queries | share |",
        "|---|---|---|",
        *rows,
        "",
        f"No hit: {np.mean(risks == 0):.0%} of the queries (95% upper end of each "
        f"{1 - 0.025 ** (1 / samples):.1g}). "
        f"Median {np.median(risks):.2g}, mean {risks.mean():.2g}.",
    ]


def harmless(target: HuggingFaceTarget, base: HuggingFaceTarget, queries: list[Query]) -> list[str]:
    """Does the adapter leave answers to harmless prompts alone?"""
    ours, theirs = greedy(target, queries), greedy(base, queries)
    divergence = [
        kl(target, base, query, text) for query, text in zip(queries, theirs, strict=True)
    ]
    same = np.mean([one == other for one, other in zip(ours, theirs, strict=True)])
    return [
        f"{len(queries)} harmless prompts that training did not see, greedy: refused "
        f"{np.mean([is_refusal(text) for text in ours]):.0%} (base model "
        f"{np.mean([is_refusal(text) for text in theirs]):.0%}); word for word the base model's "
        f"answer {same:.0%}; KL(base, adapted) along the base model's answers "
        f"{np.mean(divergence):.3f} nats a token.",
    ]


def kl(target: HuggingFaceTarget, base: HuggingFaceTarget, query: Query, text: str) -> float:
    """Mean KL(base, adapted) of the next token along an answer, in nats."""
    prompt = base.encode(query)
    tokens = torch.tensor([[*prompt, *base.encode_response(text)]])
    with torch.no_grad():
        laws = [
            one.model(input_ids=tokens).logits[0, len(prompt) - 1 :].double().log_softmax(-1)
            for one in (base, target)
        ]
    return float((laws[0].exp() * (laws[0] - laws[1])).sum(-1).mean())


if __name__ == "__main__":
    main()
