"""The only door to language models."""

from tailcast.models.engines import build_engine
from tailcast.models.head import widen_head
from tailcast.models.huggingface import HuggingFaceTarget, weights_fingerprint
from tailcast.models.loading import load_classifier, load_model, load_target, shape_of
from tailcast.models.memory import is_out_of_memory, planned_rows
from tailcast.models.served import Given, Served
from tailcast.models.server_targets import load_served
from tailcast.models.tabular import TabularTarget
from tailcast.models.vllm_target import load_vllm

__all__ = [
    "Given",
    "HuggingFaceTarget",
    "Served",
    "TabularTarget",
    "build_engine",
    "is_out_of_memory",
    "load_classifier",
    "load_model",
    "load_served",
    "load_target",
    "load_vllm",
    "planned_rows",
    "shape_of",
    "weights_fingerprint",
    "widen_head",
]
