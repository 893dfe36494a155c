"""Record what the command line prints about a run, as a picture of a terminal: docs/figures.

python scripts/record_terminal.py tailcast-demo   # after make demo
"""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 138
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
"""Rich's, without the fonts that it would load from elsewhere."""


def printed(words: list[str]) -> str:
    """What a command of tailcast prints on a terminal of this width, colours kept."""
    shown = {**os.environ, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1"}
    code = "from tailcast.cli import main; main()"
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, env=shown, text=True, capture_output=True, check=True).stdout


def record(run: Path, out: Path) -> None:
    """Show the run's estimates, and what they mean when every query is asked again and again."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), legacy_windows=False)
    for words in (["show", run.name], ["analyse", "repeated", run.name, "--tries", "1e4"]):
        os.chdir(run.resolve().parent)
        console.print(Text.assemble(("$ ", "green"), "tailcast " + " ".join(words)))
        console.print(Text.from_ansi(printed(words)))
    svg = console.export_svg(title="tailcast", code_format=FORMAT, unique_id="tailcast")
    out.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", "utf-8")


if __name__ == "__main__":
    place = ROOT / "docs/figures/terminal.svg"
    record(Path(sys.argv[1]), place)
    print(place)
