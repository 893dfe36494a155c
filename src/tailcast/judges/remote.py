"""A judge model behind the chat API of any OpenAI-compatible server."""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any

from tailcast.errors import JudgeAway, JudgeError
from tailcast.http import JsonServer
from tailcast.judges.readings import Replies, Reply
from tailcast.judges.recipes import Recipe, readable
from tailcast.types import Query

__all__ = ["PROBE", "TOP", "ServerModel", "chats"]

_CHARACTERS = 8  # of a completion, for each token that the recipe lets through
PROBE = [{"role": "user", "content": "Hello."}]  # what any model that works can answer
_PROBE_TRIES = 2
TOP = 20  # likeliest tokens that servers give at most


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
        self.name = name or self.server.only_model("--judge-model")
        self.fingerprint = f"{self.name} at {self.server.address}"
        self.tokens = {"prompt_tokens": 0, "completion_tokens": 0}
        self._lock = threading.Lock()

    @property
    def usage(self) -> dict[str, int]:
        """Requests sent again, and tokens read and written."""
        return {"retries": self.server.retries, **self.tokens}

    def ask(self, query: Query, completions: Sequence[str]) -> Iterator[Replies]:
        """Each completion with a reply to every prompt about it, as they come in.

        Raises:
            JudgeAway: When the server answers nothing any more; what it answered comes first.
        """

        def one(completion: str) -> Replies:
            chat = chats(self.recipe, query, completion)
            return completion, [self._reply(each) for each in chat]

        pool = ThreadPoolExecutor(self.workers)
        try:
            yield from _finished([pool.submit(one, each) for each in completions])
        finally:
            pool.shutdown(cancel_futures=True)

    def _reply(self, messages: list[dict[str, str]]) -> Reply | Exception:
        try:
            answer = self._answer(messages)
            choice = answer["choices"][0]
            text = choice["message"]["content"] or ""
            listed = ((choice.get("logprobs") or {}).get("content") or [{}])[0]
            law = {one["token"]: float(one["logprob"]) for one in listed.get("top_logprobs") or []}
        except JudgeError as error:
            self._check_that_it_answers(error)
            return error
        except (KeyError, IndexError, TypeError, ValueError) as error:
            return JudgeError(f"the judge's server gave an answer of another shape ({error!r})")
        with self._lock:
            for name in self.tokens:
                self.tokens[name] += int((answer.get("usage") or {}).get(name) or 0)
        return Reply(text, law)

    def _answer(self, messages: list[dict[str, str]], **tries: int) -> Any:
        """What the server says to a conversation, with the first token's law where it is read."""
        body: dict[str, Any] = {
            "model": self.name, "messages": messages, "temperature": 0,
            "max_tokens": self.recipe.answer_tokens,
        }  # fmt: skip
        if self.recipe.reading in ("expected", "number"):
            body |= {"logprobs": True, "top_logprobs": TOP}
        return self.server.ask("POST", "/v1/chat/completions", body, **tries)

    def _check_that_it_answers(self, error: JudgeError) -> None:
        """Whether a failure is of one prompt alone.

        Raises:
            JudgeAway: If any other request fails too: no server, key, model or quota is left.
        """
        try:
            self._answer(PROBE, tries=_PROBE_TRIES)
        except JudgeError:
            raise JudgeAway(str(error)) from error


def _finished(asked: Sequence["Future[Replies]"]) -> Iterator[Replies]:
    """Results as they come; once one says that the judge is away, those that are there."""
    away: JudgeAway | None = None
    for done in as_completed(asked):
        if done.cancelled():
            continue
        try:
            yield done.result()
        except JudgeAway as error:
            away = away or error
            for one in asked:
                one.cancel()
    if away is not None:
        raise away


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
    some = readable(completion[: _CHARACTERS * recipe.completion_tokens])
    if recipe.layout == "conversation":
        return [[*query.messages, {"role": "assistant", "content": some}]]
    system = [{"role": "system", "content": recipe.system}] if recipe.system else []
    texts = recipe.texts(query, some)
    return [[*system, {"role": "user", "content": text}] for text in texts]
