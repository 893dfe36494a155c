"""Which settings run code of others, and who asked for that?

A judge ``python:MODULE:FUNCTION``, a task, scorer or queries of Inspect, and the code that comes
with a model are run only where the user himself says so: on the command line, or as an argument
in Python. A config file, a behaviour or a run directory may be a stranger's; what they name is
refused until it is said again.
"""

from collections.abc import Mapping
from typing import Any

from tailcast.errors import ConfigError

__all__ = ["check_asked"]


def check_asked(settings: Mapping[str, Any], said: Mapping[str, Any], place: str) -> None:
    """Refuse code that the user has not asked for himself.

    Args:
        settings: Names and values, wherever they are from.
        said: Those of them that the user said.
        place: Where the others are from, for the error's sentence.

    Raises:
        ConfigError: Naming the code, and the flag that allows it.
    """
    asked = _code(said)
    for what, flag in _code(settings).items():
        if what not in asked:
            raise ConfigError(
                f"{place} names {what}, which runs code that is not tailcast's: read that code "
                f"and, if you trust it, say so yourself with {flag}."
            )


def _code(settings: Mapping[str, Any]) -> dict[str, str]:
    """The code that settings name, and the flag that names it."""
    found = {}
    for name in ("judge", "queries"):
        value = settings.get(name)
        if isinstance(value, str) and value.startswith(("python:", "inspect:")):
            found[value] = f"--{name} {value}"
    if settings.get("task"):
        found[f"inspect:{settings['task']}"] = f"--task {settings['task']}"
    if settings.get("trust_remote_code"):
        found["trust_remote_code"] = "--trust-remote-code"
    return found
