"""From charts to drawings: SVG and PNG files, and SVG that takes a page's colours."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tailcast.errors import ConfigError, MissingExtra
from tailcast.report.look import LIGHT, Look, dressed
from tailcast.visible import visible

__all__ = ["NARROW", "WIDE", "page_svg", "save_chart", "save_plot", "write_whole"]

_BASE = "https://vega.github.io/vega-datasets/"  # what vl-convert puts before a link

WIDE = Look(
    ink="var(--ink)", faint="var(--faint)", grid="var(--grid)", accent="var(--accent)",
    other="var(--other)", ok="var(--ok)", weak="var(--weak)", unreliable="var(--unreliable)",
    background="transparent", width=700,
)  # fmt: skip
"""Colours of the page, whichever it takes; for a screen of usual width."""

NARROW = replace(WIDE, width=245)
"""The same for a telephone."""


def save_chart(chart: Any, path: str | Path) -> None:
    """Write a chart to a picture.

    Args:
        chart: An altair chart.
        path: File to write, *.svg or *.png.

    Raises:
        ConfigError: If it is neither, or cannot be written.
        MissingExtra: If vl-convert is not installed.
    """
    path, converter = Path(path), _converter()
    if path.suffix == ".svg":
        data = converter.vegalite_to_svg(_shown(chart)).encode("utf-8")
    elif path.suffix == ".png":
        data = converter.vegalite_to_png(_shown(chart), scale=2)
    else:
        raise ConfigError(f"picture {str(path)!r} is neither .svg nor .png: rename it.")
    write_whole(path, data)


def save_plot(make: Callable[[Look], Any], path: str | Path) -> None:
    """Write what a function draws to a picture, light.

    Raises:
        TailcastError: As :func:`save_chart`.
    """
    save_chart(dressed(make(LIGHT), LIGHT), path)


def page_svg(chart: Any, *, prefix: str) -> str:
    """A chart as SVG to stand in a page.

    Marks show their description when pointed at; a mark's link goes to the place in the page
    that its id names. Nothing in it is loaded, nothing runs.

    Args:
        chart: An altair chart whose marks link to "#" and an id.
        prefix: What those ids have before them in this page.
    """
    svg = _converter().vegalite_to_svg(_shown(chart))
    svg = svg.replace(f'<a xlink:href="{_BASE}#', f'<a tabindex="-1" href="#{prefix}')
    svg = re.sub(r'<path aria-label="([^"]*)"([^>]*?)/>', r"<path\2><title>\1</title></path>", svg)
    svg = re.sub(r"<[^>]*>", _lighter, svg)
    return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _shown(chart: Any) -> Any:
    """A chart's specification, its texts shown as texts: a control character ends vl-convert."""
    return _with_visible(chart.to_dict())


def _with_visible(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_visible(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_with_visible(one) for one in value]
    return visible(value) if isinstance(value, str) else value


def _lighter(tag: re.Match[str]) -> str:
    """A tag without what only a reader of the drawing alone would need, and rounded."""
    kept = re.sub(r' (aria-[a-z]+|role|xmlns[:a-z]*|stroke-miterlimit)="[^"]*"', "", tag[0])
    return re.sub(r"(\d\.\d\d)\d+", r"\1", kept)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        ConfigError: If it cannot be written.
    """
    hidden = path.with_name(f".{path.name}.tmp")
    try:
        hidden.write_bytes(data)
        hidden.replace(path)
    except OSError as error:
        hidden.unlink(missing_ok=True)
        raise ConfigError(
            f"cannot write {str(path)!r} ({error.strerror}): name another file with --out."
        ) from None


def _converter() -> Any:
    try:
        import vl_convert
    except ImportError as error:
        raise MissingExtra("vl-convert-python", "report", "a picture") from error
    return vl_convert
