"""A random-weight model with a 12-word vocabulary on disk, its exact risk, and the command line."""

from pathlib import Path

import numpy as np
import torch

WORDS = [
    "<end>",
    "<user>",
    "<bot>",
    "red",
    "blue",
    "green",
    "one",
    "two",
    "yes",
    "no",
    "tell",
    "me",
]
TEMPLATE = "{% for m in messages %}<user> {{ m['content'] }} {% endfor %}<bot>"


def save_model(path: Path, *, template: bool = True, width: int = 16, layers: int = 2) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="me"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")
    tokenizer.chat_template = TEMPLATE if template else None
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=12, hidden_size=width, intermediate_size=32, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
        bos_token_id=None, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.25 * torch.randn_like(weight) * (weight.ndim > 1)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def exact_risk(
    path: Path, prompt: str, word: str, steps: int, *, temperature=1.0, top_k=0, top_p=1.0
):
    """P(word appears twice) by transformers' plain forward over every sequence."""
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    start = tokenizer(f"<user> {prompt} <bot>")["input_ids"]
    hit = WORDS.index(word)
    warpers = [TemperatureLogitsWarper(temperature)]
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    rows, mass, total = np.array([start]), np.ones(1), 0.0
    for _ in range(steps):
        with torch.no_grad():
            scores = model(input_ids=torch.from_numpy(rows)).logits[:, -1].double()
        for warper in warpers:
            scores = warper(None, scores)
        law = scores.softmax(-1).numpy()
        rows = np.concatenate(
            [np.repeat(rows, 12, 0), np.tile(np.arange(12), len(rows))[:, None]], 1
        )
        mass = (mass[:, None] * law).ravel()
        twice = (rows[:, len(start) :] == hit).sum(1) >= 2
        ended = rows[:, -1] == 0
        total += mass[twice].sum()
        rows, mass = rows[~twice & ~ended & (mass > 0)], mass[~twice & ~ended & (mass > 0)]
    return float(total)


def call(capsys, *words):
    """Run in this process; exit code, stdout, stderr."""
    from tailcast.cli import main

    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capsys.readouterr()
    return code, out, err
