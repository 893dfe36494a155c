"""Where does the time of plain sampling go? Writes a table of torch's profiler.

    python benchmarks/step_profile.py [--label NAME] [--packing]

128 draws of one 60-token prompt, 48 tokens, temperature 0.7, SmolLM2-135M in bfloat16. The table
is appended to benchmarks/results/profile.md under its label; run it at two commits to compare.
With --packing it is a table of the time of a step with packed weights and without, turn by turn.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from tailcast.models import HuggingFaceTarget, load_target
from tailcast.models.embedded import gguf_file
from tailcast.models.packed import PackedLinear
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, draw
from tailcast.types import ModelSettings, Query, SamplingSettings

RESULT = Path(__file__).resolve().parent / "results" / "profile.md"
STORY = "Write a short story about a lighthouse keeper who finds a map in an old bottle. "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--label", default="now")
    parser.add_argument("--packing", action="store_true")
    options = parser.parse_args()
    lines = ["## " + options.label, "", *(packing() if options.packing else profiled()), ""]
    with RESULT.open("a") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))


def loaded(dtype: str) -> tuple[HuggingFaceTarget, tuple[int, ...]]:
    """The model and a prompt of 60 tokens."""
    target = load_target(ModelSettings(model=str(gguf_file()), dtype=dtype))
    tokens = target.encode(Query.user("q", STORY * 30))
    return target, (*tokens[:55], *tokens[-5:])


def profiled() -> list[str]:
    """Operations by the time that they take."""
    target, prompt = loaded("bfloat16")
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
    return [
        f"{taken:.2f} s, {batch.lengths.sum() / taken:,.0f} useful tokens a second, "
        f"{batch.token_forwards} token forwards, torch {torch.__version__}.", "",
        "| operation | share | ms | calls |", "|---|---:|---:|---:|",
        *(
            f"| {one.key} | {one.self_cpu_time_total / total:.0%} | "
            f"{one.self_cpu_time_total / 1e3:,.0f} | {one.count:,} |"
            for one in events[:14]
        ),
    ]  # fmt: skip


def packing() -> list[str]:
    """Milliseconds of a step, medians of 40 of either kind."""
    kinds = (torch.nn.Linear, PackedLinear)
    lines = ["| dtype | rows | plain, ms | packed, ms | ratio |", "|---|---:|---:|---:|---:|"]
    for dtype in ("bfloat16", "float32"):
        target, prompt = loaded(dtype)
        products = [one for one in target.model.modules() if type(one) is PackedLinear]
        for rows in (1, 16, 64, 128, 256):
            streams = [target.stream(None, slots=rows, max_new_tokens=48) for _ in kinds]
            for stream in streams:
                for _ in range(rows):
                    stream.open(prompt, 0.0)
            taken: dict[type, list[float]] = {kind: [] for kind in kinds}
            for step in range(44):
                tokens = (torch.arange(rows) * 97 + step * 31) % 40_000
                for kind, stream in zip(kinds, streams, strict=True):
                    for one in products:
                        one.__class__ = kind
                    begun = time.perf_counter()
                    stream.push(tokens)
                    taken[kind].append(1e3 * (time.perf_counter() - begun))
            plain, packed = (statistics.median(some[4:]) for some in taken.values())
            lines.append(
                f"| {dtype} | {rows} | {plain:.0f} | {packed:.0f} | {plain / packed:.2f} |"
            )
    return lines


if __name__ == "__main__":
    main()
