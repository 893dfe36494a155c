"""Does each of the paper's architectures run? Random models of their shape, shrunk, to try it on.

    python examples/paper/tiny_models.py FOLDER

Every ``shapes/NAME/config.json`` keeps what makes its architecture (rotary scaling, sliding
windows, fused projections, tied embeddings, places of the norms) and loses its size. The
tokenizer knows the 256 bytes, so that any text can be said. What these models answer is noise.
"""

import argparse
import json
from pathlib import Path
from typing import Any

__all__ = ["SHAPES", "shrunk", "write_tiny_model"]

SHAPES = Path(__file__).resolve().parent / "shapes"

_WIDTH, _LAYERS, _HEADS, _WINDOW, _NOISE = 64, 4, 4, 16, 0.15
_MARKS = ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder NAME is made in it for each model")
    folder = parser.parse_args().folder
    for shape in sorted(SHAPES.iterdir()):
        print(write_tiny_model(shape, folder / shape.name))


def write_tiny_model(shape: Path, out: Path, *, seed: int = 0) -> Path:
    """Save a random model of a shape, with its tokenizer, as a directory that tailcast loads.

    Args:
        shape: Folder of a ``config.json``.
        out: Folder to write.
        seed: Of the weights.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    fast = _tokenizer()
    fields = shrunk(json.loads((shape / "config.json").read_text("utf-8")), len(fast))
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():  # as initialised, all tokens are nearly equally likely
        for weight in model.parameters():
            weight += _NOISE * torch.randn_like(weight) * (weight.ndim > 1)
    model.save_pretrained(out)
    fast.save_pretrained(out)
    return out


def shrunk(fields: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The fields of a config for few layers, narrow ones, and a vocabulary of so many tokens."""
    many = fields["num_attention_heads"] == fields["num_key_value_heads"]
    small: dict[str, Any] = {
        "vocab_size": tokens, "hidden_size": _WIDTH, "intermediate_size": 2 * _WIDTH,
        "num_hidden_layers": _LAYERS, "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS if many else _HEADS // 2,
        "bos_token_id": None, "eos_token_id": [0], "pad_token_id": 0,
    }  # fmt: skip
    if "head_dim" in fields:
        small["head_dim"] = _WIDTH // _HEADS
    if fields.get("sliding_window"):
        small["sliding_window"] = _WINDOW  # so that a short text is longer
    return {**fields, **small}


def _tokenizer() -> Any:
    """The 256 bytes and the marks of a chat; the first token ends a response."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: number for number, word in enumerate((*_MARKS, *alphabet))}
    letters = Tokenizer(models.BPE(vocab=words, merges=[]))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters.decoder = decoders.ByteLevel()
    letters.add_special_tokens(list(_MARKS))
    fast = PreTrainedTokenizerFast(tokenizer_object=letters, eos_token=_MARKS[0])
    fast.chat_template = _TEMPLATE
    return fast


if __name__ == "__main__":
    main()
