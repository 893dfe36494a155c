"""The command line: ``tailcast run | estimate | steer | show | demo``.

Results go to stdout, progress and messages to stderr. A mistake is answered with one
sentence and exit code 2; an interrupt with 130, and everything finished is kept.
"""

from tailcast.cli.main import main

__all__ = ["main"]
