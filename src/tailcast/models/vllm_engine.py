"""vLLM in this process: how it is opened and asked, and an engine that continues by it."""

import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import torch

from tailcast.errors import MissingExtra, ModelError
from tailcast.models.loading import auto_dtype
from tailcast.models.memory import free_bytes
from tailcast.types import Continuation, ModelSettings, SamplingSettings

__all__ = ["Vllm", "VllmEngine", "as_continuation", "open_vllm"]

_WORKER = "tailcast.models.vllm_worker.SteeringWorker"
_QUIET = {"VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_LOGGING_LEVEL": "WARNING"}


class Vllm(NamedTuple):
    """An opened model.

    Attributes:
        llm: A ``vllm.LLM``.
        sampling: ``vllm.SamplingParams``.
        cpu: Whether it runs on a CPU.
        version: Of vLLM, without what it was built for.
    """

    llm: Any
    sampling: Any
    cpu: bool
    version: str

    def generated(
        self, prompts: Sequence[Any], params: Sequence[Any], seeds: Sequence[int]
    ) -> list[Any]:
        """What vLLM answers to requests, in one call, which it schedules.

        Args:
            prompts: In vLLM's form.
            params: Of each.
            seeds: Of each: together they name the random numbers of all that have no seed.
                Without that a run that goes on would get the numbers that it has had.

        Raises:
            ModelError: If vLLM stops.
        """
        seed = int.from_bytes(sha256(repr(list(seeds)).encode()).digest()[:4], "little")
        try:
            self.llm.collective_rpc("tailcast_reseed", args=(seed,))
            return list(self.llm.generate(prompts, params, use_tqdm=False))
        except Exception as error:  # vLLM's own, by version
            raise ModelError(
                f"vLLM stopped ({type(error).__name__}: {error}): its log above says why; what "
                "was drawn before is kept."
            ) from error


def open_vllm(
    settings: ModelSettings, *, purpose: str, only: str = "", memory: float | None = None,
    environment: dict[str, str] | None = None, **options: Any,
) -> Vllm:  # fmt: skip
    """Load a model into vLLM.

    Args:
        settings: A directory or hub id without adapter.
        purpose: What needs it, for messages.
        only: The one version that will do; any if empty.
        memory: GiB for keys and values, if not vLLM's usual on a GPU and half of what is free on
            a CPU.
        environment: Variables that vLLM reads, where the user has not set them.
        options: Of ``vllm.LLM``.

    Raises:
        MissingExtra: If vLLM is not installed.
        ModelError: If it is another version, or cannot load such a model.
    """
    if settings.adapter or settings.model == "embedded" or settings.model.endswith(".gguf"):
        raise ModelError(
            f"{purpose} takes a model directory or a hub id: merge the adapter and save the "
            "model with save_pretrained, or use the own engine."
        )
    for name, value in {**_QUIET, **(environment or {})}.items():
        os.environ.setdefault(name, value)
    try:
        from vllm import LLM, SamplingParams, __version__
        from vllm.platforms import current_platform
    except ImportError as error:
        raise MissingExtra("vllm", "vllm", purpose) from error
    except RuntimeError as error:  # of libraries that were built for other ones
        raise ModelError(f"vllm is installed, and cannot be imported: {error}.") from error
    version, cpu = __version__.split("+")[0], current_platform.is_cpu()
    if only and version != only:
        raise ModelError(
            f"{purpose} needs vllm {only}, whose inside it was tried with, and {version} is "
            f"installed: run pip install vllm=={only}, or take --engine vllm."
        )
    device = torch.device("cpu" if cpu else "cuda")
    room = memory * 2**30 if memory is not None else 0.5 * free_bytes(device) if cpu else None
    dtype = auto_dtype(settings, device) if settings.dtype == "auto" else settings.dtype
    try:
        llm = LLM(
            settings.model, revision=settings.revision, enable_prefix_caching=True,
            dtype=dtype, trust_remote_code=settings.trust_remote_code, worker_extension_cls=_WORKER,
            # its default on CPUs, 128, is longer than most prompts, which none would share
            block_size=32 if cpu else None,
            kv_cache_memory_bytes=int(room) if room else None, **options,
        )  # fmt: skip
    except Exception as error:  # vLLM's own, by version
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"vLLM cannot load {settings.model!r}: {reason[:300]}") from error
    return Vllm(llm, SamplingParams, cpu, version)


class VllmEngine:
    """vLLM on the same weights as the target, for what follows a switch.

    Args:
        settings: The target's; a directory or hub id without adapter.
        ends: The target's end tokens.
        seeded: Whether each prompt has a seed; on CPUs vLLM dies of one, and gets none.

    Raises:
        MissingExtra: If vLLM is not installed.
        ModelError: If vLLM cannot load such a model.
    """

    def __init__(self, settings: ModelSettings, ends: frozenset[int], *, seeded: bool) -> None:
        self.vllm = open_vllm(settings, purpose="engine vllm")
        self.ends = sorted(ends)
        self.seeded = seeded and not self.vllm.cpu

    def sample(
        self,
        prompts: Sequence[tuple[int, ...]],
        settings: SamplingSettings,
        *,
        limits: Sequence[int],
        seeds: Sequence[int],
    ) -> list[Continuation]:
        """All prompts in one call."""
        params = [
            self.vllm.sampling(
                temperature=settings.temperature, top_p=settings.top_p, top_k=settings.top_k,
                max_tokens=limit, seed=seed if self.seeded else None,
                stop_token_ids=self.ends, ignore_eos=True, detokenize=False,
            )
            for limit, seed in zip(limits, seeds, strict=True)
        ]  # fmt: skip
        given = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return [as_continuation(one) for one in self.vllm.generated(given, params, seeds)]


def as_continuation(answer: Any) -> Continuation:
    """What vLLM sampled for one request."""
    one = answer.outputs[0]
    return Continuation(tuple(one.token_ids), None, one.finish_reason, len(one.token_ids))
