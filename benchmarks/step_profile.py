"""Where does the time of plain sampling go? Writes a table of torch's profiler.

    python benchmarks/step_profile.py [--label NAME]

128 draws of one 60-token prompt, 48 tokens, temperature 0.7, SmolLM2-135M in bfloat16. The table
is appended to benchmarks/results/profile.md under its label; run it at two commits to compare.
"""

import argparse
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from tailcast.models import load_target
from tailcast.models.embedded import gguf_file
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, draw
from tailcast.types import ModelSettings, Query, SamplingSettings

RESULT = Path(__file__).resolve().parent / "results" / "profile.md"
STORY = "Write a short story about a lighthouse keeper who finds a map in an old bottle. "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--label", default="now")
    label = parser.parse_args().label
    target = load_target(ModelSettings(model=str(gguf_file()), dtype="bfloat16"))
    tokens = target.encode(Query.user("q", STORY * 30))
    prompt = (*tokens[:55], *tokens[-5:])
    settings = SamplingSettings(max_new_tokens=48, temperature=0.7)
    requests = [DrawRequest("q", prompt, Proposal.target(), i, f"{i}") for i in range(128)]
    draw(target, requests, settings)
    begun = time.perf_counter()
    [batch] = draw(target, requests, settings)
    taken = time.perf_counter() - begun
    with profile(activities=[ProfilerActivity.CPU]) as found:
        draw(target, requests, settings)
    events = sorted(found.key_averages(), key=lambda one: -one.self_cpu_time_total)
    total = sum(one.self_cpu_time_total for one in events)
    lines = [
        f"## {label}", "",
        f"{taken:.2f} s, {batch.lengths.sum() / taken:,.0f} useful tokens a second, "
        f"{batch.token_forwards} token forwards, torch {torch.__version__}.", "",
        "| operation | share | ms | calls |", "|---|---:|---:|---:|",
        *(
            f"| {one.key} | {one.self_cpu_time_total / total:.0%} | "
            f"{one.self_cpu_time_total / 1e3:,.0f} | {one.count:,} |"
            for one in events[:14]
        ), "",
    ]  # fmt: skip
    with RESULT.open("a") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
