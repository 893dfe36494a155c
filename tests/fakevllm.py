"""Stands in for an opened vLLM: enumerable laws, a cache that is salted, steering to break."""

from types import SimpleNamespace

import numpy as np
import torch

from greyserver import BOT, STEPS, prompt_of, world_of
from tailcast.models.vllm_engine import Vllm
from tailcast.models.vllm_target import VERSION
from tailcast.models.vllm_worker import START, STRENGTH

TWO = 7


def law_of(tokens, strength=0.0):
    """Log-probabilities of the next token; steering raises "two"."""
    place = tokens.index(BOT) + 1
    row = world_of(tokens[:place]).table[min(len(tokens) - place, STEPS - 1), tokens[-1]].copy()
    row[TWO] += 1.5 * strength
    return row - np.logaddexp.reduce(row)


def completions(prompt, strength=0.0):
    """Every completion with its log-probability."""

    def after(tokens, logp):
        if len(tokens) == STEPS or (tokens and tokens[-1] == 0):
            yield tokens, logp
            return
        for token, step in enumerate(law_of((*prompt, *tokens), strength)):
            yield from after((*tokens, token), logp + float(step))

    return after((), 0.0)


def params(**given):
    """As SamplingParams; what bends the law, and end tokens that are not ours, are refused."""
    usual = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "stop_token_ids": []}
    usual |= {"logprobs": None, "prompt_logprobs": None, "extra_args": None}
    assert given["ignore_eos"] and "min_tokens" not in given
    return SimpleNamespace(**{**usual, **given})


class FakeLLM:
    """As vllm.LLM, for token ids.

    Args:
        broken: "late": a position too late; "undrawn": scores alone are steered; "plain": no
            extension; "unsalted": the salts of caches are lost.
    """

    def __init__(self, broken=""):
        self.broken, self.rng, self.scale = broken, np.random.default_rng(), 0.0
        self.cache = {}
        config = SimpleNamespace(model_config=SimpleNamespace(dtype=torch.float32))
        self.llm_engine = SimpleNamespace(vllm_config=config)

    def collective_rpc(self, method, args=()):
        if method == "tailcast_reseed":
            self.rng = np.random.default_rng(args[0])
            return [None]
        if self.broken == "plain":
            raise NotImplementedError(method)
        if method == "tailcast_digest":
            return ["weights"]
        layer, direction = args
        self.scale = float(np.abs(direction).max())
        return ["" if layer == 1 else f"the model has layers 0 to 1, and no layer {layer}"]

    def law(self, prompt, tokens, said, *, drawing):
        """The law after tokens: from the cache, where a request of equal salt has left it."""
        strength = self.scale * said.get(STRENGTH, 0.0)
        steered = len(tokens) - 1 >= said.get(START, 0) + (self.broken == "late")
        if not steered or (drawing and self.broken == "undrawn"):
            strength = 0.0
        salt = prompt.get("cache_salt") if self.broken != "unsalted" else None
        return self.cache.setdefault((salt, drawing, *tokens), law_of(tokens, strength))

    def generate(self, prompts, asked, use_tqdm):
        return [self.answer(*pair) for pair in zip(prompts, asked, strict=True)]

    def answer(self, prompt, one):
        tokens, said = tuple(prompt["prompt_token_ids"]), one.extra_args or {}
        given, start = None, tokens.index(BOT) + 1
        if one.prompt_logprobs is not None:
            given = [None] * start + [
                {
                    tokens[end]: SimpleNamespace(
                        logprob=self.law(prompt, tokens[:end], said, drawing=False)[tokens[end]]
                    )
                }
                for end in range(start, len(tokens))
            ]
        new, told, finish = [], [], "length"
        while len(new) < one.max_tokens and finish == "length":
            law = self.law(prompt, (*tokens, *new), said, drawing=True)
            mass = np.exp(law)
            new.append(int(self.rng.choice(12, p=mass / mass.sum())))
            told.append({new[-1]: SimpleNamespace(logprob=law[new[-1]])})
            finish = "stop" if new[-1] in one.stop_token_ids else "length"
        output = SimpleNamespace(token_ids=new, finish_reason=finish, logprobs=told)
        return SimpleNamespace(outputs=[output], prompt_logprobs=given)


def opened(broken=""):
    """As open_vllm gives it."""
    return Vllm(FakeLLM(broken), params, True, VERSION)


__all__ = ["TWO", "FakeLLM", "completions", "law_of", "opened", "params", "prompt_of"]
