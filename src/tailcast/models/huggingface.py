"""A decoder-only transformers model as a target: prompts, activations, streams."""

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from tailcast.errors import ModelError
from tailcast.models import attention
from tailcast.models.attention import PromptPass, SlotCache, Tail
from tailcast.models.head import widen_head
from tailcast.models.layers import DecoderLayers, find_layers
from tailcast.models.packed import pack_products
from tailcast.models.prompt_format import PromptFormat, end_tokens
from tailcast.models.steerer import Steerer
from tailcast.types import SteeringVector

__all__ = ["HuggingFaceTarget", "weights_fingerprint"]

_PASSES_KEPT = 32


def weights_fingerprint(model: Any) -> str:
    """Digest of names, shapes and 64 values of every weight, to the precision of bfloat16."""
    digest = sha256()
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 64)].bfloat16().float().cpu().numpy()
        digest.update(f"{name}{tuple(weight.shape)}".encode() + sample.tobytes())
    return digest.hexdigest()[:16]


class HuggingFaceTarget(PromptFormat):
    """A transformers model behind the seam.

    Args:
        model: A causal language model in evaluation mode; its attention implementation is
            set to ours, which is transformers' own outside tailcast's passes, and its logits
            are float32 from here on, whatever its weights. While they are sampled from, these
            stay as they are, because prompts are kept: make a new target of a changed model.
        tokenizer: Its tokenizer.
        system_prompt: Put before every query; None leaves the template's own default.
        plain_prompt: Do without a chat template: the contents of the messages, one a line.

    Raises:
        ModelError: If the model cannot be driven by this loop; the sentence says why.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, system_prompt: str | None = None,
        plain_prompt: bool = False,
    ) -> None:  # fmt: skip
        from tailcast.models.lean import make_lean

        attention.register()
        self.model = model.eval()
        ends = end_tokens(model.generation_config, tokenizer)
        super().__init__(tokenizer, ends, system_prompt=system_prompt, plain_prompt=plain_prompt)
        self.config = model.config.get_text_config()
        self._passes: dict[tuple[int, ...], PromptPass] = {}
        self.layers: DecoderLayers = find_layers(model, self.config)
        model.set_attn_implementation(attention.NAME)
        widen_head(model)
        pack_products(model)
        make_lean(self.layers.layers)
        self._check_decoding()

    @property
    def width(self) -> int:
        """Width d of the residual stream."""
        return int(self.config.hidden_size)

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        return len(self.layers.layers)

    @property
    def like(self) -> Tensor:
        """A floating-point parameter, the first: for dtype, and the device that tokens go to."""
        found: Tensor = next(p for p in self.model.parameters() if p.is_floating_point())
        return found

    @property
    def plain_weights(self) -> bool:
        """Whether all weights are torch's own kind of tensor; others refuse its inference mode."""
        return all(type(weight) is Parameter for weight in self.model.parameters())

    @property
    def devices(self) -> set[torch.device]:
        """Where it lies."""
        return {weight.device for weight in self.model.parameters()}

    @property
    def unembedding(self) -> Tensor:
        """Output embedding, from the last hidden state to logits, [V, d]."""
        found: Tensor = self.model.get_output_embeddings().weight
        return found

    @property
    def revision(self) -> str:
        """Commit that the hub gave the model at; empty for local files."""
        return getattr(self.model.config, "_commit_hash", None) or ""

    @cached_property
    def fingerprint(self) -> str:
        """Digest of weights and prompt format, and the dtype, which decides the rounding."""
        digest = sha256(self.format + self.weights_fingerprint.encode())
        return f"{digest.hexdigest()[:16]} in {str(self.like.dtype).removeprefix('torch.')}"

    @cached_property
    def weights_fingerprint(self) -> str:
        """What steering vectors are bound to: the weights, not the dtype in which they run."""
        return weights_fingerprint(self.model)

    def stream(
        self, steering: SteeringVector | None, *, slots: int, max_new_tokens: int
    ) -> "HuggingFaceStream":
        """An empty batch of slots.

        Raises:
            SteeringError: If the vector does not fit the model.
        """
        return HuggingFaceStream(self, steering, slots, max_new_tokens)

    def activations(self, prompt: Sequence[int], response: Sequence[int]) -> NDArray[np.float32]:
        """Residual stream at the output of every layer for prompt and response, [L, P + R, d]."""
        outputs: list[Tensor] = []

        def keep(module: Any, args: Any, output: Any) -> None:
            outputs.append(output[0] if isinstance(output, tuple) else output)

        with ExitStack() as stack:
            for layer in self.layers.layers:
                stack.callback(layer.register_forward_hook(keep).remove)
            self.prompt_pass([*prompt, *response])
        return torch.stack([output[0].float().cpu() for output in outputs]).numpy()

    def plain_pass(self, tokens: tuple[int, ...]) -> PromptPass:
        """Keys and values of unsteered tokens; those of the last few prompts are kept."""
        if tokens not in self._passes:
            self._passes[tokens] = self.prompt_pass(tokens) if tokens else PromptPass()
            if len(self._passes) > _PASSES_KEPT:
                del self._passes[next(iter(self._passes))]
        return self._passes[tokens]

    def prompt_pass(
        self, tokens: Sequence[int], steerer: Steerer | None = None, strength: float = 0.0
    ) -> PromptPass:
        """Keys and values of a row of tokens; no logits are made of them."""
        current = PromptPass()
        strengths = torch.tensor([strength], device=self.like.device)
        hooks = steerer.steering(strengths) if steerer else nullcontext()
        with torch.no_grad(), attention.attending(current), hooks:
            self.model.get_decoder()(**self._inputs([list(tokens)], [list(range(len(tokens)))]))
        return current

    def forward(self, tokens: Any, positions: Any) -> Tensor:
        """Logits of the last token of each row, [rows, V]; no cache of transformers'."""
        output = self.model(**self._inputs(tokens, positions), logits_to_keep=1)
        logits: Tensor = output.logits[:, -1]
        return logits.cpu() if logits.device.type == "mps" else logits  # it has no float64

    def _inputs(self, tokens: Any, positions: Any) -> dict[str, Any]:
        device = self.like.device
        return {
            "input_ids": torch.as_tensor(tokens, device=device),
            "position_ids": torch.as_tensor(positions, device=device),
            "use_cache": False,
        }

    def slot_bytes(self, max_new_tokens: int) -> int:
        """Memory of one row: keys and values of its own tokens, its logits, its activations."""
        cache = self.plain_pass((0,))
        kept = [*cache.keys.values(), *cache.values.values()]
        a_token = sum(part.numel() * part.element_size() for part in kept)
        laws = 1 if self.like.device.type == "cpu" else 8  # CPUs make few laws at a time
        wide = 4 * laws * self.config.vocab_size + 32 * self.width * self.like.element_size()
        return int(max_new_tokens * a_token + wide)

    def check_length(self, prompt: Sequence[int], max_new_tokens: int) -> None:
        """Refuse prompts that leave no room for the response.

        Raises:
            ModelError: If prompt and limit together pass the model's context.
        """
        limit = getattr(self.config, "max_position_embeddings", None) or math.inf
        if len(prompt) + max_new_tokens > limit:
            raise ModelError(
                f"a prompt of {len(prompt)} tokens and {max_new_tokens} new ones pass the model's "
                f"context of {limit}: shorten the query or lower max_new_tokens."
            )

    def _check_decoding(self) -> None:
        """Step a few tokens through our attention and compare with transformers' own forward."""
        count = min(8, self.config.vocab_size)
        tokens = [(7 * step + 3) % self.config.vocab_size for step in range(count)]
        row = torch.tensor([tokens], device=self.like.device)
        try:
            with torch.no_grad():
                expected = self.model(input_ids=row, use_cache=False).logits[0, -1].float()
            stream = self.stream(None, slots=2, max_new_tokens=count)
            stream.open(tuple(tokens[: count // 2]), 0.0)
            for token in tokens[count // 2 - 1 :]:
                logits = stream.push(torch.tensor([token]))
        except ModelError:
            raise
        except Exception as error:  # whatever an unknown architecture trips over
            raise ModelError(
                f"{type(self.model).__name__} cannot be run by tailcast's decode loop "
                f"({type(error).__name__}: {error}): choose a decoder-only transformer."
            ) from error
        gap = (logits[0].log_softmax(-1) - expected.log_softmax(-1)).abs().mean().item()
        bound = 1e-3 if self.like.dtype == torch.float32 else 0.25
        if not gap < bound and torch.isfinite(expected).all():
            raise ModelError(
                f"{type(self.model).__name__} cannot be run by tailcast's decode loop: stepping "
                f"differs from a plain forward by {gap:.2g} nats a token (bound {bound:g})."
            )


class HuggingFaceStream:
    """Open slots of a transformers model; the prompt of equal slots is computed once.

    At ``response`` positions the prompt but its last token is shared by all strengths, and
    the last token is the first one steered. At ``all`` positions each strength has its own
    prompt.
    """

    def __init__(
        self, target: HuggingFaceTarget, steering: SteeringVector | None, slots: int, length: int
    ) -> None:
        self.target = target
        self.steerer = (
            Steerer(steering, target.layers, target.width, target.like) if steering else None
        )
        self.length = length
        self.cache = SlotCache(slots, length)
        self.strengths: list[float] = []
        self._prefixes: dict[tuple[tuple[int, ...], float], int] = {}

    def open(self, prompt: tuple[int, ...], strength: float, state: Tail | None = None) -> None:
        """Add a slot at the end: after the prompt but its last token, or where a state was."""
        self.cache.add(self._prefix(prompt, strength), state)
        self.strengths.append(strength)

    def save(self, slot: int) -> Tail:
        """A copy of the keys and values of a slot's own tokens."""
        return self.cache.tail(slot)

    def close(self, slots: Iterable[int]) -> list[int]:
        """Drop slots; the i-th number returned is the former slot that is now slot i."""
        order = self.cache.close(list(slots))
        self.strengths = [self.strengths[old] for old in order]
        return order

    def push(self, tokens: Tensor) -> Tensor:
        """Append one token to every slot; next-token logits of each, [n, V]."""
        positions = self.cache.positions()
        with torch.no_grad(), self.cache.appending(), self._steering():
            return self.target.forward(tokens[:, None], [[place] for place in positions])

    def _steering(self) -> AbstractContextManager[None]:
        """Every slot steered as strongly as its next token asks for."""
        if not self.steerer:
            return nullcontext()
        slots = zip(self.strengths, self.cache.written, strict=True)
        strengths = [one * self.steerer.vector.factor(step) for one, step in slots]
        return self.steerer.steering(torch.tensor(strengths, device=self.target.like.device))

    def _prefix(self, prompt: tuple[int, ...], strength: float) -> int:
        """Index of the stored prompt, all but its last token, under a strength."""
        vector = self.steerer.vector if self.steerer else None
        steered = strength * vector.factor(0) if vector and vector.positions == "all" else 0.0
        key = (prompt, steered)
        if key not in self._prefixes:
            self.target.check_length(prompt, self.length)
            if steered:
                current = self.target.prompt_pass(prompt[:-1], self.steerer, steered)
            else:
                current = self.target.plain_pass(prompt[:-1])
            self.cache.prefixes.append(current)
            self._prefixes[key] = len(self.cache.prefixes) - 1
        return self._prefixes[key]
