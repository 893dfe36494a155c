"""Which law was a completion drawn from, and with what weight does it count?

The proposal family of the paper (method.md section 2): per token a mixture of the
steered and the plain target up to a switch, the target alone from there on,

    q_t = (1 - mix) * s_t + mix * p_t   for t < switch,     q_t = p_t   for t >= switch.

s_t may also be the target, steered or not, at a raised temperature (section 5). With the
per-token log-probabilities of the target (``token_logp``) and of s (``token_logs``) everything
here is arithmetic in float64. After the switch log p and log q are the same number, so only
the first ``switch`` tokens are ever looked at: the plain remainder adds nothing to a weight,
not even rounding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailcast.errors import ConfigError, NumericsError

__all__ = ["Floats", "Proposal", "ProposalGrid", "StreamKey", "log_weights"]

Floats = NDArray[np.float64]


class StreamKey(NamedTuple):
    """A law of the next token beside the target's.

    Attributes:
        strength: Of the steering.
        heat: What the temperature is multiplied by.
        kind: Which kind of stream; "" is the target, steered.
    """

    strength: float
    heat: float = 1.0
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One proposal phi = (strength, switch, mix).

    Attributes:
        strength: lambda_steer, the multiple of the steering operator; 0 is the target.
        switch: t_switch, the number of first tokens drawn from the mixture.
        mix: alpha_mix, the share of the target in each of those tokens.
        heat: What the target's temperature is multiplied by in the other stream.
        kind: Which kind of stream that is; "" is the target, steered.
    """

    strength: float
    switch: int
    mix: float
    heat: float = 1.0
    kind: str = ""

    def __post_init__(self) -> None:
        if not np.isfinite(self.strength):
            raise ConfigError(f"strength {self.strength} is not a finite number.")
        if self.switch < 0:
            raise ConfigError(f"switch {self.switch} is negative: it counts tokens, use 0 or more.")
        if not 0.0 <= self.mix <= 1.0:
            raise ConfigError(f"mix {self.mix} lies outside [0, 1]: it is the target's share.")
        if not 0.0 < self.heat < np.inf:
            raise ConfigError(f"heat {self.heat} is no factor of a temperature: use 1 or more.")

    @classmethod
    def target(cls) -> "Proposal":
        """The target itself: plain Monte Carlo is importance sampling from it."""
        return cls(0.0, 0, 1.0)

    @classmethod
    def parse(cls, text: str) -> "Proposal":
        """Read ``"STRENGTH,SWITCH,MIX"``, or with a heat at its end: ``"0,8,0,1.5"``.

        Raises:
            ConfigError: If the text does not hold such numbers.
        """
        parts = text.split(",")
        try:
            strength, switch, mix = float(parts[0]), int(parts[1]), float(parts[2])
            (heat,) = map(float, parts[3:] or ("1",))
        except (ValueError, IndexError):
            raise ConfigError(
                f"proposal {text!r} is not STRENGTH,SWITCH,MIX: write for example 0.75,8,0.1."
            ) from None
        return cls(strength, switch, mix, heat)

    @property
    def stream(self) -> StreamKey:
        """The law that the target is mixed with before the switch."""
        return StreamKey(self.strength, self.heat, self.kind)

    @property
    def is_target(self) -> bool:
        """Whether every draw of this proposal is a draw of the target, with log w = 0."""
        same = self.strength == 0.0 and self.heat == 1.0 and not self.kind
        return same or self.switch == 0 or self.mix == 1.0

    @property
    def steered_tokens(self) -> int:
        """For how many first tokens a second law exists, at most."""
        return 0 if self.is_target else self.switch

    def __str__(self) -> str:
        if self.is_target:
            return "target"
        parts = {"strength": self.strength, "heat": self.heat, "switch": self.switch}
        shown = {**parts, "mix": self.mix}
        usual = {"strength": 0.0, "heat": 1.0}
        text = " ".join(f"{name}={one:g}" for name, one in shown.items() if one != usual.get(name))
        return f"{self.kind} {text}" if self.kind else text


def log_weights(
    token_logp: NDArray[np.floating],
    token_logs: NDArray[np.floating],
    lengths: NDArray[np.integer],
    *,
    switch: NDArray[np.integer] | int,
    mix: NDArray[np.floating] | float,
) -> Floats:
    """Log importance weights log p(x) - log q(x) of completions under their proposals.

    The weights are proper for the target p: E_q[w h] = QRISK for every h of the
    completion, because tokens after the switch have the same law under p and q.

    Args:
        token_logp: Log-probabilities of the drawn tokens under the target, [n, T].
        token_logs: The same under the steered target, [n, T]; read before the switch only.
        lengths: Number of tokens of each completion, end token included, [n].
        switch: t_switch of each row, [n] or one for all.
        mix: alpha_mix of each row, [n] or one for all.

    Returns:
        Log-weights in nats, [n]; -inf where the target forbids a drawn token.

    Raises:
        NumericsError: If a proposal gives no mass to a token that it is said to have drawn.
    """
    switch = np.asarray(switch)
    steps = np.arange(token_logp.shape[1])
    before = steps < np.minimum(lengths, switch)[:, None]
    logp = np.where(before, token_logp, 0.0).astype(float)
    logs = np.where(before, token_logs, 0.0).astype(float)
    ratio = logp - _mixture_logq(logp, logs, np.asarray(mix, dtype=np.float64)[..., None])
    total: Floats = np.where(before, _forbidden_is_zero(ratio, logp), 0.0).sum(axis=1)
    return total


