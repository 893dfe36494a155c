"""From a run directory to what people look at."""

__all__ = []
