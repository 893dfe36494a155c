"""From logits to the law of the next token, and from a uniform number to the token.

The target's law is softmax(logits / temperature) cut by top_k, then by top_p, in the
order and with the ties of transformers' own warpers. The steered law keeps exactly the
tokens that the target keeps and is normalised over them: no draw is spent on a token
that the target forbids, no token that it allows is out of reach, and strength 0 is the
target itself, truncated or not.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from tailcast.types import SamplingSettings

_BLOCK = 256
_CACHE_SIZED = 2**20  # numbers

__all__ = ["batched", "inverse_cdf", "mixture_law", "scores_of", "target_law", "target_mass"]

Thing = TypeVar("Thing")


def batched(things: Iterable[Thing], logits: Tensor) -> Iterator[list[Thing]]:
    """Things with a law each, in batches that are best computed together.

    On a CPU that is no more than its caches hold: larger tables are written to fresh memory
    pass after pass, which costs several times what the arithmetic does.

    Args:
        things: What the laws are of.
        logits: What they are computed from, [n, V].
    """
    size = max(1, _CACHE_SIZED // logits.shape[-1]) if logits.device.type == "cpu" else None
    rest = iter(things)
    while some := list(islice(rest, size)):
        yield some


def target_law(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Log-probabilities of the next token under the target, [n, V], float32 or better.

    Args:
        logits: Raw logits, [n, V], in any dtype.
        settings: Temperature, top_k and top_p; -inf marks the tokens that they cut.
    """
    return _kept(logits, settings).log_softmax(-1)


def target_mass(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Probabilities of the next token under the target, [n, V], float32 or better.

    Where tokens are drawn from the target alone: those drawn are never so rare that the
    logarithm of a probability says less than :func:`target_law`, and one exponential is saved.

    Args:
        logits: Raw logits, [n, V], in any dtype.
        settings: Temperature, top_k and top_p; tokens that they cut have none.
    """
    return _kept(logits, settings).softmax(-1)


def _kept(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Scores, -inf where top_k and top_p cut."""
    scores = scores_of(logits, settings)
    if 0 < settings.top_k < scores.shape[-1]:
        smallest_kept = torch.topk(scores, settings.top_k, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < smallest_kept, -math.inf)
    if settings.top_p < 1.0:
        ascending, order = torch.sort(scores, descending=False, dim=-1)
        cut = ascending.softmax(-1).cumsum(-1) <= 1.0 - settings.top_p
        cut[..., -1] = False
        scores = scores.masked_fill(cut.scatter(-1, order, cut), -math.inf)
    return scores


def scores_of(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Scores of a law: logits over the temperature, in float32 or better."""
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return exact / settings.temperature if settings.temperature != 1.0 else exact


def mixture_law(target: Tensor, steered: Tensor, mix: Tensor) -> Tensor:
    """log((1 - mix) s + mix p), mixed in log space, [n, V].

    Args:
        target: log p, [n, V].
        steered: log s, [n, V].
        mix: alpha_mix of each row, [n].
    """
    share_p, share_s = torch.log(mix)[:, None], torch.log1p(-mix)[:, None]
    return torch.logaddexp(steered + share_s, target + share_p)


def inverse_cdf(mass: Tensor, rows: Tensor, uniforms: Tensor) -> Tensor:
    """The tokens at which the cumulative law passes the uniform numbers, [m] int64.

    A block of tokens is found first, by the float32 sums of the blocks, then the token within
    it by what is left of the uniform number, as a share of the block. Both sums run in
    float64, and sums of different precision are never compared: every token keeps its
    probability to a relative 1e-6. A float32 sum over a whole large vocabulary gives zero
    width to one token in six, so that 8e-5 of the mass is never drawn (method.md section 9).

    Args:
        mass: Probabilities, [n, V]; need not be normalised.
        rows: Which law each token is drawn from, [m] int64.
        uniforms: One number in [0, 1) for each token, [m] float64.
    """
    rows, uniforms = rows.to(mass.device), uniforms.to(mass.device)
    if short := -mass.shape[-1] % _BLOCK:
        mass = torch.nn.functional.pad(mass, (0, short))
    mass = mass.view(len(mass), -1, _BLOCK)
    block, rest = _passed(mass.sum(-1)[rows], uniforms)
    token, _ = _passed(mass[rows, block], rest)
    return block * _BLOCK + token


def _passed(mass: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """First place whose cumulative mass passes each share, and the share within it, [m]."""
    cumulative = mass.double().cumsum(-1)
    total = cumulative[:, -1:]
    point = torch.minimum(share[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    place = torch.searchsorted(cumulative, point, right=True)
    start = torch.nn.functional.pad(cumulative, (1, 0)).gather(-1, place)
    within = (point - start) / (cumulative.gather(-1, place) - start)
    return place.squeeze(-1), within.squeeze(-1)
