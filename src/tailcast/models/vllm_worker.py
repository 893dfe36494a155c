"""Steering inside vLLM's workers: a vector added to the residual stream, request by request.

vLLM makes this class a base of its worker's. A request says in its ``extra_args`` at which
strength it is steered and from which position on; what is computed in one forward pass is a mixed
batch, so that every row of it has its own strength. Positions are absolute: chunked prompts,
cached blocks and requests that were put off and computed anew are steered alike.

It wraps ``_prepare_inputs`` of vLLM's first model runner, which is called once the order of a
batch is final; that name is private, and is why the version is pinned.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["START", "STRENGTH", "SteeringWorker"]

STRENGTH, START = "tailcast_strength", "tailcast_start"  # in a request's extra_args


class SteeringWorker:
    """What a worker of vLLM can do besides; names begin with ours to be no others'."""

    model_runner: Any
    tailcast_coefficients: Any = None
    tailcast_hook: Any = None

    def tailcast_steer(self, layer: int, direction: Sequence[float]) -> str:
        """Make a direction the one that strengths are of, at the output of a decoder layer.

        Returns:
            Why it cannot be; empty if it can.
        """
        runner = self.model_runner
        if not (hasattr(runner, "_prepare_inputs") and hasattr(runner, "input_batch")):
            return "its model runner is not the one that can be steered"
        config = runner.model_config.hf_text_config
        if len(direction) != config.hidden_size:
            return (
                f"the steering vector has width {len(direction)}, the model's residual stream "
                f"{config.hidden_size}"
            )
        if not 0 <= layer < config.num_hidden_layers:
            return f"the model has layers 0 to {config.num_hidden_layers - 1}, and no layer {layer}"
        lists = _decoder_layers(runner.get_model(), config.num_hidden_layers)
        if len(lists) != 1:
            return f"the model has {len(lists)} lists of {config.num_hidden_layers} decoder layers"
        if self.tailcast_hook is None:
            runner._prepare_inputs = self._tailcast_prepared(runner._prepare_inputs)
        else:
            self.tailcast_hook.remove()
        device = next(runner.get_model().parameters()).device
        step = torch.tensor(direction, dtype=runner.model_config.dtype, device=device)

        def add(module: Any, given: Any, output: Any) -> Any:
            strengths = self.tailcast_coefficients
            if strengths is not None:
                # of (hidden, residual) the sum is the stream: adding to one adds to it
                hidden = output[0] if isinstance(output, tuple) else output
                hidden[: len(strengths)] += strengths.to(hidden)[:, None] * step
            return output

        self.tailcast_hook = lists[0][layer].register_forward_hook(add)
        return ""

    def tailcast_reseed(self, seed: int) -> None:
        """Begin the random numbers that requests without a seed are sampled by."""
        torch.manual_seed(seed)

    def tailcast_digest(self) -> str:
        """What tells these weights from others."""
        from tailcast.models.huggingface import weights_fingerprint

        return weights_fingerprint(self.model_runner.get_model())

    def _tailcast_prepared(self, prepare: Any) -> Any:
        """``_prepare_inputs``, with the strength of every token of the batch noted first."""
        runner = self.model_runner

        def prepared(scheduled: Any, *args: Any, **kwargs: Any) -> Any:
            batch, rows, any_steered = runner.input_batch, [], False
            for place, request in enumerate(batch.req_ids):
                count = scheduled.num_scheduled_tokens[request]
                said = runner.requests[request].sampling_params.extra_args or {}
                row = torch.zeros(count)
                if strength := said.get(STRENGTH, 0.0):
                    done = int(batch.num_computed_tokens_cpu[place])
                    row[max(said[START] - done, 0) :] = strength
                    any_steered = True
                rows.append(row)
            self.tailcast_coefficients = torch.cat(rows) if any_steered else None
            return prepare(scheduled, *args, **kwargs)

        return prepared


def _decoder_layers(model: nn.Module, depth: int) -> list[nn.ModuleList]:
    """Lists of so many modules that attend: one, in a decoder-only transformer."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == depth
        and all(
            any("attention" in type(part).__name__.lower() for part in layer.children())
            for layer in module
        )
    ]
