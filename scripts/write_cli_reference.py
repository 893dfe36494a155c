"""Write docs/cli.md from the command line's own help: ``make docs``."""

import io
from pathlib import Path

from rich.console import Console

from tailcast.cli.main import app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
VERBS = (
    "run",
    "estimate",
    "steer",
    "plan",
    "status",
    "show",
    "explain",
    "report",
    "plot",
    "demo",
    "behaviours",
    "query-sets",
    "label",
    "calibrate-judge",
    "analyse repeated",
    "analyse deployment",
    "analyse sensitivity",
    "compare",
    "crosscheck",
    "analyse forecast",
    "paraphrase",
    "export",
    "learn",
    "proposals",
)


def reference() -> str:
    """The page: every verb's help as it is printed, 100 columns wide."""
    parts = ["# Command line", "", "Written by `make docs` from the program's own help."]
    for verb in VERBS:
        out = io.StringIO()
        app.help_print(verb.split(), console=Console(file=out, width=100, color_system=None))
        lines = (line.rstrip() for line in out.getvalue().strip().splitlines())
        parts += ["", f"## tailcast {verb}", "", "```text", *lines, "```"]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(reference(), "utf-8")
    print(PAGE)
