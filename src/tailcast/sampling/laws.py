"""From logits to the law of the next token, and from a uniform number to the token.

The target's law is softmax(logits / temperature) cut by top_k, then by top_p, in the
order and with the ties of transformers' own warpers. The steered law keeps exactly the
tokens that the target keeps and is normalised over them: no draw is spent on a token
that the target forbids, no token that it allows is out of reach, and strength 0 is the
target itself, truncated or not.
"""

import math

import torch
from torch import Tensor

from tailcast.types import SamplingSettings

_BLOCK = 256

__all__ = ["inverse_cdf", "mixture_law", "steered_law", "target_law"]


def target_law(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Log-probabilities of the next token under the target, [n, V], float32 or better.

    Args:
        logits: Raw logits, [n, V], float32 or float64.
        settings: Temperature, top_k and top_p; -inf marks the tokens that they cut.
    """
    scores = logits / settings.temperature if settings.temperature != 1.0 else logits
    if 0 < settings.top_k < scores.shape[-1]:
        smallest_kept = torch.topk(scores, settings.top_k, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < smallest_kept, -math.inf)
    if settings.top_p < 1.0:
        ascending, order = torch.sort(scores, descending=False, dim=-1)
        cut = ascending.softmax(-1).cumsum(-1) <= 1.0 - settings.top_p
        cut[..., -1] = False
        scores = scores.masked_fill(cut.scatter(-1, order, cut), -math.inf)
    return scores.log_softmax(-1)


def steered_law(logits: Tensor, settings: SamplingSettings, target: Tensor) -> Tensor:
    """Log-probabilities under the steered model, over the tokens that the target keeps.

    Args:
        logits: Raw logits of the steered streams, [n, V].
        settings: Only the temperature is read; the cut is the target's.
        target: :func:`target_law` of the same rows, [n, V].
    """
    scores = logits / settings.temperature if settings.temperature != 1.0 else logits
    if settings.top_k or settings.top_p < 1.0:
        scores = scores.masked_fill(torch.isneginf(target), -math.inf)
    return scores.log_softmax(-1)


def mixture_law(target: Tensor, steered: Tensor, mix: Tensor) -> Tensor:
    """log((1 - mix) s + mix p), mixed in log space, [n, V].

    Args:
        target: log p, [n, V].
        steered: log s, [n, V].
        mix: alpha_mix of each row, [n].
    """
    share_p, share_s = torch.log(mix)[:, None], torch.log1p(-mix)[:, None]
    return torch.logaddexp(steered + share_s, target + share_p)


def inverse_cdf(log_law: Tensor, rows: Tensor, uniforms: Tensor) -> Tensor:
    """The tokens at which the cumulative law passes the uniform numbers, [m] int64.

    Sums over blocks of tokens come first, then those within one block, so that little is
    summed twice. They are float64: in float32 about one token in six of a large vocabulary
    has zero width, and 8e-5 of the mass can never be drawn (method.md section 9).

    Args:
        log_law: Log-probabilities, [n, V]; need not be normalised.
        rows: Which law each token is drawn from, [m] int64.
        uniforms: One number in [0, 1) for each token, [m] float64.
    """
    rows, uniforms = rows.to(log_law.device), uniforms.to(log_law.device)
    mass = log_law.exp()
    if short := -mass.shape[-1] % _BLOCK:
        mass = torch.nn.functional.pad(mass, (0, short))
    mass = mass.view(len(mass), -1, _BLOCK)
    blocks = mass.sum(-1, dtype=torch.float64).cumsum(-1)[rows]
    block, rest = _passed(blocks, uniforms * blocks[:, -1])
    token, _ = _passed(mass[rows, block].double().cumsum(-1), rest)
    return block * _BLOCK + token


def _passed(cumulative: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
    """First place whose cumulative sum lies above each point, and what is left of it, [m]."""
    total = cumulative[:, -1:]
    point = point[:, None].clamp(min=0.0)
    point = torch.minimum(point, torch.nextafter(total, torch.zeros_like(total)))
    place = torch.searchsorted(cumulative, point, right=True)
    before = torch.nn.functional.pad(cumulative, (1, 0)).gather(-1, place)
    return place.squeeze(-1), (point - before).squeeze(-1)
