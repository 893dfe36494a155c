"""Kinds of streams that a mixture may draw from, one file each."""

from tailcast.streams.openings import Hit, Openings
from tailcast.streams.other import Other, Vector
from tailcast.streams.prompted import Prompted
from tailcast.streams.shifted import Seen, Shifted, fit_shift, load_shift, save_shift
from tailcast.streams.tilted import Tilted

__all__ = [
    "Hit",
    "Openings",
    "Other",
    "Prompted",
    "Seen",
    "Shifted",
    "Tilted",
    "Vector",
    "fit_shift",
    "load_shift",
    "save_shift",
]
