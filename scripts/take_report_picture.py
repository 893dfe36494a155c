"""Take the picture of a report's first screen: docs/report.png, of a run directory.

    python scripts/take_report_picture.py tailcast-demo

Needs Debian's package chromium, and playwright.
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright

from tailcast.report import write_report

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "report.png"


def take(directory: str) -> None:
    """Write the report of a run, open it, and keep what one sees first."""
    with TemporaryDirectory() as scratch, sync_playwright() as driver:
        place = Path(scratch) / "report.html"
        write_report([directory], place)
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1100, "height": 1200})
        page.goto(f"file://{place}")
        page.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    take(sys.argv[1])
    print(PICTURE)
