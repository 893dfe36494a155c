"""Which directions in the residual stream lead from safe to unsafe responses?"""

from collections.abc import Sequence
from dataclasses import replace
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
    component: int = 0,
) -> list[SteeringVector]:
    """Mean activation over unsafe responses minus mean over safe ones, at every layer.

    As persona vectors do (Chen et al. 2025): not normalised, so that strength 1 adds one
    mean difference, in the units of the residual stream. Or a principal component of the
    differences, the first of which is what representation reading takes (Zou et al. 2023).

    Args:
        target: The model.
        pairs: Unsafe and safe responses to the same prompts, at least two.
        reading: "response" averages over the response's tokens; "prompt" reads the last
            prompt token of a prompt that ends with the response's first token.
        positions: Where the vectors will steer.
        component: 0 for the mean; k for the k-th principal component of the differences, as
            long as they are along it in the root mean square, and in the sense of their mean.

    Returns:
        One vector for each decoder layer, in order of depth.

    Raises:
        SteeringError: If there are fewer than two pairs, a response has no token, or there
            are not so many components.
    """
    differences = read_differences(target, pairs, reading=reading)
    return as_vectors(
        target, differences, reading=reading, positions=positions, component=component
    )


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
    component: int = 0,
) -> list[SteeringVector]:
    """The mean of differences [pairs, L, d], or a component, as one vector for each layer.

    Raises:
        SteeringError: If there are not so many components.
    """
    provenance = {"method": "mean difference", "reading": reading, "pairs": len(differences)}
    if component:
        provenance |= {"method": "principal component", "component": component}
    own = target.weights_fingerprint
    return [
        SteeringVector("add", layer, one.astype(np.float32), positions, own, {**provenance})
        for layer, one in enumerate(_directions(differences, component))
    ]


def _directions(differences: NDArray[np.float64], component: int) -> NDArray[np.float64]:
    """What differences [pairs, L, d] have in common at every layer, [L, d].

    Components are those of the differences themselves, their mean not taken away: it is
    most of what they have in common, and near the first of them.
    """
    mean: NDArray[np.float64] = differences.mean(axis=0)
    if not component:
        return mean
    pairs, _, width = differences.shape
    if not 0 < component <= min(pairs, width):
        raise SteeringError(
            f"component {component} does not exist: differences of {pairs} pairs of width {width} "
            f"have components 1 to {min(pairs, width)}."
        )
    _, sizes, ways = np.linalg.svd(differences.transpose(1, 0, 2), full_matrices=False)
    size, way = sizes[:, component - 1, None] / np.sqrt(pairs), ways[:, component - 1]
    sense = np.where((way * mean).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    found: NDArray[np.float64] = sense * size * way
    return found


def at_once(vectors: Sequence[SteeringVector]) -> SteeringVector:
    """Vectors of several layers as one that steers all of them, each by an equal share."""
    first, *others = vectors
    share = np.float32(1 / len(vectors))
    also = tuple((one.layer, share * one.direction) for one in others)
    return replace(first, direction=share * first.direction, also=also)


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
