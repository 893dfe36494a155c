"""A target that vLLM runs whole, in this process: it draws, steered or not, and scores.

Every request carries its own steering strength, so that draws of all streams share a batch. What
is steered and what is not never share cached keys and values: the salt of a steered request's
cache says by what, how far and from where on it is steered.
"""

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailcast.errors import ModelError, SteeringError
from tailcast.models.loading import load_tokenizer
from tailcast.models.prompt_format import PromptFormat
from tailcast.models.served import PROBE, Given, Served
from tailcast.models.vllm_engine import Vllm, as_continuation, open_vllm
from tailcast.models.vllm_worker import START, STRENGTH
from tailcast.types import Continuation, ModelSettings, SamplingSettings, SteeringVector

__all__ = ["VERSION", "VllmTarget", "load_vllm"]

VERSION = "0.32.0"
"""The one version of vLLM: steering reaches into it, by names that are private there."""
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else what shares a batch is a matter of chance
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # steering is written for the first one
}
_STRONG, _DRAWS, _TOKENS = 4.0, 8, 6  # of the check that steering acts
_LEAST = 1e-3  # nats a token: what such a strength does at least


def load_vllm(settings: ModelSettings, *, memory: float | None = None) -> "VllmTarget":
    """A target that vLLM runs.

    Args:
        settings: A model directory or hub id.
        memory: GiB for keys and values, if not as :func:`open_vllm` says.

    Raises:
        TailcastError: If vLLM is not there, is another version, or cannot run the model.
    """
    vllm = open_vllm(
        settings, purpose="target_engine vllm", only=VERSION, memory=memory,
        environment=_ENVIRONMENT, enforce_eager=True,
    )  # fmt: skip
    tokenizer, ends = load_tokenizer(settings)
    return VllmTarget(
        vllm, tokenizer, ends, system_prompt=settings.system_prompt,
        plain_prompt=settings.plain_prompt,
    )  # fmt: skip


