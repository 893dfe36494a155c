"""A language model small enough to list every answer: five tokens, six steps, exact risks."""

import numpy as np

import tailcast

STEERING = tailcast.SteeringVector("add", 0, np.ones(1, np.float32))
STEPS = 6


def small_model(rarer: float = 0.0, seed: int = 0) -> tailcast.TabularTarget:
    """A random law of the next token; steering raises the rare token 4.

    Args:
        rarer: How much further the logit of token 4 is lowered.
        seed: Which model.
    """
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(STEPS, 5, 5))
    table[:, :, 4] -= 2.0 + rarer
    shift = np.zeros_like(table)
    shift[:, :, 4] = 2.0 + rarer
    return tailcast.TabularTarget(table, shift)


def says_four_twice(query: tailcast.Query, answer: str) -> float:
    """The judge: token 4 stands in the answer at least twice."""
    return float(answer.split().count("4") >= 2)
