"""Targets that sample, and tell log-probabilities of given tokens, but show no whole laws.

They are behind a server, or inside vLLM. Streams are those whose laws are known from the
target's log-probabilities of the tokens at hand, and the target steered, where that can be.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from tailcast.errors import ModelError
from tailcast.kept_answers import KeptAnswers
from tailcast.models.engines import ServerEngine
from tailcast.models.prompt_format import PromptFormat
from tailcast.types import Continuation, Query, SamplingSettings, SteeringVector

__all__ = ["PROBE", "Given", "Remote", "Served", "ServedTarget"]

PROBE = Query.user("probe", "Hello.")
"""What a target is tried with before anything is drawn."""


class Given(NamedTuple):
    """Tokens after a prompt whose log-probabilities are asked for, and under which strength."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    strength: float = 0.0


class Served(ABC):
    """What all of them have."""

    fingerprint: str
    end_tokens: frozenset[int]

    @abstractmethod
    def encode(self, query: Query) -> tuple[int, ...]:
        """What stands for the prompt of a query."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """Text of response tokens."""

    @abstractmethod
    def sample(
        self,
        prompts: Sequence[tuple[int, ...]],
        settings: SamplingSettings,
        *,
        limits: Sequence[int],
        seeds: Sequence[int],
        strengths: Sequence[float] = (),
    ) -> list[Continuation]:
        """One continuation of each prompt.

        Args:
            prompts: Their tokens.
            settings: Temperature and truncation.
            limits: Most tokens of each.
            seeds: Name the random numbers of each.
            strengths: Of the steering of each, from its prompt's last token on; none if empty.
        """

    def given(self, asked: Sequence[Given]) -> tuple[list[NDArray[np.float64]], int]:
        """Log-probabilities of given tokens, each in its place.

        Returns:
            Those of each token, and the tokens that the model was run on: prompts too.

        Raises:
            ModelError: If it tells none.
        """
        raise ModelError(f"{self.fingerprint} tells no log-probabilities: take --method mc.")

    def steer(self, vector: SteeringVector) -> None:
        """Make a vector the one that strengths are of.

        Raises:
            TailcastError: If nothing can be steered there, or not by this vector.
        """
        raise ModelError(f"{self.fingerprint} cannot be steered: leave the vector out.")

    def stream(
        self, steering: SteeringVector | None, *, slots: int, max_new_tokens: int
    ) -> NoReturn:
        """Refused: whole laws are not to be had.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            f"{self.fingerprint} shows no whole law of the next token, which this needs: run the "
            "model by the own engine."
        )


