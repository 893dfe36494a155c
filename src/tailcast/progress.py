"""What a run tells of itself while it works."""

__all__ = ["Progress"]


class Progress:
    """Receives a run's events and drops them; the command line shows them."""

    def start(self, stage: str, total: int, done: int) -> None:
        """A stage of ``total`` draws begins, ``done`` of them found on disk."""

    def advance(self, draws: int, hits: int) -> None:
        """So many draws were made and judged, so many of them hits."""

    def say(self, message: str) -> None:
        """A sentence for the reader."""
