"""At which layer does the mean difference move the model most towards unsafe responses?"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tailcast.errors import SteeringError
from tailcast.models import HuggingFaceTarget
from tailcast.proposals import StreamKey
from tailcast.sampling import Streams, score
from tailcast.steering.mean_difference import Reading, as_vectors, read_differences
from tailcast.types import ContrastPair, Positions, Query, SamplingSettings, SteeringVector

__all__ = ["choose_layer"]

_SCORED_TOKENS = 8
_CANDIDATES = 9
_HELD_OUT = 16


def choose_layer(
    target: HuggingFaceTarget,
    pairs: Sequence[ContrastPair],
    *,
    reading: Reading = "response",
    positions: Positions = "response",
    differences: NDArray[np.float64] | None = None,
    component: int = 0,
) -> SteeringVector:
    """The vector of the layer that scores best on held-out pairs.

    A layer's score is the mean over held-out pairs of the gain, at strength 1 over
    strength 0, in log p(unsafe) - log p(safe) of the first 8 response tokens, in nats.
    Candidates are about nine layers between 20% and 80% of the depth; every fourth pair
    is held out, at most 16. The vector returned is then refitted on all pairs.

    Args:
        target: The model.
        pairs: Unsafe and safe responses to the same prompts.
        reading: What a response is read at.
        positions: Where the vector will steer.
        differences: Activations of the pairs, [pairs, L, d], if they were read before, perhaps
            under other prompts; read now if None.
        component: Of the differences, see :func:`tailcast.steering.fit_mean_difference`.

    Returns:
        The best vector; its provenance holds every candidate's score.

    Raises:
        SteeringError: If there are fewer than 8 pairs, the component does not exist, or no layer
            scores above 0.
    """
    if len(pairs) < 8:
        raise SteeringError(
            f"{len(pairs)} pairs are too few to choose a layer by held-out pairs: "
            "give at least 8, or name a layer."
        )
    if differences is None:
        differences = read_differences(target, pairs, reading=reading)
    tested = range(0, min(len(pairs), 4 * _HELD_OUT), 4)
    kept = np.delete(differences, tested, axis=0)
    vectors_of = partial(
        as_vectors, target, reading=reading, positions=positions, component=component
    )
    fitted = vectors_of(kept)
    held = [pairs[index] for index in tested]
    low, high = int(0.2 * target.depth), max(int(0.8 * target.depth), 1)
    layers = range(low, high, max(1, -(-(high - low) // _CANDIDATES)))
    scores = {layer: held_out_gain(target, fitted[layer], held) for layer in layers}
    best = max(scores, key=lambda layer: scores[layer])
    if scores[best] <= 0:
        raise SteeringError(
            f"no layer moves the model towards the unsafe responses (best: layer {best}, "
            f"{scores[best]:.2g} nats): "
            + (
                f"leave component {component} out."
                if component
                else "check that unsafe and safe are not swapped."
            )
        )
    vector = vectors_of(differences)[best]
    vector.provenance["held_out_gain_nats"] = {str(k): round(v, 4) for k, v in scores.items()}
    return vector


def held_out_gain(
    target: HuggingFaceTarget, vector: SteeringVector, pairs: Sequence[ContrastPair]
) -> float:
    """Mean gain in log p(unsafe) - log p(safe) at strength 1 over strength 0, in nats."""
    prompts, responses = [], []
    for pair in pairs:
        prompts += [target.encode(Query.user("pair", pair.prompt))] * 2
        responses += [target.encode_response(text) for text in (pair.unsafe, pair.safe)]
    logp, logs, _ = score(
        Streams(target, vector), prompts, responses, [StreamKey(1.0)],
        SamplingSettings(max_new_tokens=_SCORED_TOKENS), tokens=_SCORED_TOKENS,
    )  # fmt: skip
    unsafe, safe = (logs[:, 0] - logp).sum(axis=1).reshape(-1, 2).T
    return float((unsafe - safe).mean())
