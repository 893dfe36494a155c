"""Steering vectors: fit them, choose their layer, save and load them."""

from tailcast.steering.choice import choose_layer
from tailcast.steering.files import load_steering, save_steering
from tailcast.steering.mean_difference import fit_mean_difference
from tailcast.steering.refusal import fit_refusal_direction

__all__ = [
    "choose_layer",
    "fit_mean_difference",
    "fit_refusal_direction",
    "load_steering",
    "save_steering",
]
