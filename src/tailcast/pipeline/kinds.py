"""From what a user writes after --streams to kinds of streams."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from tailcast.config import RunConfig
from tailcast.errors import ConfigError
from tailcast.mixtures import KINDS
from tailcast.models import load_target
from tailcast.pipeline.learning import hits_of_run
from tailcast.sampling import StreamKind
from tailcast.steering import load_steering
from tailcast.streams import Openings, Other, Prompted, Tilted, Vector, load_shift
from tailcast.types import Query, SteeringVector
from tailcast.workers import Kit

__all__ = ["build_kinds", "streams_digest"]


def build_kinds(
    kit: Kit, queries: Sequence[Query], given: Mapping[str, StreamKind]
) -> dict[str, StreamKind]:
    """The kinds of streams that a run names.

    Args:
        kit: The run's settings and its model.
        queries: Its queries.
        given: Kinds made elsewhere, by the names that the run uses.

    Raises:
        TailcastError: If one cannot be made.
    """
    return {
        spec: given[spec] if spec in given else _build(spec, kit.config, kit.target, queries)
        for spec in kit.config.streams
    }


def _build(spec: str, config: RunConfig, target: Any, queries: Sequence[Query]) -> StreamKind:
    """One kind."""
    name, _, rest = spec.partition(":")
    makers: Mapping[str, Callable[[], StreamKind]] = {
        "prefill": lambda: _prefilled(rest, target),
        "hits": lambda: Openings(hits_of_run(rest, target, tokens=max(config.grid.switches))),
        "prompt": lambda: Prompted(target, queries, rest),
        "vector": lambda: Vector(spec, target, _vector(rest)),
        "adapter": lambda: Other(spec, _model(config, adapter=rest)),
        "model": lambda: Other(spec, _model(config, model=rest, adapter=None, revision=None)),
        "learned": lambda: _shift(rest, target),
        "tilt": lambda: _tilted(rest, config, target, queries),
    }
    if name not in makers or not rest:
        raise ConfigError(f"stream {spec!r} is none of {', '.join(KINDS)}.")
    return makers[name]()


def _model(config: RunConfig, **changes: Any) -> Any:
    return load_target(config.model_settings.model_copy(update=changes))


def _vector(text: str) -> SteeringVector:
    """A file's vector, or that of a layer of it: FILE@12."""
    path, _, layer = text.rpartition("@")
    if path and layer.isdecimal() and not Path(text).exists():
        return load_steering(path, layer=int(layer))
    return load_steering(text)


def _shift(path: str, target: Any) -> StreamKind:
    return load_shift(Path(path), target.unembedding, getattr(target, "weights_fingerprint", ""))


def _prefilled(text: str, target: Any) -> Openings:
    """A file's lines, or the text itself, as openings."""
    place = Path(text)
    lines = place.read_text("utf-8").splitlines() if place.is_file() else [text]
    return Openings.prefilled([target.encode_response(line) for line in lines if line.strip()])


def _tilted(text: str, config: RunConfig, target: Any, queries: Sequence[Query]) -> Tilted:
    beta, _, inner = text.partition(":")
    try:
        number = float(beta)
    except ValueError:
        raise ConfigError(
            f"stream 'tilt:{text}' does not begin with a number: write tilt:1.5:prompt:TEXT."
        ) from None
    return Tilted(number, _build(inner, config, target, queries))


def streams_digest(kinds: Mapping[str, StreamKind]) -> str:
    """What decides the laws of all kinds, for the manifest."""
    facts = [(name, one.fingerprint) for name, one in sorted(kinds.items())]
    return sha256(repr(facts).encode()).hexdigest()[:16]
