"""A model on two devices, on a machine that has one: run by test_device_map.py.

Tensors of the device ``far`` lie in main memory, but say that they lie on far:0 or far:1, and
whatever brings tensors of two devices together fails, as it does between GPUs. So what is tested
is where everything lies; how fast a real device is, and what its rounding is, is not.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import dispatch_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from tailcast.models import HuggingFaceTarget, load_target, planned_rows
from tailcast.models.loading import load_model
from tailcast.models.projection import ProjectedStream
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, draw
from tailcast.types import ModelSettings, SamplingSettings, SteeringVector

PROMPT = (1, 10, 11, 2)


class Far(torch.Tensor):
    """A tensor that says that it lies elsewhere."""

    @staticmethod
    def __new__(cls, inner, device):
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=device,
            storage_offset=inner.storage_offset(),
        )  # fmt: skip
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})

    def tolist(self):
        return self.inner.tolist()

    def data_ptr(self):  # by which accelerate knows tied weights
        return self.inner.data_ptr()


class Devices(TorchDispatchMode):
    """Lets tensors be made on far:0 and far:1."""

    def __enter__(self):
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(False)
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


def computed(func, args, kwargs):
    """Compute in main memory; what comes of it lies where its operands do."""
    name = func._schema.name.removeprefix("aten::")
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    devices = {one.device for one in tensors if one.ndim or one.device.type != "cpu"}
    if name.startswith("index") and args[0].device.type != "cpu":
        devices.discard(torch.device("cpu"))  # indices may
    if len(devices) > 1 and name not in ("_to_copy", "copy_"):
        raise RuntimeError(f"{name}: tensors on different devices, {devices}")
    place = torch.device(kwargs.get("device") or next(iter(devices), "cpu"))

    def inner(one):
        if isinstance(one, torch.device):
            return torch.device("cpu")
        return one.inner if isinstance(one, Far) else one

    found = func(*tree_map(inner, args), **tree_map(inner, kwargs))
    if name.endswith("_"):
        return args[0]
    if place.type == "cpu":
        return found
    return tree_map(lambda one: Far(one, place) if isinstance(one, torch.Tensor) else one, found)


def spread(settings):
    """The model with its first half on far:0 and the second on far:1."""
    model, tokenizer = load_model(settings)
    half = len(model.model.layers) // 2
    head = "far:0" if model.config.tie_word_embeddings else "far:1"
    where = {"model.embed_tokens": "far:0", "model.rotary_emb": "far:0", "model.norm": "far:1"}
    where |= {f"model.layers.{n}": f"far:{int(n >= half)}" for n in range(2 * half)}
    where |= {"lm_head": head}
    for name, module in model.named_modules():
        place = next((where[one] for one in where if f"{name}.".startswith(f"{one}.")), "cpu")
        for key, weight in module._parameters.items():
            if weight is not None:
                moved = torch.nn.Parameter(weight.detach().to(place), requires_grad=False)
                module._parameters[key] = moved
        for key, buffer in module._buffers.items():
            module._buffers[key] = buffer.to(place)
    if model.config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return HuggingFaceTarget(dispatch_model(model, where, main_device="far:0"), tokenizer)


def stepped(target, vector):
    """Logits of a stream through everything that a slot can go through."""
    stream = target.stream(vector, slots=4, max_new_tokens=4)
    for strength in (0.0, 1.0, 2.0):
        stream.open(PROMPT, strength)
    stream.open(PROMPT[1:], 1.0)
    found = [stream.push(torch.tensor([2, 2, 2, 2])), stream.push(torch.tensor([3, 4, 5, 6]))]
    state = stream.save(1)
    stream.close([0])
    stream.open(PROMPT, 1.0, state)
    return [*found, stream.push(torch.tensor([6, 7, 7, 8]))]


def drawn(target, vector):
    """Tokens drawn from a mixture of the target and the steered target."""
    proposals = [Proposal(1.0, 3, 0.5), Proposal.target()]
    requests = [
        DrawRequest("q", PROMPT, proposals[n % 2], n, f"seed/{n}", "") for n in range(24)
    ]  # fmt: skip
    [batch] = draw(target, requests, SamplingSettings(max_new_tokens=5), steering=vector, slots=8)
    return batch


def main(path, dtype):
    settings = ModelSettings(model=path, dtype=dtype)
    plain, direction = load_target(settings), np.random.default_rng(0).normal(size=16)
    with Devices(), torch.no_grad():
        both = plain, spread(settings)
        gaps, projections = {}, []
        for operator, layer, positions in [
            ("add", 0, "response"), ("add", 3, "all"), ("ablate", 3, "response"),
            ("ablate", 0, "all"),
        ]:  # fmt: skip
            vector = SteeringVector(operator, layer, direction.astype(np.float32), positions)
            pairs = zip(*(stepped(target, vector) for target in both))
            gap = max((one.cpu() - other.cpu()).abs().max().item() for one, other in pairs)
            gaps[f"{operator} {layer} {positions}"] = gap
        for target in both:
            stream = ProjectedStream(target, vector, 2, 2)
            stream.open(PROMPT, 0.0)
            stream.push(torch.tensor([2]))
            projections.append(stream.projections.tolist())
        batches = [drawn(target, vector) for target in both]
        states = [target.activations(PROMPT, (3, 4)) for target in both]
        found = {
            "devices": sorted(map(str, both[1].devices)),
            "cache": sorted({str(one.device) for one in both[1].plain_pass(PROMPT).keys.values()}),
            "gaps": gaps,
            "projections": projections,
            "same tokens": bool((batches[0].tokens == batches[1].tokens).mean() > 0.9),
            "weights": max(float(np.abs(batches[0].log_weights - batches[1].log_weights).max()), 0),
            "states": float(np.abs(states[0] - states[1]).max()),
            "same fingerprint": both[0].fingerprint == both[1].fingerprint,
            "rows": planned_rows(both[1], 4, 1.0),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    _setup_privateuseone_for_python_backend("far")
    main(str(Path(sys.argv[1])), sys.argv[2])
