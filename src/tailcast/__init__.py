"""How often does a language model do something rare and bad?

``tailcast.estimate(model, queries, judge, ...)`` measures it; the names below are the
public parts. They are imported on first use, so that ``import tailcast`` is fast and
leaves torch alone.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailcast.api import Estimates, estimate
    from tailcast.config import RunConfig
    from tailcast.errors import TailcastError
    from tailcast.models import HuggingFaceTarget, TabularTarget, load_target
    from tailcast.proposals import Proposal, ProposalGrid
    from tailcast.stats import Estimate
    from tailcast.steering import load_steering, save_steering
    from tailcast.types import ContrastPair, ModelSettings, Query, SamplingSettings, SteeringVector

_HOMES = {
    "ContrastPair": "types",
    "Estimate": "stats",
    "Estimates": "api",
    "HuggingFaceTarget": "models",
    "ModelSettings": "types",
    "Proposal": "proposals",
    "ProposalGrid": "proposals",
    "Query": "types",
    "RunConfig": "config",
    "SamplingSettings": "types",
    "SteeringVector": "types",
    "TabularTarget": "models",
    "TailcastError": "errors",
    "estimate": "api",
    "load_steering": "steering",
    "load_target": "models",
    "save_steering": "steering",
}

__all__ = [
    "ContrastPair",
    "Estimate",
    "Estimates",
    "HuggingFaceTarget",
    "ModelSettings",
    "Proposal",
    "ProposalGrid",
    "Query",
    "RunConfig",
    "SamplingSettings",
    "SteeringVector",
    "TabularTarget",
    "TailcastError",
    "estimate",
    "load_steering",
    "load_target",
    "save_steering",
]

__version__ = version("tailcast")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tailcast' has no attribute {name!r}")
    return getattr(import_module(f"tailcast.{_HOMES[name]}"), name)
