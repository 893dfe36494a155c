"""Between queries and tokens: chat format, tokenizer, end tokens; no weights are needed."""

from collections.abc import Sequence
from typing import Any

from tailcast.errors import ModelError
from tailcast.types import Query

__all__ = ["PromptFormat", "end_tokens", "with_system_prompt"]


class PromptFormat:
    """How a model reads queries and writes responses.

    Args:
        tokenizer: Its tokenizer, a transformers one.
        ends: Tokens that end a response.
        system_prompt: Put before every query; None leaves the template's own default.
        plain_prompt: Do without a chat template: the contents of the messages, one a line.
    """

    def __init__(
        self, tokenizer: Any, ends: frozenset[int], *, system_prompt: str | None = None,
        plain_prompt: bool = False,
    ) -> None:  # fmt: skip
        self.tokenizer = tokenizer
        self.end_tokens = ends
        self.system_prompt = system_prompt
        self.plain_prompt = plain_prompt

    @property
    def format(self) -> bytes:
        """All that decides the prompt of a query but the tokenizer."""
        template = str(getattr(self.tokenizer, "chat_template", None))
        return repr((self.system_prompt, self.plain_prompt)).encode() + template.encode()

    def messages(self, query: Query) -> list[dict[str, str]]:
        """The messages of a query, the system prompt before them.

        Raises:
            ModelError: If it has one of its own.
        """
        return with_system_prompt(query, self.system_prompt)

    def encode(self, query: Query) -> tuple[int, ...]:
        """Prompt tokens, by the model's own chat template with a generation prompt."""
        messages = self.messages(query)
        if self.plain_prompt:
            text = "\n".join(message["content"] for message in messages)
            tokens = self.tokenizer(text)["input_ids"]
        else:
            tokens = self._templated(messages)
        if not tokens:
            raise ModelError(f"query {query.id!r} has no tokens: its prompt is empty.")
        return tuple(int(token) for token in tokens)

    def _templated(self, messages: list[dict[str, str]]) -> list[int]:
        if not getattr(self.tokenizer, "chat_template", None):
            raise ModelError(
                "the model's tokenizer has no chat template: give it one, or pass "
                "--plain-prompt to send the text of the query as it is."
            )
        try:
            text = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # templates raise what they like
            raise ModelError(f"the model's chat template refused the messages: {error}") from error
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    def encode_response(self, text: str) -> tuple[int, ...]:
        """Tokens of a response's text, nothing added."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of response tokens; end tokens and other special ones left out."""
        kept = [token for token in tokens if token not in self.end_tokens]
        text: str = self.tokenizer.decode(kept, skip_special_tokens=True)
        return text


def end_tokens(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """All end tokens of a generation config, else the tokenizer's one.

    Args:
        generation_config: A transformers one; None where a model has none.
        tokenizer: The model's tokenizer.
    """
    ends = getattr(generation_config, "eos_token_id", None)
    ends = tokenizer.eos_token_id if ends is None else ends
    if ends is None:
        return frozenset()
    return frozenset([ends] if isinstance(ends, int) else ends)


def with_system_prompt(query: Query, system_prompt: str | None) -> list[dict[str, str]]:
    """The messages of a query, a system prompt before them where there is one.

    Raises:
        ModelError: If the query has one of its own.
    """
    messages = [*query.messages]
    if system_prompt is None:
        return messages
    if messages[0]["role"] == "system":
        raise ModelError(
            f"query {query.id!r} has a system message of its own: drop system_prompt, or the "
            "message."
        )
    return [{"role": "system", "content": system_prompt}, *messages]
