"""Drawing completions from proposals, and scoring given ones."""

from tailcast.sampling.draw import DrawRequest, draw
from tailcast.sampling.laws import inverse_cdf, target_law
from tailcast.sampling.score import score

__all__ = ["DrawRequest", "draw", "inverse_cdf", "score", "target_law"]
