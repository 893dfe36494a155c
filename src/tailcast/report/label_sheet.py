"""How is a completion put before a labeller, on a screen or on a sheet?

As text and nothing else: control characters and those that turn the writing's direction are
shown by name, no text can become markup, code or a formula, and nothing is fetched.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tailcast.visible import visible

__all__ = ["sheet_csv", "sheet_html"]

_PAGE = Path(__file__).with_name("label_sheet.html")
_SHOWN = ("id", "query_id", "prompt", "text")


def sheet_html(rows: Sequence[Mapping[str, str]], *, question: str) -> str:
    """One page to label in, that needs no network and keeps its state in the browser.

    Args:
        rows: Completions with id, query_id, prompt and text; other fields are left out.
        question: What is asked about each.
    """
    items = [{name: visible(row[name]) for name in _SHOWN} for row in rows]
    data = json.dumps({"question": question, "items": items}, ensure_ascii=True)
    data = data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return _PAGE.read_text("utf-8").replace("{{data}}", data)


def sheet_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """A table for a spreadsheet with an empty column ``label``; no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "label", "query", "prompt", "completion"])
    for row in rows:
        cells = [visible(row[name]) for name in _SHOWN]
        writer.writerow([cells[0], "", *map(_plain, cells[1:])])
    return out.getvalue()


def _plain(cell: str) -> str:
    """The cell with an apostrophe before what a spreadsheet would reckon with."""
    return f"'{cell}" if cell.lstrip()[:1] in ("=", "+", "-", "@") else cell
