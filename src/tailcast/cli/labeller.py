"""Labelling in the terminal: one completion at a time, one key each, saved after every key."""

import sys
from collections.abc import Callable, Mapping, Sequence

from tailcast.cli.screen import Screen
from tailcast.visible import visible

__all__ = ["label_in_terminal", "read_key"]

_KEYS = {"y": "yes", "n": "no", "?": "?"}
_LONGEST = 3_000  # characters that are shown unasked


def label_in_terminal(
    rows: Sequence[Mapping[str, str]], labels: dict[str, str], *, question: str,
    save: Callable[[dict[str, str]], None], key: Callable[[], str], screen: Screen,
) -> None:  # fmt: skip
    """Ask about every completion that has no label yet.

    Args:
        rows: Completions with id, query_id, prompt and text, in the order to ask.
        labels: "yes", "no" or "?" by id, as far as given; changed in place.
        question: What is asked.
        save: Called with the labels after each answer.
        key: The next key pressed; "" at the end of input.
        screen: Where to show.
    """
    at = _next_open(rows, labels, 0)
    whole = False
    while at < len(rows):
        _show(rows[at], f"{len(labels)} of {len(rows)} labelled", whole, screen)
        screen.print(f"{question}  y yes · n no · ? unsure · b back · a all of it · q quit")
        pressed = key().lower()
        whole = pressed == "a"
        if pressed in ("q", "", "\x04"):
            break
        if pressed == "b":
            at = max(0, at - 1)
        elif pressed in _KEYS:
            labels[rows[at]["id"]] = _KEYS[pressed]
            save(labels)
            at = _next_open(rows, labels, at + 1)
    screen.print(f"{len(labels)} of {len(rows)} labelled.")


def _next_open(rows: Sequence[Mapping[str, str]], labels: Mapping[str, str], start: int) -> int:
    """The next completion without a label, from a place on; else the first; else the end."""
    places = [*range(start, len(rows)), *range(start)]
    return next((i for i in places if rows[i]["id"] not in labels), len(rows))


def _show(row: Mapping[str, str], state: str, whole: bool, screen: Screen) -> None:
    text = visible(row["text"]) or "(empty)"
    shown = text if whole else text[:_LONGEST]
    screen.rule(f"{row['id']}   {state}", style="dim")
    screen.print(visible(row["prompt"])[:_LONGEST], style="dim", highlight=False)
    screen.print()
    screen.print(shown, highlight=False)
    if len(shown) < len(text):
        screen.print(f"… {len(text) - len(shown):,} more characters", style="dim")
    screen.print()


def read_key() -> str:
    """One key from the terminal, without a return."""
    import termios
    import tty

    place = sys.stdin.fileno()
    before = termios.tcgetattr(place)
    try:
        tty.setcbreak(place)
        return sys.stdin.read(1)
    finally:
        termios.tcsetattr(place, termios.TCSADRAIN, before)
