"""Steering vectors on disk: ours as safetensors with provenance, and what others made.

| file | made by | read as |
|---|---|---|
| ``*.safetensors`` | tailcast | exactly what was saved |
| ``direction.pt`` with ``direction_metadata.json`` | refusal_direction | ablate |
| ``*.pt`` with a tensor [layers + 1, d] | persona_vectors | add, layer to be named |
| ``*.gguf`` with tensors ``direction.N`` | llama.cpp, repeng | add, layer to be named |

Torch files are loaded weights-only: nothing in them is executed.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tailcast.errors import SteeringError
from tailcast.types import Operator, Positions, SteeringVector

__all__ = ["load_steering", "save_steering"]


def save_steering(vectors: Sequence[SteeringVector], path: str | Path) -> None:
    """Save one vector, or those of several layers of one fit, as safetensors.

    Args:
        vectors: One, of any number of layers, or several of a layer each that are alike in
            all but that and their direction.
        path: The file.

    Raises:
        SteeringError: If the file cannot be written.
    """
    from safetensors.numpy import save_file

    first = vectors[0]
    places = [place for vector in vectors for place in vector.places]
    header = {
        "format": "tailcast steering 1",
        "operator": first.operator,
        "positions": first.positions,
        "layers": json.dumps([layer for layer, _ in places]),
        "at_once": json.dumps(bool(first.also)),
        "profile": json.dumps(first.profile),
        "fingerprint": first.fingerprint,
        "unit": "strength 1 adds the direction once, in units of the residual stream",
        "provenance": json.dumps(first.provenance),
    }
    directions = np.stack([direction for _, direction in places]).astype(np.float32)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_file({"directions": directions}, str(path), metadata=header)
    except OSError as error:
        raise SteeringError(f"steering vector cannot be written to {path}: {error}.") from error


def load_steering(
    path: str | Path,
    *,
    layer: int | None = None,
    operator: Operator | None = None,
    positions: Positions | None = None,
) -> SteeringVector:
    """Load a vector of any of the formats above.

    Args:
        path: The file; for refusal_direction, ``direction.pt`` beside its metadata.
        layer: Decoder layer from 0, for files that hold several; it steers the layer's
            output, which persona_vectors counts as layer + 1.
        operator: Use it with this operator instead of the file's own.
        positions: Steer these positions instead of the file's own.

    Raises:
        SteeringError: If the file is missing, none of these formats, or its layer open.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise SteeringError(f"steering vector {str(path)!r} does not exist: check the path.")
    readers = {".safetensors": _ours, ".pt": _torch, ".gguf": _gguf}
    if path.suffix not in readers:
        raise SteeringError(
            f"{path} is no steering vector: its name ends in none of {', '.join(readers)}."
        )
    try:
        vectors = readers[path.suffix](path)
    except SteeringError:
        raise
    except Exception as error:  # each reader raises its own kinds for a broken file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SteeringError(f"{path} cannot be read as a steering vector: {reason}") from error
    vector = _at_layer(vectors, layer, path)
    if not all(np.isfinite(one).all() and one.any() for _, one in vector.places):
        raise SteeringError(f"{path} holds a direction that is zero or not finite: fit it again.")
    if not np.isfinite(vector.profile).all():
        raise SteeringError(f"{path} holds a profile that is not finite: fit it again.")
    return replace(
        vector, operator=operator or vector.operator, positions=positions or vector.positions
    )


def _at_layer(vectors: list[SteeringVector], layer: int | None, path: Path) -> SteeringVector:
    first = vectors[0]
    if first.also and layer is not None:
        together = ", ".join(str(at) for at, _ in first.places)
        raise SteeringError(
            f"{path} holds layers {together} of one vector, which steers them at once: name none "
            f"(got {layer})."
        )
    if len(vectors) == 1 and layer in (None, first.layer):
        return first
    layers = [vector.layer for vector in vectors]
    if layer not in layers:
        span = f"layers {layers[0]} to {layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"
        raise SteeringError(
            f"{path} holds {span}: name one, by --layer or vector:FILE@LAYER (got {layer})."
        )
    return vectors[layers.index(layer)]


def _ours(path: Path) -> list[SteeringVector]:
    from safetensors import safe_open

    with safe_open(str(path), framework="numpy") as file:
        header = file.metadata() or {}
        if not header.get("format", "").startswith("tailcast steering"):
            raise SteeringError(f"{path} was not made by tailcast: no steering header in it.")
        directions = file.get_tensor("directions")
    profile = tuple(map(float, json.loads(header.get("profile", "[]"))))
    vectors = [
        SteeringVector(
            "ablate" if header["operator"] == "ablate" else "add",
            int(layer),
            direction,
            "all" if header["positions"] == "all" else "response",
            header["fingerprint"],
            json.loads(header["provenance"]),
            profile=profile,
        )
        for layer, direction in zip(json.loads(header["layers"]), directions, strict=True)
    ]
    if not json.loads(header.get("at_once", "false")):
        return vectors
    first, *others = vectors
    return [replace(first, also=tuple((one.layer, one.direction) for one in others))]


def _torch(path: Path) -> list[SteeringVector]:
    import torch

    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, torch.Tensor) or loaded.ndim not in (1, 2):
        raise SteeringError(f"{path} holds no tensor of shape [d] or [layers + 1, d].")
    values = loaded.float().numpy()
    if values.ndim == 2:
        return _stack(values[1:], range(len(values) - 1), path, "persona_vectors")
    metadata = path.with_name("direction_metadata.json")
    if not metadata.is_file():
        raise SteeringError(
            f"{path} holds one direction, but {metadata.name} beside it is missing."
        )
    fields = json.loads(metadata.read_text("utf-8"))
    # refusal_direction counts the input of block l, which is the output of layer l - 1
    layer = max(int(fields["layer"]) - 1, 0)
    provenance = {"method": "refusal_direction", "file": str(path), **fields}
    return [SteeringVector("ablate", layer, values, "all", "", provenance)]


def _gguf(path: Path) -> list[SteeringVector]:
    from gguf import GGUFReader

    found = {
        int(tensor.name.split(".")[1]): np.asarray(tensor.data, dtype=np.float32)
        for tensor in GGUFReader(str(path)).tensors
        if tensor.name.startswith("direction.")
    }
    if not found:
        raise SteeringError(f"{path} holds no tensors direction.N: it is no gguf control vector.")
    layers = sorted(found)
    return _stack(np.stack([found[layer] for layer in layers]), layers, path, "gguf control vector")


def _stack(
    values: NDArray[np.float32], layers: Sequence[int], path: Path, method: str
) -> list[SteeringVector]:
    provenance = {"method": method, "file": str(path)}
    return [
        SteeringVector("add", layer, value, "response", "", provenance)
        for layer, value in zip(layers, values, strict=True)
    ]
