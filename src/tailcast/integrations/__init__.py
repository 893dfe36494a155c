"""Doors to other evaluation frameworks, imported only where used."""

__all__ = []
