"""One self-contained page of one run or several: no network, no script but its own."""

from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from tailcast.errors import MissingExtra
from tailcast.report import words
from tailcast.report.figures import repeated_of
from tailcast.report.look import dressed
from tailcast.report.outlook import upper_end
from tailcast.report.render import write_whole
from tailcast.report.run import Run, read_run
from tailcast.report.sections import Drawing, Press, drawing, sections_of

__all__ = ["write_report"]


def write_report(
    directories: Sequence[str | Path], out: str | Path, *, show_text: bool = False
) -> None:
    """Write the report of some runs.

    Args:
        directories: Run directories, at least one.
        out: HTML file to write.
        show_text: Put the completions that carry the estimates in, each behind a click.

    Raises:
        ConfigError: If the file cannot be written.
        MissingExtra: If jinja2, altair or vl-convert is not installed.
        StoreError: If a directory holds no finished run, or is damaged.
    """
    environment = _environment()
    runs = [read_run(one) for one in directories]
    parts = []
    for number, run in enumerate(runs, 1):
        prefix = f"r{number}-" if len(runs) > 1 else ""
        press = Press(partial(_fill, environment), prefix, show_text)
        parts.append({"run": run, "prefix": prefix, "sections": sections_of(run, press)})
    script = _asset("page.js")
    digest = b64encode(sha256(script.encode()).digest()).decode()
    page = _fill(
        environment, "page.html", parts=parts, comparison=_comparison(runs),
        script=script, style=_asset("page.css"), digest=digest,
    )  # fmt: skip
    write_whole(Path(out), page.encode("utf-8", "replace"))


def _comparison(runs: Sequence[Run]) -> Drawing | None:
    """The repeated-sampling curves of several runs in one figure."""
    if len(runs) < 2:
        return None
    says = "Share of queries with a hit by number of tries, a curve for each run."
    return drawing(lambda look: dressed(repeated_of(runs, look), look), says, prefix="")


def _environment() -> Any:
    """Where templates are filled: what is put into them is escaped."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtra("jinja2", "report", "a report") from error
    environment = Environment(
        loader=PackageLoader("tailcast.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals["words"] = words
    environment.globals["upper_end"] = upper_end
    return environment


def _fill(environment: Any, name: str, **values: Any) -> str:
    from markupsafe import Markup

    return Markup(environment.get_template(name).render(**values))


def _asset(name: str) -> str:
    return (files("tailcast.report") / "templates" / name).read_text("utf-8")
