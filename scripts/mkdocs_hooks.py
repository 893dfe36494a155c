"""What mkdocs does to a page beside building it: Sphinx roles of docstrings become plain code."""

import re
from typing import Any

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(?=<code>)")


def on_page_content(html: str, **_: Any) -> str:
    """The page without roles."""
    return ROLE.sub("", html)
