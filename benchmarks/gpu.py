"""Plain sampling on a GPU, against transformers' generate and against the memory's speed.

    python benchmarks/gpu.py [--bandwidth 3350]

A random-weight model of Llama-3.1-8B's shape in bfloat16, 512 draws of a 60-token prompt, 48 new
tokens each. --bandwidth is the device's, in GB/s, from its data sheet. Writes
benchmarks/results/gpu.md; without a GPU the row stays empty.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tailcast.models import HuggingFaceTarget
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, draw
from tailcast.types import SamplingSettings

RESULT = Path(__file__).resolve().parent / "results" / "gpu.md"
HEAD = (
    "# On a GPU\n\nWritten by `benchmarks/gpu.py`.\n\n"
    "| device | tailcast tokens/s | generate tokens/s | ratio | share of the memory's limit |\n"
    "|---|---:|---:|---:|---:|\n"
)
DRAWS, PROMPT, NEW = 512, 60, 48


class NoTokenizer:
    """Random weights have no words."""

    eos_token_id = None
    chat_template = None

    def decode(self, tokens: Any, **_: Any) -> str:
        """Token numbers."""
        return " ".join(map(str, tokens))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bandwidth", type=float, default=3350.0)
    bandwidth = parser.parse_args().bandwidth
    if not torch.cuda.is_available():
        RESULT.write_text(f"{HEAD}| none was at hand | | | | |\n", "utf-8")
        print("no GPU here: the row stays empty")
        return
    target = HuggingFaceTarget(model(), NoTokenizer())
    prompt = tuple(range(10, 10 + PROMPT))
    requests = [DrawRequest("q", prompt, Proposal.target(), i, f"{i}") for i in range(DRAWS)]
    settings = SamplingSettings(max_new_tokens=NEW)
    mine = rate(lambda: draw(target, requests, settings, slots=DRAWS))
    target.model.set_attn_implementation("sdpa")
    row = torch.tensor([prompt], device="cuda")
    theirs = rate(
        lambda: target.model.generate(
            row, do_sample=True, num_return_sequences=DRAWS, max_new_tokens=NEW, pad_token_id=0,
            min_new_tokens=NEW, top_k=0, attention_mask=torch.ones_like(row),
        )
    )  # fmt: skip
    weights = sum(one.numel() * one.element_size() for one in target.model.parameters())
    limit = DRAWS * bandwidth * 1e9 / (weights + DRAWS * target.slot_bytes(NEW) / 2)
    name = torch.cuda.get_device_name()
    line = f"| {name} | {mine:,.0f} | {theirs:,.0f} | {mine / theirs:.2f} | {mine / limit:.0%} |\n"
    RESULT.write_text(HEAD + line, "utf-8")
    print(line)


def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128256, max_position_embeddings=8192,
        eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        made = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return made


def rate(work: Callable[[], Any]) -> float:
    """Tokens a second, the second time."""
    work()
    torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return DRAWS * NEW / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
