"""Blocks and commands of a Markdown page, in their order."""

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?: {4}[^\n]*\n+)+", re.MULTILINE)
INLINE = re.compile(r"`(tailcast [^`]+|make [a-z]+|pip install [^`]+|python [^`]+)`")
PROGRAMS = ("tailcast", "make", "pip", "python")


class Block(NamedTuple):
    """A block of a page; language "" for an indented one."""

    language: str
    body: str


class Command(NamedTuple):
    """A command as it stands on the page, its words, and whether it is named in prose."""

    line: str
    words: tuple[str, ...]
    inline: bool


def blocks(text: str) -> Iterator[Block]:
    """Fenced and indented blocks."""
    for found in FENCE.finditer(text):
        yield Block(found[1] or "text", found[2])
    for found in INDENTED.finditer(FENCE.sub("\n", text)):
        yield Block("", re.sub(r"^ {4}", "", found[0], flags=re.MULTILINE))


def commands(text: str) -> list[Command]:
    """Every command of a page in the order of its lines: in blocks, and inline in prose."""
    found: list[tuple[int, bool, str]] = []
    joined = re.sub(r" *\\\n\s*", " ", text)
    prose = FENCE.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), joined)
    for number, line in enumerate(joined.splitlines()):
        bare = re.sub(r"^\s*(\$ )?", "", line)
        if bare.startswith(tuple(f"{one} " for one in PROGRAMS)) and bare != line.rstrip():
            found.append((number, False, bare))
    for block in FENCE.finditer(joined):
        if block[1] in ("bash", "sh", "console"):
            first = joined[: block.start(2)].count("\n")
            for k, line in enumerate(block[2].splitlines()):
                if line.startswith(tuple(f"{one} " for one in PROGRAMS)):
                    found.append((first + k, False, line))
    for span in INLINE.finditer(prose):
        found.append((prose[: span.start()].count("\n"), True, span[1].replace("\n", " ")))
    return [_command(line, inline) for _, inline, line in sorted(found)]


def _command(line: str, inline: bool) -> Command:
    """Words without comments and without what may repeat, in brackets."""
    text = re.sub(r"(?<=\S)\s+\[[^\]]*\.\.\.\]", "", line)
    return Command(line, tuple(shlex.split(text, comments=True)), inline)
