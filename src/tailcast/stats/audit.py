"""Do the proposals visit every way to hit?

Draws of the target see every way, in proportion to its risk. Under the assumption that the
proposals cover the event, the hits among them add up to a Poisson-like number whose mean the
other draws estimate. More hits than that say by how much the proposals' estimates are too low
(method.md section 6).
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["Audit", "audit"]

_UNFORETOLD = 3  # target hits that may come about where the proposals' draws have none


@dataclass(frozen=True)
class Audit:
    """Hits among draws of the target, against what the proposals' draws foretell.

    Attributes:
        name: Which queries: "all", or a tag.
        observed: Hits among the target's draws.
        expected: Their number by the other draws' estimates.
        expected_stderr: Standard error of that.
        ratio: Observed over expected; None without either.
        low: Lower end of the ratio's interval; 0 where nothing was expected.
        high: Upper end; None where nothing bounds it.
        level: Coverage of the interval: exact in the observed number, joined with the
            expected one's error on the log scale (Zou and Donner 2008).
    """

    name: str
    observed: int
    expected: float
    expected_stderr: float
    ratio: float | None
    low: float
    high: float | None
    level: float

    @property
    def fires(self) -> bool:
        """Whether the interval lies above 1: a way to hit that the proposals miss."""
        return self.low > 1.0 or (self.ratio is None and self.observed > _UNFORETOLD)

    @property
    def sentence(self) -> str:
        """What it says, and what to do about it."""
        if self.ratio is None and not self.fires:
            return "the proposals' draws foretell no hit, and the target's had few: draw more"
        if self.ratio is None:
            return (
                f"{self.observed} hits among the target's draws, none foretold by the others. The "
                "proposals miss ways to hit: widen the grid or raise defence"
            )
        says = (
            f"{self.observed} hits among the target's draws, {self.expected:.3g} foretold by the "
            f"other draws: {self.ratio:.3g} times as many, between {self.low:.2g} and "
            + ("any number" if self.high is None else f"{self.high:.2g}")
        )
        if not self.fires:
            return says
        return f"{says}. The proposals miss ways to hit: widen the grid or raise defence"

    def record(self) -> dict[str, Any]:
        """For JSON, with its sentence."""
        return {**asdict(self), "fires": self.fires, "sentence": self.sentence}


def audit(
    cases: Iterable[tuple[int, float, float]], *, name: str = "all", level: float = 0.95
) -> Audit:
    """Pool queries.

    Args:
        cases: Of each query: hits among its target draws, their expected number, and the
            standard error of that.
        name: Which queries they are.
        level: Coverage of the ratio's interval.
    """
    from scipy.stats import chi2, norm

    table = np.array([*cases, (0, 0.0, 0.0)], dtype=float)
    observed, expected = int(table[:, 0].sum()), float(table[:, 1].sum())
    stderr = float(np.sqrt((table[:, 2] ** 2).sum()))
    tail = (1 - level) / 2
    least = chi2.ppf(tail, 2 * observed) / 2 if observed else 0.0
    most = chi2.isf(tail, 2 * observed + 2) / 2
    if expected == 0.0:
        return Audit(name, observed, 0.0, stderr, None, 0.0, None, level)
    ratio = observed / expected
    noise = norm.isf(tail) * stderr / expected
    below = np.hypot(np.log(observed / least), noise) if observed else np.inf
    above = np.hypot(np.log(most / max(observed, 0.5)), noise)
    high = max(observed, 0.5) / expected * np.exp(above)
    return Audit(
        name, observed, expected, stderr, ratio, float(ratio * np.exp(-below)), float(high), level
    )
