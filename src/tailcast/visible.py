"""How is a text of unknown origin shown?

As text and nothing else: what would move a terminal's cursor, change its title or turn the
direction of the writing is shown by name.
"""

import unicodedata

__all__ = ["visible"]


def visible(text: str) -> str:
    """The text with control, format and unassigned characters shown by name; lines stay."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(one: str) -> str:
    if one == "\n" or unicodedata.category(one)[0] != "C":
        return one
    if ord(one) < 0x20:
        return chr(0x2400 + ord(one))
    return "\u2421" if ord(one) == 0x7F else f"\u27e8U+{ord(one):04X}\u27e9"
