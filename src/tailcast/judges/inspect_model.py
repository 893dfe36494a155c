"""A judge model that Inspect AI reaches, by Inspect's name for it."""

import asyncio
from collections.abc import Iterator, Sequence

from tailcast.errors import JudgeAway
from tailcast.judges.inspect_door import named_model, run, why
from tailcast.judges.inspect_tasks import chat_messages
from tailcast.judges.readings import Replies, Reply
from tailcast.judges.recipes import Recipe
from tailcast.judges.remote import PROBE, TOP, chats
from tailcast.types import Query

__all__ = ["InspectModel"]


class InspectModel:
    """A model by Inspect's own name, such as openai/gpt-4o or mockllm/model.

    Args:
        recipe: What it is asked; layout message or conversation.
        name: The model, provider/name.
        workers: Requests under way at one time.

    Raises:
        MissingExtra: If Inspect is not installed.
        JudgeError: If it knows no such model.
    """

    def __init__(self, recipe: Recipe, name: str, *, workers: int = 16) -> None:
        self.recipe = recipe
        self.name = name
        self.fingerprint = f"{name} by inspect"
        self.usage = {"prompt_tokens": 0, "completion_tokens": 0}
        law = recipe.reading in ("expected", "number")
        self.model = named_model(
            name, temperature=0.0, max_tokens=recipe.answer_tokens, max_connections=workers,
            max_retries=5, timeout=120, logprobs=law or None, top_logprobs=TOP if law else None,
        )  # fmt: skip

    def ask(self, query: Query, completions: Sequence[str]) -> Iterator[Replies]:
        """Each completion with a reply to every prompt about it.

        Raises:
            JudgeAway: After what was answered, when no request is answered any more.
        """

        async def one(messages: list[dict[str, str]]) -> Reply | Exception:
            try:
                return await self._reply(messages)
            except Exception as error:  # each provider raises its own
                return error

        async def every() -> list[list[Reply | Exception]]:
            given = [chats(self.recipe, query, completion) for completion in completions]
            flat = await asyncio.gather(*(one(each) for some in given for each in some))
            found = iter(flat)
            return [[next(found) for _ in some] for some in given]

        replies = run(every())
        failed = [any(isinstance(one, Exception) for one in some) for some in replies]
        away = self._away() if any(failed) else None
        for completion, some, fails in zip(completions, replies, failed, strict=True):
            if not (away and fails):
                yield completion, some
        if away:
            raise away

    def _away(self) -> JudgeAway | None:
        """Whether the model fails on any other prompt too."""
        try:
            run(self._reply(PROBE))
        except Exception as error:  # as above
            return JudgeAway(
                f"judge model {self.name!r} does not answer by Inspect ({why(error)}): start it, "
                "or check --judge-model and its key; what was done before is kept."
            )
        return None

    async def _reply(self, messages: list[dict[str, str]]) -> Reply:
        output = await self.model.generate(chat_messages(tuple(messages)))
        if output.usage:
            self.usage["prompt_tokens"] += output.usage.input_tokens
            self.usage["completion_tokens"] += output.usage.output_tokens
        content = output.choices[0].logprobs.content if output.choices[0].logprobs else []
        first = content[0].top_logprobs or [] if content else []
        return Reply(output.completion, {one.token: one.logprob for one in first})
