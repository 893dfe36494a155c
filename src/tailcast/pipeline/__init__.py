"""The steps of a run, in order."""

from tailcast.pipeline.run import Inputs, run

__all__ = ["Inputs", "run"]