class VllmTarget(PromptFormat, Served):
    """A model in vLLM.

    Args:
        vllm: The opened model, its workers extended by ours.
        tokenizer: The model's own.
        ends: Its end tokens.
        system_prompt: As for :class:`PromptFormat`.
        plain_prompt: As for :class:`PromptFormat`.
    """

    def __init__(
        self, vllm: Vllm, tokenizer: Any, ends: frozenset[int], *,
        system_prompt: str | None = None, plain_prompt: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(tokenizer, ends, system_prompt=system_prompt, plain_prompt=plain_prompt)
        self.vllm = vllm
        self._vector: SteeringVector | None = None
        self._salt = ""

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Digest of weights and prompt format, the dtype, and vLLM's version."""
        dtype = self.vllm.llm.llm_engine.vllm_config.model_config.dtype
        weights = "".join(self._told("tailcast_digest"))
        digest = sha256(self.format + weights.encode()).hexdigest()[:16]
        return f"{digest} in {str(dtype).removeprefix('torch.')} by vllm {self.vllm.version}"

    def sample(
        self,
        prompts: Sequence[tuple[int, ...]],
        settings: SamplingSettings,
        *,
        limits: Sequence[int],
        seeds: Sequence[int],
        strengths: Sequence[float] = (),
    ) -> list[Continuation]:
        """One continuation of each prompt, all of them in one call."""
        strengths = strengths or [0.0] * len(prompts)
        requests = [
            self._request(
                Given(prompt, (), strength), max_tokens=limit, temperature=settings.temperature,
                top_p=settings.top_p, top_k=settings.top_k, stop_token_ids=sorted(self.end_tokens),
            )
            for prompt, limit, strength in zip(prompts, limits, strengths, strict=True)
        ]  # fmt: skip
        return [as_continuation(one) for one in self._answers(requests, seeds)]

    def given(self, asked: Sequence[Given]) -> tuple[list[NDArray[np.float64]], int]:
        """Log-probabilities of given tokens, all of them in one call."""
        requests = [self._request(one, max_tokens=1, prompt_logprobs=0) for one in asked]
        answers = self._answers(requests, [0] * len(asked))
        found = [_logs(one, answer.prompt_logprobs) for one, answer in zip(asked, answers)]
        return found, sum(len(one.prompt) + len(one.tokens) + 1 for one in asked)

    def steer(self, vector: SteeringVector) -> None:
        """Make a vector the one that strengths are of, and see that it acts.

        Raises:
            SteeringError: If the vector does not fit, or its operator is not to be had.
            ModelError: If vLLM was opened without our extension, or steering does not act.
        """
        if vector is self._vector:
            return
        if vector.operator != "add":
            raise SteeringError(
                f"operator {vector.operator} is not to be had in vLLM, which adds only: take a "
                "vector that is added, or the own engine."
            )
        if vector.also or vector.profile:
            raise SteeringError(
                "a vector of several layers, or with a profile of strengths, is not to be had in "
                "vLLM, which adds one direction alike to all tokens: take the own engine."
            )
        for problem in self._told("tailcast_steer", vector.layer, vector.direction.tolist()):
            if problem:
                raise SteeringError(
                    f"vLLM cannot steer this model: {problem}; fit a vector for it with tailcast "
                    "steer, or use the own engine."
                )
        self._vector = vector
        self._salt = vector.digest
        try:
            self._check_steering()
        except ModelError:
            self._vector = None
            raise

    def _check_steering(self) -> None:
        """See that strong steering acts on draws and scores alike, and on nothing else.

        Nothing that vLLM answers would say that it does not.
        """
        prompt = self.encode(PROBE)
        strengths = [0.0, _STRONG] * _DRAWS
        requests = [
            self._request(Given(prompt, (), one), max_tokens=_TOKENS, logprobs=0, temperature=1.0)
            for one in strengths
        ]
        answers = self._answers(requests, range(len(requests)))
        drawn = [tuple(one.outputs[0].token_ids) for one in answers]
        told = np.array(
            [
                [law[token].logprob for token, law in zip(tokens, one.outputs[0].logprobs)]
                for tokens, one in zip(drawn, answers)
            ]
        )
        plain, steered = (
            np.array(self.given([Given(prompt, tokens, strength) for tokens in drawn])[0])
            for strength in (0.0, _STRONG)
        )
        own = np.where(np.array(strengths)[:, None] > 0, steered, plain)
        acts = np.abs(steered - plain)
        apart = np.abs(told - own).mean()
        if not (min(acts.mean(), acts[:, 0].mean()) > max(_LEAST, 4 * apart)):
            raise ModelError(
                "steering does not act in vLLM as it must (strength "
                f"{_STRONG:g} moves a token by {acts.mean():.2g} nats, the first by "
                f"{acts[:, 0].mean():.2g}, and draws are {apart:.2g} from their scores): use the "
                "own engine."
            )

    def _request(self, what: Given, **params: Any) -> tuple[dict[str, Any], Any]:
        """A prompt in vLLM's form, and its parameters.

        End tokens are ours to name: vLLM would add others, from more than one of its sources.
        """
        prompt: dict[str, Any] = {"prompt_token_ids": [*what.prompt, *what.tokens]}
        if what.strength:
            if self._vector is None:
                raise ModelError("nothing was made ready to be steered in vLLM: give a vector.")
            start = 0 if self._vector.positions == "all" else len(what.prompt) - 1
            params["extra_args"] = {STRENGTH: what.strength, START: start}
            prompt["cache_salt"] = f"{self._salt} {what.strength!r} {start}"
        return prompt, self.vllm.sampling(ignore_eos=True, detokenize=False, **params)

    def _answers(self, requests: Sequence[tuple[Any, Any]], seeds: Sequence[int]) -> list[Any]:
        prompts, params = [one for one, _ in requests], [one for _, one in requests]
        return self.vllm.generated(prompts, params, seeds)

    def _told(self, method: str, *args: Any) -> list[str]:
        """What our part of each worker says.

        Raises:
            ModelError: If there is none.
        """
        try:
            return list(self.vllm.llm.collective_rpc(method, args=args))
        except Exception as error:  # vLLM's own, by version
            raise ModelError(
                f"vLLM's workers do not know {method} ({type(error).__name__}): open it with "
                "tailcast's extension, as load_vllm does."
            ) from error


def _logs(what: Given, laws: Any) -> NDArray[np.float64]:
    """Log-probabilities of the tokens after a prompt, from those of all tokens."""
    start = len(what.prompt)
    pairs = zip(what.tokens, laws[start : start + len(what.tokens)], strict=True)
    return np.array([law[token].logprob for token, law in pairs], dtype=np.float64)
