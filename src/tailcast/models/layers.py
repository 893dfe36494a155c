"""Where in an unknown decoder do its layers, attentions and MLPs sit?

No table of families: the decoder layers are the one list of equal modules that is as
long as the config says the model is deep, and that holds all the attention modules.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from tailcast.errors import ModelError

__all__ = ["DecoderLayers", "find_layers"]

_MLP_NAMES = ("mlp", "moe", "feedforward", "ffn")


@dataclass(frozen=True)
class DecoderLayers:
    """The places at which steering acts, in order of depth."""

    layers: tuple[nn.Module, ...]
    writers: tuple[nn.Module, ...]  # attention and MLP modules: what a block adds


def find_layers(model: nn.Module, config: Any) -> DecoderLayers:
    """Find the decoder layers of a causal language model.

    Args:
        model: The model.
        config: Its text config, with ``num_hidden_layers``.

    Raises:
        ModelError: If there is no such list, or a layer lacks an attention or an MLP; the
            sentence says what was looked for.
    """
    name = type(model).__name__
    depth = getattr(config, "num_hidden_layers", None)
    lists = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == depth
        and all(_attention(layer) is not None for layer in module)
    ]
    if len(lists) != 1:
        raise ModelError(
            f"{name} cannot be steered: it has {len(lists)} lists of {depth} decoder layers with "
            "self-attention, and steering needs exactly one. Choose a decoder-only transformer."
        )
    writers: list[nn.Module] = []
    for index, layer in enumerate(lists[0]):
        attention, mlp = _attention(layer), _mlp(layer)
        if attention is None or mlp is None:
            raise ModelError(f"{name} cannot be steered: its layer {index} has no MLP of its own.")
        writers += [attention, mlp]
    return DecoderLayers(tuple(lists[0]), tuple(writers))


def _attention(layer: nn.Module) -> nn.Module | None:
    """The child that attends: it knows its layer's index, as transformers' attentions do."""
    found = [
        child
        for child in layer.children()
        if hasattr(child, "layer_idx") and "attention" in type(child).__name__.lower()
    ]
    return found[0] if len(found) == 1 else None


def _mlp(layer: nn.Module) -> nn.Module | None:
    """The child whose class or name says that it is the feed-forward part."""
    labels = {
        child: f"{name} {type(child).__name__}".lower() for name, child in layer.named_children()
    }
    found = [
        child
        for child, label in labels.items()
        if any(word in label for word in _MLP_NAMES) and "norm" not in label and "drop" not in label
    ]
    return found[0] if len(found) == 1 else None
