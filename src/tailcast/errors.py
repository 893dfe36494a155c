"""Every exception that tailcast raises on purpose.

    TailcastError
    ├── ConfigError      a setting or a combination of settings that cannot work
    ├── DataError        a file of queries, pairs or labels that cannot be read as one
    ├── ModelError       a model, adapter or tokenizer that cannot be used
    │   └── NumericsError   a model that returned numbers which are not a law
    ├── SteeringError    a steering vector or direction that does not fit
    ├── JudgeError       a judge that cannot be built
    │   └── JudgeAway       a judge that answers no request any more
    ├── StoreError       a run directory that cannot be written, read or continued
    ├── WorkersError     a cluster that cannot be reached, or has no worker left
    └── MissingExtra     an optional dependency that is not installed

Each message names the value, the place and the remedy in one sentence; the command
line prints it without a traceback.
"""

__all__ = [
    "ConfigError",
    "DataError",
    "JudgeAway",
    "JudgeError",
    "MissingExtra",
    "ModelError",
    "NumericsError",
    "SteeringError",
    "StoreError",
    "TailcastError",
    "WorkersError",
]


class TailcastError(Exception):
    """Base of all errors that a user can mend."""


class ConfigError(TailcastError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(TailcastError):
    """An input file that cannot be read as what it should be."""


class ModelError(TailcastError):
    """A model, adapter or tokenizer that cannot be loaded or driven."""


class NumericsError(ModelError):
    """Numbers from a model that are not the law of a token."""


class SteeringError(TailcastError):
    """A steering vector that does not fit the model, or cannot be fitted."""


class JudgeError(TailcastError):
    """A judge that cannot be built from its specification."""


class JudgeAway(JudgeError):
    """A judge that answers no request any more: the run stops instead of losing its verdicts."""


class StoreError(TailcastError):
    """A run directory that cannot be written, read or continued."""


class WorkersError(TailcastError):
    """A cluster that cannot be reached, or has no worker left."""


class MissingExtra(TailcastError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f"run pip install 'tailcast[{extra}]'."
        )
