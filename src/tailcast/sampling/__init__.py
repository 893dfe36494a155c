"""Drawing completions from proposals, and scoring given ones."""

from tailcast.sampling.along import laws_along
from tailcast.sampling.continuations import draw_with_engine
from tailcast.sampling.draw import DrawRequest, draw
from tailcast.sampling.kinds import Part, Place, Source, StreamKind, Streams
from tailcast.sampling.laws import inverse_cdf, target_law
from tailcast.sampling.prefix_scores import OpeningOdds, Projection, usual_tokens
from tailcast.sampling.score import score
from tailcast.sampling.served import draw_served, score_served
from tailcast.sampling.splitting import PrefixScore, SplitRequest, Splits, split
from tailcast.sampling.stops import Stops

__all__ = [
    "DrawRequest",
    "OpeningOdds",
    "Part",
    "Place",
    "PrefixScore",
    "Projection",
    "Source",
    "SplitRequest",
    "Splits",
    "Stops",
    "StreamKind",
    "Streams",
    "draw",
    "draw_served",
    "draw_with_engine",
    "inverse_cdf",
    "laws_along",
    "score",
    "score_served",
    "split",
    "target_law",
    "usual_tokens",
]