def log_ratio_after(
    token_logp: NDArray[np.floating],
    token_logs: NDArray[np.floating],
    lengths: NDArray[np.integer],
    proposal: Proposal,
) -> Floats:
    """Log-ratio log q(x) - log p(x) of completions that another law may have drawn, [n].

    Args:
        token_logp: Target log-probabilities of the first tokens, [n, T].
        token_logs: The same under the proposal's stream, [n, T].
        lengths: Number of tokens of each completion, [n].
        proposal: q; where it gives no mass to a completion the ratio is -inf.
    """
    steps = min(token_logp.shape[1], proposal.switch)
    before = np.arange(steps) < lengths[:, None]
    logp, logs = (np.where(before, one[:, :steps], 0.0) for one in (token_logp, token_logs))
    total: Floats = (_mixture_logq(logp, logs, np.float64(proposal.mix)) - logp).sum(axis=1)
    return total


@dataclass(frozen=True)
class ProposalGrid:
    """A finite set of proposals: every strength with every switch and every mix.

    The uniform ensemble over it, q_rand, is the pilot's proposal (method.md section 4).
    """

    strengths: tuple[float, ...]
    switches: tuple[int, ...]
    mixes: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("strengths", "switches", "mixes"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ConfigError(f"grid {name} {list(values)} must be distinct and not empty.")
        for _ in self:
            pass

    def __iter__(self) -> Iterator[Proposal]:
        for strength, switch, mix in product(self.strengths, self.switches, self.mixes):
            yield Proposal(strength, switch, mix)

    def __len__(self) -> int:
        return len(self.strengths) * len(self.switches) * len(self.mixes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of strengths, switches and mixes."""
        return len(self.strengths), len(self.switches), len(self.mixes)

    def at(self, index: int) -> Proposal:
        """The proposal at a flat index, in the order of iteration."""
        i, j, k = np.unravel_index(index, self.shape)
        return Proposal(self.strengths[i], self.switches[j], self.mixes[k])

    def draw(self, uniform: float) -> Proposal:
        """The proposal that a uniform number in [0, 1) picks, each with equal chance."""
        return self.at(int(uniform * len(self)))

    def widened(self, factor: float) -> "ProposalGrid":
        """The same grid with every strength multiplied by ``factor``."""
        strengths = tuple(strength * factor for strength in self.strengths)
        return ProposalGrid(strengths, self.switches, self.mixes)

    def log_ratios(
        self,
        token_logp: NDArray[np.floating],
        token_logs: NDArray[np.floating],
        lengths: NDArray[np.integer],
    ) -> Floats:
        """Log-ratios log q_phi(x) - log p(x) of completions for every phi of the grid.

        Args:
            token_logp: Target log-probabilities of the first tokens, [n, T] with
                T >= max(switches) or T >= max(lengths).
            token_logs: Steered ones, one row for each strength, [n, strengths, T].
            lengths: Number of tokens of each completion, [n].

        Returns:
            Log-ratios in nats, [n, strengths, switches, mixes].
        """
        steps = min(token_logp.shape[1], max(self.switches))
        inside = (np.arange(steps) < lengths[:, None])[:, None, :, None]
        logp = token_logp[:, None, :steps, None].astype(float)
        logs = token_logs[:, :, :steps, None].astype(float)
        logq = _mixture_logq(logp, logs, np.asarray(self.mixes))
        gain = np.where(inside, -_forbidden_is_zero(logp - logq, logp), 0.0)
        cumulative = np.concatenate([np.zeros_like(gain[:, :, :1]), gain.cumsum(axis=2)], axis=2)
        return cumulative[:, :, np.minimum(self.switches, steps), :]

    def log_marginal_ratio(self, log_ratios: Floats) -> Floats:
        """Marginal log q_rand(x) - log p(x) from :meth:`log_ratios`, [n]."""
        flat = log_ratios.reshape(len(log_ratios), -1)
        marginal: Floats = np.logaddexp.reduce(flat, axis=1) - np.log(len(self))
        return marginal


def _mixture_logq(logp: Floats, logs: Floats, mix: Floats | np.float64) -> Floats:
    """Per-token log((1 - mix) s + mix p), per token, in log space; exactly logp at mix = 1."""
    with np.errstate(divide="ignore"):
        share_p, share_s = np.log(mix), np.log1p(-mix)
    mixed: Floats = np.logaddexp(share_s + logs, share_p + logp)
    return mixed


def _forbidden_is_zero(ratio: Floats, logp: Floats) -> Floats:
    """Per-token log p - log q, -inf where p forbids the token; never an undefined number."""
    ratio = np.where(np.isneginf(logp), -np.inf, ratio)
    if np.isnan(ratio).any() or np.isposinf(ratio).any():
        raise NumericsError(
            "a proposal gives probability 0 to a token that was drawn and that the target allows: "
            "raise mix above 0 so that the proposal covers the target."
        )
    return ratio


def as_rows(proposals: Sequence[Proposal]) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Strengths, numbers of steered tokens and mixes of a list of proposals, each [n]."""
    distinct = {id(one): one for one in proposals}  # many rows share one object
    known = {key: (one.strength, one.steered_tokens, one.mix) for key, one in distinct.items()}
    table = np.array([known[id(one)] for one in proposals], dtype=float).reshape(-1, 3)
    return table[:, 0], table[:, 1].astype(np.int64), table[:, 2]
