"""What does a run's TOML file say, the file that it builds on included?"""

import tomllib
from pathlib import Path
from typing import Any

from tailcast.errors import ConfigError

__all__ = ["read_toml"]


def read_toml(path: Path, *, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The fields of a TOML file, those of its ``base`` filled in.

    Args:
        path: The file. Its ``base``, another such file, is relative to it; all other paths are
            relative to the working directory.
        below: The files whose base this is.

    Raises:
        ConfigError: If it does not exist, is not TOML, or is its own base; names the line.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"config {str(path)!r} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {str(path)!r} is not TOML: {error}.") from None
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str) or path.resolve() in below:
        raise ConfigError(f"base {base!r} of {str(path)!r} must be another TOML file.")
    return {**read_toml(path.parent / base, below=(*below, path.resolve())), **values}
