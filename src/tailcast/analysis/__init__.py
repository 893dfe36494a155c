"""From estimates to decisions: repeated sampling, forecasts, deployment, comparison."""

__all__ = []
