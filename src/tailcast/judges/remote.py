"""A judge model behind an API: any OpenAI-compatible server, or what Inspect reaches."""

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from tailcast.errors import JudgeError, MissingExtra
from tailcast.http import JsonServer
from tailcast.judges.readings import Replies, Reply
from tailcast.judges.recipes import Recipe
from tailcast.types import Query

__all__ = ["InspectModel", "ServerModel"]

_CHARACTERS = 8  # of a completion, for each token that the recipe lets through
_TOP = 20  # likeliest tokens that servers give at most


class ServerModel:
    """A model at an OpenAI-compatible server (/v1/chat/completions).

    Args:
        recipe: What it is asked; layout message or conversation.
        address: For example http://localhost:8000; the key is $TAILCAST_JUDGE_KEY, else
            $OPENAI_API_KEY.
        name: Of the model there; its only one if empty.
        workers: Requests under way at one time.
        rate: Requests a second, at most; None for no limit.

    Raises:
        JudgeError: If the server does not answer or does not serve that model.
    """

    def __init__(
        self, recipe: Recipe, address: str, *, name: str = "", workers: int = 16,
        rate: float | None = None,
    ) -> None:  # fmt: skip
        key = os.environ.get("TAILCAST_JUDGE_KEY") or os.environ.get("OPENAI_API_KEY") or ""
        self.recipe = recipe
        self.workers = workers
        self.server = JsonServer(
            address, JudgeError, flag="--judge-server", connections=workers, key=key, rate=rate,
            timeout=120.0,
        )  # fmt: skip
        served = self.server.models() if not name else [name]
        if len(served) != 1:
            raise JudgeError(
                f"the server at {self.server.address} serves {len(served)} models "
                f"({', '.join(served[:5])}): name one with --judge-model."
            )
        self.name = served[0]
        self.fingerprint = f"{self.name} at {self.server.address}"
        self.tokens = {"prompt_tokens": 0, "completion_tokens": 0}
        self._lock = threading.Lock()

    @property
    def usage(self) -> dict[str, int]:
        """Requests sent again, and tokens read and written."""
        return {"retries": self.server.retries, **self.tokens}

    def ask(self, query: Query, completions: Sequence[str]) -> Iterator[Replies]:
        """Each completion with a reply to every prompt about it, as they come in."""

        def one(completion: str) -> Replies:
            chat = chats(self.recipe, query, completion)
            return completion, [self._reply(each) for each in chat]

        pool = ThreadPoolExecutor(self.workers)
        try:
            for done in as_completed([pool.submit(one, each) for each in completions]):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _reply(self, messages: list[dict[str, str]]) -> Reply | Exception:
        recipe = self.recipe
        wants_law = recipe.reading in ("expected", "number")
        body: dict[str, Any] = {
            "model": self.name, "messages": messages, "temperature": 0,
            "max_tokens": recipe.answer_tokens,
        }  # fmt: skip
        if wants_law:
            body |= {"logprobs": True, "top_logprobs": _TOP}
        try:
            answer = self.server.ask("POST", "/v1/chat/completions", body)
            choice = answer["choices"][0]
            text = choice["message"]["content"] or ""
            listed = ((choice.get("logprobs") or {}).get("content") or [{}])[0]
            law = {one["token"]: float(one["logprob"]) for one in listed.get("top_logprobs") or []}
        except JudgeError as error:
            return error
        except (KeyError, IndexError, TypeError, ValueError) as error:
            return JudgeError(f"the judge's server gave an answer of another shape ({error!r})")
        with self._lock:
            for name in self.tokens:
                self.tokens[name] += int((answer.get("usage") or {}).get(name) or 0)
        return Reply(text, law if wants_law else {})


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
        try:
            from inspect_ai.model import GenerateConfig, get_model
        except ImportError as error:
            raise MissingExtra("inspect-ai", "inspect", "judge_server inspect") from error
        self.recipe = recipe
        self.name = name
        self.fingerprint = f"{name} by inspect"
        self.usage = {"prompt_tokens": 0, "completion_tokens": 0}
        law = recipe.reading in ("expected", "number")
        options = GenerateConfig(
            temperature=0.0, max_tokens=recipe.answer_tokens, max_connections=workers,
            max_retries=5, timeout=120, logprobs=law or None, top_logprobs=_TOP if law else None,
        )  # fmt: skip
        try:
            self.model = get_model(name, config=options)
        except Exception as error:  # each provider raises its own
            raise JudgeError(f"judge model {name!r} cannot be had of Inspect: {error}") from error

    def ask(self, query: Query, completions: Sequence[str]) -> Iterator[Replies]:
        """Each completion with a reply to every prompt about it."""

        async def one(messages: list[dict[str, str]]) -> Reply | Exception:
            try:
                return await self._reply(messages)
            except Exception as error:  # as above
                return error

        async def every() -> list[list[Reply | Exception]]:
            given = [chats(self.recipe, query, completion) for completion in completions]
            flat = await asyncio.gather(*(one(each) for some in given for each in some))
            found = iter(flat)
            return [[next(found) for _ in some] for some in given]

        with ThreadPoolExecutor(1) as pool:  # a notebook's thread has a loop of its own running
            yield from zip(completions, pool.submit(asyncio.run, every()).result(), strict=True)

    async def _reply(self, messages: list[dict[str, str]]) -> Reply:
        from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

        kinds: dict[str, Any] = {
            "user": ChatMessageUser, "assistant": ChatMessageAssistant, "system": ChatMessageSystem,
        }  # fmt: skip
        output = await self.model.generate(
            [kinds[m["role"]](content=m["content"]) for m in messages]
        )
        if output.usage:
            self.usage["prompt_tokens"] += output.usage.input_tokens
            self.usage["completion_tokens"] += output.usage.output_tokens
        content = output.choices[0].logprobs.content if output.choices[0].logprobs else []
        first = content[0].top_logprobs or [] if content else []
        return Reply(output.completion, {one.token: one.logprob for one in first})


def chats(recipe: Recipe, query: Query, completion: str) -> list[list[dict[str, str]]]:
    """The conversations that ask a recipe's prompts about a completion.

    Raises:
        JudgeError: If the recipe's layout is for models on this machine only.
    """
    if recipe.layout == "plain":
        raise JudgeError(
            "a judge of layout plain cannot be asked through a chat API: leave --judge-server "
            "out, or write a judge file with layout message."
        )
    some = completion[: _CHARACTERS * recipe.completion_tokens]
    if recipe.layout == "conversation":
        return [[*query.messages, {"role": "assistant", "content": some}]]
    system = [{"role": "system", "content": recipe.system}] if recipe.system else []
    texts = recipe.texts(query, some)
    return [[*system, {"role": "user", "content": text}] for text in texts]
