"""What do possible laws of an unseen query's risk say of n unseen queries?

A forecast is a set of laws with weights: one law for a plug-in method, many where the fit itself
is uncertain. Everything is then arithmetic on their survival functions: P(max over n > tau) is
1 - (1 - S(tau))^n, averaged over the laws. Laws are tabulated on log odds, where a risk near 1
and one near 0 have room alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["EDGES", "RiskLaws", "log_odds"]

EDGES = np.linspace(-30.0, 20.0, 251)
"""Edges of the cells of uncertain laws, log odds: risks from 1e-13 up, 0.09 decades a cell."""

_LEAST = 1e-300
_CELL = 0.25  # log odds; narrower cells are joined for simulation


def log_odds(risk: ArrayLike) -> NDArray[np.float64]:
    """log(p / (1 - p)) of risks, those too near 0 or 1 at the ends of :data:`EDGES`."""
    from scipy.special import logit

    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(logit(np.asarray(risk, dtype=float)), EDGES[0], EDGES[-1]))


@dataclass(frozen=True)
class RiskLaws:
    """Possible laws of the risk of a query drawn as the measured ones were.

    Attributes:
        edges: Log odds, ascending, [G].
        survival: P(log odds > edge) under each law, [K, G].
        weights: Of the laws, adding up to 1, [K].
    """

    edges: NDArray[np.float64]
    survival: NDArray[np.float64]
    weights: NDArray[np.float64]

    def exceeding(self, risk: float) -> NDArray[np.float64]:
        """P(risk of a query > this) under each law, [K]; log-linear between edges."""
        place = float(log_odds(risk))
        at = int(np.clip(np.searchsorted(self.edges, place) - 1, 0, len(self.edges) - 2))
        part = (place - self.edges[at]) / (self.edges[at + 1] - self.edges[at])
        left, right = (np.log(np.maximum(self.survival[:, at + k], _LEAST)) for k in (0, 1))
        return np.asarray(np.exp(left + part * (right - left)))

    def worst_exceeds(self, risk: float, n: float) -> float:
        """P(the largest of n unseen risks > this)."""
        chance = self.weights @ -np.expm1(n * np.log1p(-_below_one(self.exceeding(risk))))
        return min(float(chance), 1.0)

    def worst(self, n: float, probabilities: Sequence[float]) -> NDArray[np.float64]:
        """Quantiles of the largest of n unseen risks, as risks."""
        from scipy.special import expit

        below = self.weights @ np.exp(n * np.log1p(-_below_one(self.survival)))
        below = below + np.arange(len(below)) * 1e-14  # for interp: strictly ascending
        return np.asarray(expit(np.interp(probabilities, below, self.edges)))

    def return_levels(self, probability: float) -> NDArray[np.float64]:
        """The risk that a query exceeds with this probability, under each law, [K]."""
        from scipy.special import expit

        rows = np.arange(len(self.survival))
        at = np.clip((self.survival > probability).sum(axis=1), 1, len(self.edges) - 1)
        left, right = (
            np.log(np.maximum(self.survival[rows, at - k], _LEAST)) for k in (1, 0)
        )  # fmt: skip
        with np.errstate(invalid="ignore", divide="ignore"):
            part = np.clip((np.log(probability) - left) / (right - left), 0.0, 1.0)
        part = np.where(np.isfinite(part), part, 1.0)
        return np.asarray(expit(self.edges[at - 1] + part * (self.edges[at] - self.edges[at - 1])))

    def means(self) -> NDArray[np.float64]:
        """Mean risk under each law, [K]: its tail counts with its probability, seen or not."""
        cells, risks = self._cells(1)
        return np.asarray(cells @ risks)

    def simulate(
        self, n: int, draws: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean risk of n unseen queries, and the chance of a hit if each is asked once.

        Args:
            n: Queries.
            draws: How often n queries are thrown into the cells of a law.
            rng: Draws the laws and the queries.

        Returns:
            Both [draws].
        """
        width = self.edges[1] - self.edges[0]
        cells, risks = self._cells(max(1, round(_CELL / width)))
        which = rng.choice(len(self.weights), size=draws, p=self.weights)
        counts = rng.multinomial(n, cells[which])
        logs = np.log1p(-np.minimum(risks, 1 - 1e-12))
        return counts @ risks / n, -np.expm1(counts @ logs)

    def quantiles(self, values: NDArray[np.float64], probabilities: Sequence[float]) -> list[float]:
        """Quantiles over the laws of one value for each of them, [K]."""
        order = np.argsort(values)
        reached = np.cumsum(self.weights[order]) - self.weights[order] / 2
        return [float(one) for one in np.interp(probabilities, reached, values[order])]

    def _cells(self, stride: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Probability of each cell under each law, and its risk; the last cell has no end."""
        from scipy.special import expit

        edges, survival = self.edges[::stride], self.survival[:, ::stride].copy()
        survival[:, 0] = 1.0
        cells = np.append(survival[:, :-1] - survival[:, 1:], survival[:, -1:], axis=1)
        cells = np.maximum(cells, 0.0)
        middles = np.append((edges[:-1] + edges[1:]) / 2, edges[-1])
        return cells / cells.sum(axis=1, keepdims=True), np.asarray(expit(middles))


def _below_one(survival: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.minimum(survival, 1 - 1e-15)