class Remote(Served):
    """One that is asked by requests over a network, and for nothing twice.

    Args:
        workers: Requests under way at one time.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.kept: KeptAnswers | None = None

    def sample(
        self,
        prompts: Sequence[tuple[int, ...]],
        settings: SamplingSettings,
        *,
        limits: Sequence[int],
        seeds: Sequence[int],
        strengths: Sequence[float] = (),
    ) -> list[Continuation]:
        """One continuation of each prompt; what was answered before a kill is not asked again."""
        assert not any(strengths), "nothing is steered at a server"

        def one(prompt: tuple[int, ...], limit: int, seed: int) -> Continuation:
            name = f"{seed}/{limit}/{sha256(repr(prompt).encode()).hexdigest()[:16]}"
            known = self.kept.pop(name, None) if self.kept is not None else None
            if known is not None:
                tokens, *rest = known
                return Continuation(tuple(map(int, tokens.split())), *rest)
            found = self.continued(prompt, settings, limit, seed)
            if self.kept is not None:
                text = None if found.tokens else found.text
                words = " ".join(map(str, found.tokens))
                self.kept.write(name, (words, text, found.finish, found.length))
            return found

        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(one, prompts, limits, seeds))

    @abstractmethod
    def continued(
        self, prompt: tuple[int, ...], settings: SamplingSettings, limit: int, seed: int
    ) -> Continuation:
        """A continuation of one prompt, by one request."""


class ServedTarget(PromptFormat, Remote):
    """A model behind /v1/completions with token ids, ``echo`` and ``logprobs``.

    Args:
        engine: The server.
        tokenizer: The model's own.
        system_prompt: As for :class:`PromptFormat`.
        plain_prompt: As for :class:`PromptFormat`.
    """

    def __init__(
        self, engine: ServerEngine, tokenizer: Any, *, system_prompt: str | None = None,
        plain_prompt: bool = False,
    ) -> None:  # fmt: skip
        Remote.__init__(self, engine.workers)
        PromptFormat.__init__(
            self, tokenizer, frozenset(engine.ends), system_prompt=system_prompt,
            plain_prompt=plain_prompt,
        )  # fmt: skip
        self.engine = engine
        digest = sha256(self.format + repr((len(tokenizer), engine.ends)).encode()).hexdigest()
        self.fingerprint = f"{engine.model} at a server, {digest[:16]}"

    def continued(
        self, prompt: tuple[int, ...], settings: SamplingSettings, limit: int, seed: int
    ) -> Continuation:
        """A continuation of one prompt.

        Raises:
            ModelError: If it ended otherwise than by an end token or the limit.
        """
        found = self.engine.continued(prompt, settings, limit, seed)
        last = found.tokens[-1] if found.tokens else None
        ended = found.finish == "stop" and (last is None or last in self.end_tokens)
        if not (ended or (found.finish == "length" and found.length in (0, limit))):
            raise ModelError(
                f"the server at {self.engine.server.address} ended a completion by "
                f"{found.finish!r} after {found.length} tokens, which is neither at an end token "
                f"of --model's nor at the limit of {limit}: name the served model with --model, "
                "and serve it with a context that is long enough and without stops of its own."
            )
        return found

    def given(self, asked: Sequence[Given]) -> tuple[list[NDArray[np.float64]], int]:
        """Log-probabilities of given tokens, by one request for each."""
        with ThreadPoolExecutor(self.workers) as pool:
            found = list(pool.map(lambda one: self._given(one.prompt, one.tokens), asked))
        return found, sum(len(one.prompt) + len(one.tokens) + 1 for one in asked)

    def _given(self, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> NDArray[np.float64]:
        whole = prompt + tokens
        body = {"max_tokens": 1, "temperature": 1.0, "echo": True, "logprobs": 1}
        choice, _ = self.engine.completed(whole, body)
        try:
            listed = choice["logprobs"]["token_logprobs"][len(prompt) : len(whole)]
            logs = np.array(listed, dtype=np.float64)
        except (KeyError, TypeError, ValueError):
            logs = np.zeros(0)
        if len(logs) != len(tokens) or not (logs < 1e-3).all():
            raise ModelError(
                f"the server at {self.engine.server.address} tells no log-probabilities of given "
                "tokens (echo and logprobs of /v1/completions), which weights are made of: take "
                "--method mc without streams, or serve the model with vLLM."
            )
        return logs

    def check(self, *, weighs: bool) -> None:
        """Make sure that server and tokenizer speak of the same tokens, before anything is drawn.

        Args:
            weighs: Whether log-probabilities will be asked for.

        Raises:
            ModelError: If they do not, or the server does not tell what is needed.
        """
        prompt, address = self.encode(PROBE), self.engine.server.address
        if weighs:
            one = self.continued(prompt, SamplingSettings(), 2, 0)
            if not one.tokens:
                raise ModelError(
                    f"the server at {address} gives no token ids of what it samples "
                    "(return_token_ids of /v1/completions), which weights are made of: take "
                    "--method mc without streams, or serve the model with vLLM."
                )
            self._given(prompt, one.tokens)
        theirs = self._read_there()
        if theirs not in (None, prompt):
            raise ModelError(
                f"the server at {address} reads a chat as {len(theirs or ())} tokens where the "
                f"tokenizer and chat template of --model make {len(prompt)}, or others: name the "
                "served model with --model, and serve it with its own chat template."
            )

    def _read_there(self) -> tuple[int, ...] | None:
        """The probe's prompt as vLLM's /tokenize reads it; None for servers without that."""
        messages = self.messages(PROBE)
        said: dict[str, Any] = {"messages": messages, "add_generation_prompt": True}
        if self.plain_prompt:
            said = {"prompt": "\n".join(message["content"] for message in messages)}
        try:
            body = {"model": self.engine.model, **said}
            answer = self.engine.server.ask("POST", "/tokenize", body, tries=1)
            return tuple(answer["tokens"]) or None
        except (ModelError, KeyError, TypeError):
            return None
