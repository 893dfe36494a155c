"""A judge model behind the chat API of any OpenAI-compatible server."""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from tailcast.errors import JudgeError
from tailcast.http import JsonServer
from tailcast.judges.readings import Replies, Reply
from tailcast.judges.recipes import Recipe
from tailcast.types import Query

__all__ = ["TOP", "ServerModel", "chats"]

_CHARACTERS = 8  # of a completion, for each token that the recipe lets through
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
            body |= {"logprobs": True, "top_logprobs": TOP}
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
