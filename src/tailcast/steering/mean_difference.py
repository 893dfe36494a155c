"""Which direction in the residual stream leads from safe to unsafe responses?"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tailcast.errors import SteeringError
from tailcast.models import HuggingFaceTarget
from tailcast.types import ContrastPair, Positions, Query, SteeringVector

__all__ = ["Reading", "fit_mean_difference"]

Reading = Literal["response", "prompt"]


def fit_mean_difference(
    target: HuggingFaceTarget,
    pairs: Sequence[ContrastPair],
    *,
    reading: Reading = "response",
    positions: Positions = "response",
) -> list[SteeringVector]:
    """Mean activation over unsafe responses minus mean over safe ones, at every layer.

    As persona vectors do (Chen et al. 2025): not normalised, so that strength 1 adds one
    mean difference, in the units of the residual stream.

    Args:
        target: The model.
        pairs: Unsafe and safe responses to the same prompts, at least two.
        reading: "response" averages over the response's tokens; "prompt" reads the last
            prompt token of a prompt that ends with the response's first token.
        positions: Where the vectors will steer.

    Returns:
        One vector for each decoder layer, in order of depth.

    Raises:
        SteeringError: If there are fewer than two pairs, or a response has no token.
    """
    differences = read_differences(target, pairs, reading=reading)
    return as_vectors(target, differences, reading=reading, positions=positions)


def read_differences(
    target: HuggingFaceTarget, pairs: Sequence[ContrastPair], *, reading: Reading
) -> NDArray[np.float64]:
    """Activation of the unsafe response minus that of the safe one, [pairs, L, d].

    Raises:
        SteeringError: If there are fewer than two pairs, or a response has no token.
    """
    if len(pairs) < 2:
        raise SteeringError(
            f"{len(pairs)} pair is too few for a mean difference: give at least two."
        )
    rows = []
    for number, pair in enumerate(pairs, 1):
        prompt = target.encode(Query.user(f"pair {number}", pair.prompt))
        unsafe = read_response(target, prompt, pair.unsafe, reading, name=f"pair {number}")
        safe = read_response(target, prompt, pair.safe, reading, name=f"pair {number}")
        rows.append(unsafe - safe)
    return np.stack(rows)


def as_vectors(
    target: HuggingFaceTarget,
    differences: NDArray[np.float64],
    *,
    reading: Reading,
    positions: Positions,
) -> list[SteeringVector]:
    """The mean of differences [pairs, L, d] as one vector for each layer."""
    provenance = {"method": "mean difference", "reading": reading, "pairs": len(differences)}
    own = target.weights_fingerprint
    return [
        SteeringVector("add", layer, direction, positions, own, {**provenance})
        for layer, direction in enumerate(differences.mean(axis=0).astype(np.float32))
    ]


def read_response(
    target: HuggingFaceTarget,
    prompt: tuple[int, ...],
    response: str,
    reading: Reading,
    *,
    name: str,
) -> NDArray[np.float64]:
    """What one response looks like at every layer, [L, d].

    Raises:
        SteeringError: If it has no token; says whose response it is.
    """
    tokens = target.encode_response(response)
    if not tokens:
        raise SteeringError(f"{name} has a response without a token: fill or drop it.")
    if reading == "prompt":
        tokens = tokens[:1]
    states = target.activations(prompt, tokens)[:, len(prompt) :]
    mean: NDArray[np.float64] = states.astype(np.float64).mean(axis=1)
    return mean
