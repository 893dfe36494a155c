"""A target behind a chat API: texts, without tokens or log-probabilities."""

import json
from collections.abc import Sequence
from hashlib import sha256

from tailcast.errors import ModelError
from tailcast.http import JsonServer
from tailcast.models.prompt_format import with_system_prompt
from tailcast.models.served import Remote
from tailcast.types import Continuation, Query, SamplingSettings

__all__ = ["ChatTarget"]


class ChatTarget(Remote):
    """A model behind /v1/chat/completions: texts alone, so plain sampling alone.

    A prompt is the conversation as JSON, byte by byte: what such a server is given.

    Args:
        server: The server.
        name: Of the model there.
        system_prompt: Put before every query.
        seeded: Whether each request names a seed.
        workers: Requests under way at one time.
    """

    end_tokens: frozenset[int] = frozenset()

    def __init__(
        self, server: JsonServer, name: str, *, system_prompt: str | None, seeded: bool,
        workers: int,
    ) -> None:  # fmt: skip
        super().__init__(workers)
        self.server = server
        self.name = name
        self.system_prompt = system_prompt
        self.seeded = seeded
        self.fingerprint = f"{name} by chat, {sha256(repr(system_prompt).encode()).hexdigest()[:8]}"

    def encode(self, query: Query) -> tuple[int, ...]:
        """The conversation."""
        return tuple(json.dumps(with_system_prompt(query, self.system_prompt)).encode())

    def decode(self, tokens: Sequence[int]) -> str:
        """Nothing: texts come from the server."""
        return ""

    def continued(
        self, prompt: tuple[int, ...], settings: SamplingSettings, limit: int, seed: int
    ) -> Continuation:
        """An answer to one conversation.

        Raises:
            ModelError: If the answer has another shape.
        """
        body = {
            "model": self.name, "messages": json.loads(bytes(prompt)), "max_tokens": limit,
            "temperature": settings.temperature, "top_p": settings.top_p,
        }  # fmt: skip
        body |= {"top_k": settings.top_k} if settings.top_k else {}
        body |= {"seed": seed} if self.seeded else {}
        answer = self.server.ask("POST", "/v1/chat/completions", body)
        try:
            choice = answer["choices"][0]
            said, finish = choice["message"], choice["finish_reason"]
            text = said.get("content") or said.get("refusal") or ""
            length = int((answer.get("usage") or {}).get("completion_tokens") or 0)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ModelError(
                f"the server at {self.server.address}/v1/chat/completions gave an answer of "
                f"another shape ({error!r}): check --target-server; what was done before is kept."
            ) from None
        return Continuation((), text, "length" if finish == "length" else "stop", length)
