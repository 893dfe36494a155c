"""How do tasks and scorers come out of Inspect AI?

The one place that names what Inspect does not make public, and that runs its coroutines. A
specification is ``FILE.py@NAME``, ``FILE.py`` where it holds one task or scorer, or the name of a
registered one such as ``inspect_evals/xstest``; ``?KEY=VALUE&KEY=VALUE`` after it are arguments.
Tested with Inspect 0.3.285.
"""

import asyncio
import json
import re
import threading
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from inspect import signature
from pathlib import Path
from typing import Any

from tailcast.errors import ConfigError, DataError, JudgeError, MissingExtra
from tailcast.judges.verdicts import shortened

__all__ = [
    "TESTED",
    "InspectSpec",
    "arguments_of",
    "create",
    "named_model",
    "parse_spec",
    "private",
    "run",
    "why",
]

TESTED = "0.3.285"


@dataclass(frozen=True)
class InspectSpec:
    """What a specification names: an object of a file, or a registered one (no path)."""

    text: str
    path: Path | None
    name: str
    arguments: dict[str, Any]


def parse_spec(text: str) -> InspectSpec:
    """Take a specification apart; values of arguments are JSON, or else text.

    Raises:
        DataError: If an argument is no KEY=VALUE.
    """
    place, _, rest = text.partition("?")
    arguments = {}
    for part in filter(None, rest.split("&")):
        key, equals, value = part.partition("=")
        if not equals or not key.isidentifier():
            raise DataError(f"{part!r} in {text!r} is no argument: write ?KEY=VALUE&KEY=VALUE.")
        arguments[key] = _value(value)
    file, _, name = place.partition("@")
    is_file = file.endswith((".py", ".ipynb"))
    return InspectSpec(text, Path(file) if is_file else None, name if is_file else place, arguments)


def create(spec: InspectSpec, kinds: Sequence[str]) -> tuple[str, Any]:
    """The object that a specification names.

    Args:
        spec: The specification.
        kinds: What it may be, the first that fits: "task", "scorer".

    Returns:
        Which kind it is, and the object.

    Raises:
        MissingExtra: If Inspect is not installed.
        DataError: If there is no such thing, or it cannot be made.
    """
    lookup, registry_create = private("_util.registry", "registry_lookup"), public_create()
    wanted = " or ".join(kinds)
    with _folder(spec):
        try:
            names = _loaded(spec, kinds) if spec.path else (spec.name,)
            kind = next((k for k in kinds for n in names if lookup(k, n) is not None), None)
        except DataError:
            raise
        except Exception as error:  # a user's module or a package's entry point, as it likes
            raise DataError(f"{spec.text!r} cannot be loaded: {why(error)}") from error
        if kind is None or len(names) != 1:
            raise DataError(_missing(spec, wanted, names))
        try:
            return kind, registry_create(kind, names[0], **spec.arguments)
        except Exception as error:  # as above
            raise DataError(f"{kind} {spec.text!r} cannot be made: {why(error)}") from error


def arguments_of(kind: str, made: Any) -> tuple[str, ...]:
    """Names of the arguments that a task or scorer can be made with.

    Args:
        kind: "task" or "scorer".
        made: The object that :func:`create` gave.
    """
    name = private("_util.registry", "registry_info")(made).name
    maker = private("_util.registry", "registry_lookup")(kind, name)
    return tuple(signature(maker).parameters) if callable(maker) else ()


@cache
def private(module: str, name: str) -> Any:
    """A name of Inspect that may move from one version to the next.

    Raises:
        MissingExtra: If Inspect is not installed.
        ConfigError: If this version of it has no such name.
    """
    try:
        installed = version("inspect-ai")
    except PackageNotFoundError as error:
        raise MissingExtra("inspect-ai", "inspect", "an Inspect task or scorer") from error
    try:
        return getattr(import_module(f"inspect_ai.{module}"), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"inspect-ai {installed} has no {module}.{name}, which tailcast was tested with in "
            f"{TESTED}: run pip install 'inspect-ai=={TESTED}'."
        ) from error


def named_model(name: str, **settings: Any) -> Any:
    """A model by Inspect's own name, such as openai/gpt-4o.

    Args:
        name: The model, provider/name.
        **settings: Of Inspect's GenerateConfig.

    Raises:
        MissingExtra: If Inspect is not installed.
        JudgeError: If it knows no such model.
    """
    try:
        from inspect_ai.model import GenerateConfig, get_model
    except ImportError as error:
        raise MissingExtra("inspect-ai", "inspect", "a judge by Inspect") from error
    try:
        return get_model(name, config=GenerateConfig(**settings))
    except Exception as error:  # each provider raises its own
        raise JudgeError(f"judge model {name!r} cannot be had of Inspect: {why(error)}") from error


def public_create() -> Any:
    """Inspect's function (kind, name, **arguments) -> object."""
    return private("util", "registry_create")


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine, on a loop of our own that outlives it.

    Clients of Inspect's models belong to the loop that they were first used on, and a
    notebook's thread runs a loop already.
    """
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result()


def why(error: BaseException) -> str:
    """An exception of Inspect's in one line: type and message, without markup."""
    text = re.sub(r"\[/?[a-z ]+\]", "", str(getattr(error, "message", error)))
    return shortened(f"{type(error).__name__}: {' '.join(text.split())}".removesuffix(": "))


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="tailcast-inspect").start()
    return loop


def _folder(spec: InspectSpec) -> AbstractContextManager[Any]:
    """The folder that a file's code expects to run in."""
    if spec.path is None:
        return nullcontext()
    if not spec.path.is_file():
        raise DataError(f"file {str(spec.path)!r} does not exist: check the path.")
    found: AbstractContextManager[Any] = private("_util.path", "chdir_python")(
        spec.path.resolve().parent.as_posix()
    )
    return found


def _loaded(spec: InspectSpec, kinds: Sequence[str]) -> tuple[str, ...]:
    """Load a file; the name that was asked for, or all that it defines."""
    path = Path(spec.path or "").name
    private("_util.module", "load_module")(Path(path).absolute())
    decorated = private("_util.decorator", "parse_decorators")
    names = tuple(name for kind in kinds for name, _ in decorated(Path(path), kind))
    return names if not spec.name else tuple(name for name in names if name == spec.name)


def _missing(spec: InspectSpec, wanted: str, names: Sequence[str]) -> str:
    if spec.path is None:
        return (
            f"{spec.text!r} is no {wanted} that Inspect knows: write FILE.py@NAME, or install "
            "the package that brings it."
        )
    if not names:
        which = f"called {spec.name!r}" if spec.name else "with that decorator at its top level"
        return f"{spec.path} holds no {wanted} {which}: check the file and the name."
    return f"{spec.path} holds {', '.join(names)}: name one, as in {spec.path}@{names[0]}."


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
