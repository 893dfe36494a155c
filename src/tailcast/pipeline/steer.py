"""From files to a steering vector, for a run and for ``tailcast steer``."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tailcast.config import RunConfig
from tailcast.data import load_pairs, load_prompts
from tailcast.errors import ConfigError, SteeringError
from tailcast.models import HuggingFaceTarget
from tailcast.progress import Progress
from tailcast.steering import (
    choose_layer,
    fit_mean_difference,
    fit_refusal_direction,
    load_steering,
    save_steering,
)
from tailcast.steering.mean_difference import Reading
from tailcast.store import RunStore
from tailcast.types import ContrastPair, Operator, Positions, SteeringVector, Target

__all__ = ["fit_from_files", "steering_of"]

Sources = tuple[Path | None, Path | None, Path | None]


def fit_from_files(
    load: Callable[[], HuggingFaceTarget], out: Path, sources: Sources, layer: str,
    operator: Operator | None, reading: Reading,
) -> list[SteeringVector]:  # fmt: skip
    """Fit from (pairs, harmful, harmless) files and save.

    Args:
        load: Loads the model, after the files have been read.
        out: File to write.
        sources: Pairs, or harmful and harmless prompts; None for what is not given.
        layer: A number, "auto" or "all".
        operator: How the vector will steer; None for the usual one of the source.
        reading: What a pair's response is read at.

    Raises:
        ConfigError: If neither pairs nor both prompt files are given, the name does not end
            in .safetensors, or the layer is none of the forms above.
    """
    pairs, harmful, harmless = sources
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out} must end in .safetensors.")
    if not (layer in ("auto", "all") or layer.isdecimal()):
        raise ConfigError(f"--layer {layer!r} is none of auto, all and a number from 0 up.")
    if pairs is not None and harmful is None and harmless is None:
        if operator == "ablate":
            raise ConfigError("ablate needs a refusal direction: give --harmful and --harmless.")
        vectors = _from_pairs(load_pairs(pairs), load(), layer, reading)
    elif pairs is None and harmful is not None and harmless is not None:
        prompts = load_prompts(harmful), load_prompts(harmless)
        number = int(layer) if layer.isdecimal() else None
        vectors = [
            fit_refusal_direction(load(), *prompts, operator=operator or "ablate", layer=number)
        ]
    else:
        raise ConfigError("give --pairs, or --harmful together with --harmless.")
    save_steering(vectors, out)
    return vectors


def steering_of(
    config: RunConfig, target: Target, store: RunStore, progress: Progress
) -> SteeringVector | None:
    """The steering vector: loaded, fitted before, or fitted now from pairs."""
    kept = store.path / "steering.safetensors"
    if config.pairs and not kept.exists():
        if not isinstance(target, HuggingFaceTarget):
            raise SteeringError("pairs can steer a transformers model only: give a vector.")
        progress.say("Fitting the steering vector.")
        pairs = load_pairs(config.pairs)
        positions = config.positions or "response"
        layer = "auto" if config.layer is None else str(config.layer)
        vector = _from_pairs(pairs, target, layer, "response", positions)[0]
        hidden = store.path / ".steering.safetensors"
        save_steering([vector], hidden)
        hidden.replace(kept)
    source = kept if config.pairs else config.steering
    if source is None:
        return None
    vector = load_steering(
        source,
        layer=None if config.pairs else config.layer,
        operator=config.operator,
        positions=config.positions,
    )
    own = getattr(target, "weights_fingerprint", "")
    if vector.fingerprint and own and vector.fingerprint != own:
        raise SteeringError(
            f"steering vector {source} was fitted on another model ({vector.fingerprint}, this one "
            f"is {own}): fit one for this model with tailcast steer."
        )
    return vector


def _from_pairs(
    pairs: Sequence[ContrastPair], target: HuggingFaceTarget, layer: str, reading: Reading,
    positions: Positions = "response",
) -> list[SteeringVector]:  # fmt: skip
    """Vectors of the layer that is named, of the best one, or of all."""
    if layer == "auto":
        return [choose_layer(target, pairs, reading=reading, positions=positions)]
    vectors = fit_mean_difference(target, pairs, reading=reading, positions=positions)
    if layer == "all":
        return vectors
    if int(layer) >= len(vectors):
        raise ConfigError(f"layer {layer} does not exist: the layers are 0 to {len(vectors) - 1}.")
    return [vectors[int(layer)]]
