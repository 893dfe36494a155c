"""Where does the time of plain sampling go? Writes a table of torch's profiler.

    python benchmarks/step_profile.py [--label NAME] [--packing | --lean | --limit]

128 draws of one 60-token prompt, 48 tokens, temperature 0.7, SmolLM2-135M in bfloat16. The table
is appended to benchmarks/results/profile.md under its label; run it at two commits to compare.
With --packing it is a table of the time of a step with packed weights and without, turn by turn;
with --lean, of one by our layers and by transformers'; with --limit, of what a step would take if
it were nothing but its matrix products, done as fast as this machine does large ones.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from tailcast.models import HuggingFaceTarget, load_target
from tailcast.models.embedded import gguf_file
from tailcast.models.lean import LeanLayer
from tailcast.models.packed import PackedLinear
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, draw
from tailcast.types import ModelSettings, Query, SamplingSettings

RESULT = Path(__file__).resolve().parent / "results" / "profile.md"
Step = Callable[[], Any]
STORY = "Write a short story about a lighthouse keeper who finds a map in an old bottle. "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--label", default="now")
    kind = parser.add_mutually_exclusive_group()
    for name, work in (("--packing", packing), ("--lean", leanness), ("--limit", limit)):
        kind.add_argument(name, dest="work", action="store_const", const=work, default=profiled)
    options = parser.parse_args()
    lines = ["## " + options.label, "", *options.work(), ""]
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


def steps(target: HuggingFaceTarget, prompt: tuple[int, ...], rows: int) -> Iterator[Step]:
    """Forward passes of so many rows, one after the other, up to 44 tokens."""
    stream = target.stream(None, slots=rows, max_new_tokens=48)
    for _ in range(rows):
        stream.open(prompt, 0.0)
    for step in range(44):
        tokens = (torch.arange(rows) * 97 + step * 31) % 40_000
        yield lambda tokens=tokens: stream.push(tokens)


def milliseconds(work: Step) -> float:
    begun = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begun)


def packing() -> list[str]:
    """Milliseconds of a step of transformers' layers by plain weights and by packed ones."""
    return by_turns(torch.nn.Linear, PackedLinear)


def leanness() -> list[str]:
    """Milliseconds of a step by transformers' layers and by ours."""
    return by_turns(LlamaDecoderLayer, LeanLayer)


def by_turns(plain: type, better: type) -> list[str]:
    """Milliseconds of a step with modules of one class or another, medians of 40 of either."""
    lines = [
        f"| dtype | rows | {plain.__name__}, ms | {better.__name__}, ms | ratio |",
        "|---|---:|---:|---:|---:|",
    ]
    for dtype in ("bfloat16", "float32"):
        target, prompt = loaded(dtype)
        changed = [one for one in target.model.modules() if type(one) is better]
        for layer in target.layers.layers:
            layer.__class__ = LlamaDecoderLayer
        for rows in (1, 16, 64, 128, 256):
            taken: dict[type, list[float]] = {plain: [], better: []}
            for both in zip(*(steps(target, prompt, rows) for _ in taken), strict=True):
                for kind, step in zip(taken, both, strict=True):
                    for one in changed:
                        one.__class__ = kind
                    taken[kind].append(milliseconds(step))
            slow, fast = (statistics.median(some[4:]) for some in taken.values())
            lines.append(f"| {dtype} | {rows} | {slow:.0f} | {fast:.0f} | {slow / fast:.2f} |")
    return lines


def limit() -> list[str]:
    """Milliseconds of a step, and of its products alone at this machine's best."""
    best = {dtype: operations(dtype) for dtype in (torch.bfloat16, torch.float32)}
    lines = [
        "Large products here: " + ", ".join(
            f"{rate / 1e9:,.0f} GFLOP/s in {str(dtype).removeprefix('torch.')}"
            for dtype, rate in best.items()
        ) + ". The head's product is in float32.", "",
        "| dtype | rows | a step, ms | its layers' products | the head's | what is over |",
        "|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for dtype in ("bfloat16", "float32"):
        target, prompt = loaded(dtype)
        body = sum(
            one.weight.numel() for one in target.model.get_decoder().modules()
            if isinstance(one, torch.nn.Linear)
        )  # fmt: skip
        for rows in (16, 64, 128, 256):
            taken = statistics.median([milliseconds(one) for one in steps(target, prompt, rows)])
            layers = 2e3 * rows * body / best[target.like.dtype]
            head = 2e3 * rows * target.unembedding.numel() / best[torch.float32]
            lines.append(
                f"| {dtype} | {rows} | {taken:.0f} | {layers:.0f} | {head:.0f} | "
                f"{taken - layers - head:.0f} |"
            )
    return lines


def operations(dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large product by packed weights, the best of 9."""
    width = 4096
    product = PackedLinear(width, width, bias=False, dtype=dtype)
    numbers = torch.randn(width, width, dtype=dtype)
    with torch.no_grad():
        best = min(milliseconds(lambda: product(numbers)) for _ in range(9))
    return 2e3 * width**3 / best


if __name__ == "__main__":
    main()
