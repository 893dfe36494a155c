"""Attention over shared prompts and own tails, against each row's attention written out."""

import math

import pytest
import torch

from tailcast.models.attention import PromptPass, SlotCache
from tailcast.models.geometry import Geometry

HEADS, WIDTH, VALUE = 4, 8, 6
KV = {0: 4, 1: 2}  # heads of keys by layer
PROMPTS = (5, 0, 19)
LENGTH = 21
BOUND = {torch.float32: 1e-5, torch.bfloat16: 2.0**-5}


class Rows:
    """A cache, and all that its rows should see, side by side."""

    def __init__(self, dtype, prompts=PROMPTS):
        self.random = torch.manual_seed(0)
        self.dtype = dtype
        self.cache = SlotCache(6, LENGTH)
        for length in prompts:
            parts = {layer: self.pair(heads, length) for layer, heads in KV.items() if length}
            keys, values = ({at: both[i] for at, both in parts.items()} for i in (0, 1))
            self.cache.prefixes.append(PromptPass(keys, values))
        self.seen = []

    def pair(self, heads, length):
        return [
            torch.randn(heads, length, width, generator=self.random).to(self.dtype)
            for width in (WIDTH, VALUE)
        ]

    def open(self, prompt, saved=None):
        tail, seen = saved or (None, None)
        self.cache.add(prompt, tail)
        stored = self.cache.prefixes[prompt]
        fresh = {
            at: [stored.keys[at], stored.values[at]] if stored.keys else self.pair(heads, 0)
            for at, heads in KV.items()
        }
        self.seen.append({**seen} if seen else fresh)

    def close(self, slots):
        self.seen = [self.seen[old] for old in self.cache.close(slots)]

    def step(self, how):
        """Largest gap between what the cache reads for the rows and what they should see."""
        gaps = []
        with self.cache.appending():
            for layer, heads in KV.items():
                news = [self.pair(heads, 1) for _ in self.seen]
                keys, values = (torch.stack(some) for some in zip(*news, strict=True))
                queries = torch.randn(len(news), HEADS, 1, WIDTH, generator=self.random)
                queries = queries.to(self.dtype)
                found = self.cache.attend(layer, queries, keys, values, how)
                for row, new in enumerate(news):
                    both = zip(self.seen[row][layer], new, strict=True)
                    self.seen[row] |= {layer: [torch.cat(some, 1) for some in both]}
                    truth = written_out(queries[row], *self.seen[row][layer], how)
                    gaps.append((found[row] - truth).abs().max().item())
        return max(gaps)


def written_out(query, keys, values, how):
    """Attention of one token's heads [heads, 1, width] to [kv heads, n, width], in float64."""
    groups = HEADS // keys.shape[0]
    keys, values = (some.double().repeat_interleave(groups, 0) for some in (keys, values))
    scores = query.double() @ keys.transpose(1, 2) * how.scaling
    if how.softcap:
        scores = how.softcap * torch.tanh(scores / how.softcap)
    if how.window:
        scores[..., : max(0, keys.shape[1] - how.window)] = -math.inf
    return scores.softmax(-1) @ values


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("scaling", [0.25, 0.3])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (4, None), (None, 2.0)])
@pytest.mark.parametrize("prompts", [PROMPTS, (7,), (0,)])
def test_rows_see_their_prompt_and_what_they_wrote(dtype, scaling, window, softcap, prompts):
    how = Geometry(scaling, window, softcap)
    rows = Rows(dtype, prompts)
    gaps = []
    for number in range(4):
        rows.open(number % len(prompts))
        gaps += [rows.step(how) for _ in range(3)]  # rows of unequal lengths
    saved = rows.cache.tail(1), {**rows.seen[1]}
    prompt = rows.cache.prefix[1]
    rows.close([1])
    gaps += [rows.step(how) for _ in range(5)]
    rows.open(prompt, saved)
    gaps += [rows.step(how) for _ in range(LENGTH - 18)]
    assert max(gaps) < BOUND[dtype]
    rows.cache.keys[0][0, :, 0] += 1.0  # what is no longer what was written shows
    if not window:
        assert rows.cache.prefix[0] == 0 and rows.step(how) > BOUND[dtype]
