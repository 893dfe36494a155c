import numpy as np
import pytest
import torch

from tailcast.models import TabularTarget
from tailcast.types import Query, SteeringVector

torch.set_num_threads(2)


def a_table() -> TabularTarget:
    """Five tokens, six steps; steering raises the rare token 4."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(6, 5, 5))
    table[:, :, 4] -= 2.0
    shift = np.zeros_like(table)
    shift[:, :, 4] = 2.0
    return TabularTarget(table, shift)


def a_vector() -> SteeringVector:
    """The steering vector of tabular targets, of which only the strength counts."""
    return SteeringVector("add", 0, np.ones(1, np.float32))


@pytest.fixture(scope="session")
def tabular() -> TabularTarget:
    return a_table()


@pytest.fixture(scope="session")
def unit() -> SteeringVector:
    return a_vector()


@pytest.fixture(scope="session")
def query() -> Query:
    return Query.user("q", "hello")
