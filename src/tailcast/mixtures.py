"""How are a query's draws shared out over several proposals, and how likely was each?

A mixture over whole sequences (method.md section 5; Owen and Zhou 2000): of n draws, n_j come
from proposal j, which is fixed in advance, and a draw counts with p over

    q(x) = sum_j (n_j / n) q_j(x),

whichever proposal brought it: the balance heuristic. With the target among the proposals no
weight exceeds n over the number of its draws, however wrong the others are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tailcast.errors import ConfigError
from tailcast.proposals import Floats, Proposal, StreamKey, log_ratio_after

__all__ = ["Mixture", "allocate", "default_components", "log_ratios", "streams_of"]

KINDS = (
    "prefill:TEXT", "hits:DIR", "prompt:TEXT", "vector:FILE@LAYER", "adapter:DIR",
    "model:NAME", "learned:FILE", "tilt:BETA:STREAM",
)  # fmt: skip
"""Kinds of streams by what a user writes after --streams (docs/streams.md)."""
LEARNING = "openings"
"""The kind of stream that is fitted to a run's own hits, round by round."""
OPENINGS = (LEARNING, "prefill:", "hits:")
STEERED = ("vector:",)
WITH_MODELS = ("vector:", "adapter:", "model:", "tilt:")  # hold a model of their own


def default_components(
    strengths: Iterable[float], switches: Iterable[int], heats: Iterable[float],
    kinds: Iterable[str] = (), *, steered: bool = True,
) -> tuple[Proposal, ...]:  # fmt: skip
    """The target, then every strength and every heat of it with every switch, then other streams.

    Args:
        strengths: Of the steering, where there is a vector, and of streams with one of their own.
        switches: Numbers of first tokens; openings give way to the target by themselves and
            get the largest only.
        heats: Of the target.
        kinds: Kinds of other streams, by name.
        steered: Whether there is a steering vector.
    """
    strengths, ends = tuple(strengths), sorted(set(switches))
    keys = [StreamKey(one) for one in strengths if steered]
    keys += [StreamKey(0.0, heat) for heat in heats]
    for kind in kinds:
        own = strengths if kind.startswith(STEERED) else (0.0,)
        keys += [StreamKey(strength, 1.0, kind) for strength in own]
    others = (
        Proposal(key.strength, end, 0.0, key.heat, key.kind)
        for key in keys
        for end in (ends[-1:] if key.kind.startswith(OPENINGS) else ends)
    )
    return Proposal.target(), *others


@dataclass(frozen=True)
class Mixture:
    """Proposals and the number of draws of each.

    Attributes:
        components: J proposals; the first one is the target.
        counts: Draws of each, J of them.
    """

    components: tuple[Proposal, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.components[0].is_target:
            raise ConfigError("the first component of a mixture must be the target.")

    def __len__(self) -> int:
        return sum(self.counts)

    @property
    def shares(self) -> Floats:
        """n_j / n, [J]."""
        return np.array(self.counts) / max(1, len(self))

    def index(self, numbers: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Which component draws are from, by their numbers: those of the first come first, [n]."""
        found: NDArray[np.int64] = self._ends.searchsorted(numbers, side="right")
        return found

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """One past the number of each component's last draw, [J]."""
        return np.cumsum(self.counts)


def streams_of(components: Iterable[Proposal]) -> tuple[StreamKey, ...]:
    """The distinct laws beside the target's that score completions under some proposals."""
    return tuple(dict.fromkeys(one.stream for one in components if not one.is_target))


def log_ratios(
    components: Sequence[Proposal],
    token_logp: NDArray[np.floating],
    token_logs: NDArray[np.floating],
    streams: Sequence[StreamKey],
    lengths: NDArray[np.integer],
) -> Floats:
    """Log-ratios log q_j(x) - log p(x) of completions under every component, [n, J].

    Args:
        components: J proposals, whose streams are among ``streams``.
        token_logp: Target log-probabilities of the first tokens, [n, T], T as long as the
            longest switch or completion.
        token_logs: The same under every stream, [n, streams, T].
        streams: What they are of.
        lengths: Number of tokens of each completion, [n].
    """
    table = np.zeros((len(token_logp), len(components)))
    for column, one in zip(table.T, components, strict=True):
        if not one.is_target:
            logs = token_logs[:, streams.index(one.stream)]
            column[:] = log_ratio_after(token_logp, logs, lengths, one)
    return table


def allocate(shares: Floats, n: int, *, least: float) -> tuple[int, ...]:
    """Whole numbers of draws that add up to n, by largest remainders.

    Args:
        shares: Wanted share of each component, the target's first; of sum 1, [J].
        n: Draws in all, at least 1.
        least: Least share of the target: it gets as many draws, rounded up.
    """
    shares = np.array(shares, dtype=float)
    rest = max(float(shares[1:].sum()), 1e-300)
    if shares[0] < least:
        shares[1:] *= (1 - least) / rest
        shares[0] = least
    exact = shares * n
    counts = np.floor(exact).astype(int)
    if counts[0] < least * n:
        counts[0] += 1
    order = np.argsort(counts - exact, kind="stable")
    for j in order:
        if counts.sum() >= n:
            break
        counts[j] += 1
    return tuple(int(one) for one in counts)
