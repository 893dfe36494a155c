"""Doors to other evaluation frameworks, imported only where used."""

from tailcast.integrations.inspect_log import export_eval
from tailcast.integrations.inspect_scorers import inspect_scorer

__all__ = ["export_eval", "inspect_scorer"]
