"""What does an Inspect task ask the model, and what does its solver make of an answer?

The solver is run with a ``generate()`` of ours: it hears the exact prompt, system messages, few
shots and answer formats included, and hands back one completion. So a query is what Inspect
itself would send, and a scorer sees the state that Inspect would show it. Solvers that ask more
than once, use tools or a sandbox, or prompts that are not text alone, are refused.
"""

import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tailcast.errors import DataError, TailcastError
from tailcast.judges.inspect_door import create, parse_spec, private, run, why
from tailcast.types import Query

__all__ = [
    "MODEL",
    "InspectTask",
    "answered",
    "chat_messages",
    "load_inspect_task",
    "messages_of",
    "queries_of_task",
]

_log = logging.getLogger(__name__)

MODEL = "tailcast/target"
"""The model's name, as solvers and scorers see it."""

_IGNORED = ("temperature", "top_p", "top_k", "max_tokens", "stop_seqs")
"""Settings of a task that a run of ours takes from its own config."""

Messages = tuple[dict[str, str], ...]


@dataclass(frozen=True)
class InspectTask:
    """A task and what it asks.

    Attributes:
        name: Its specification.
        task: Inspect's object.
        samples: Samples of its data set by query id.
        prompts: The messages that the model is sent, by query id.
        settings: Sampling settings that it asks for and that a run does not take from it.
    """

    name: str
    task: Any
    samples: dict[str, Any]
    prompts: dict[str, Messages]
    settings: dict[str, Any]


@lru_cache(maxsize=4)
def load_inspect_task(text: str) -> InspectTask:
    """Load a task and hear what it asks for every sample.

    Args:
        text: Its specification; see :mod:`tailcast.judges.inspect_door`.

    Raises:
        MissingExtra: If Inspect is not installed.
        DataError: If there is no such task, or a sample of it cannot be measured.
    """
    _, task = create(parse_spec(text), ("task",))
    samples = {
        str(number if sample.id is None else sample.id): sample
        for number, sample in enumerate(task.dataset, 1)
    }
    if len(samples) < len(task.dataset):
        raise DataError(f"task {text!r} has two samples of one id: ids must be distinct.")
    if [one.input for one in samples.values()] == ["prompt"] and not task.dataset.name:
        raise DataError(f"task {text!r} has no data set: give it one.")
    heard = run(_hear_all(text, task, samples))
    settings = {
        name: value
        for name in _IGNORED
        for value in [heard.settings.get(name, getattr(task.config, name, None))]
        if value is not None
    }
    if settings:
        shown = ", ".join(f"{name} = {value}" for name, value in settings.items())
        _log.warning("task %s asks for %s: a run samples by its own settings.", text, shown)
    if any(MODEL in part["content"] for prompt in heard.prompts.values() for part in prompt):
        _log.warning("task %s tells the model its name: it reads %s there.", text, MODEL)
    return InspectTask(text, task, samples, heard.prompts, settings)


def queries_of_task(text: str) -> list[Query]:
    """The queries of a task, in order; tags are its samples' category, where they have one.

    Raises:
        TailcastError: As :func:`load_inspect_task`.
    """
    found = load_inspect_task(text)
    queries = []
    for id, sample in found.samples.items():
        category = (sample.metadata or {}).get("category") or ()
        tags = (category,) if isinstance(category, str) else tuple(map(str, category))
        target = (sample.target,) if isinstance(sample.target, str) else tuple(sample.target)
        queries.append(Query(id, found.prompts[id], tags, tuple(filter(None, target))))
    return queries


async def answered(found: InspectTask, id: str, completion: str) -> Any:
    """The state of a sample once the model has answered, for a scorer.

    Raises:
        DataError: If the task has no such sample, or its solver now asks another question.
    """
    if id not in found.samples:
        raise DataError(f"task {found.name!r} has no sample {id!r}: it can judge its own only.")
    state, heard = await _solved(found.name, found.task, id, found.samples[id], completion)
    if heard != found.prompts[id]:
        raise DataError(
            f"the solver of task {found.name!r} asks sample {id!r} in another way each time: "
            "switch its shuffling off."
        )
    return state


def messages_of(messages: Sequence[Any], place: str) -> Messages:
    """Inspect's chat messages as a query's.

    Args:
        messages: ChatMessage objects that end with a user's.
        place: What they belong to, for the error's sentence.

    Raises:
        DataError: If they hold more than text, calls of tools, or do not end with a user.
    """
    for message in messages:
        parts = [] if isinstance(message.content, str) else message.content
        other = next((part.type for part in parts if part.type != "text"), None)
        if other is not None:
            raise DataError(f"{place} holds {other} content: only text can be measured.")
        if message.role == "tool" or getattr(message, "tool_calls", None):
            raise DataError(f"{place} holds calls of tools: only plain answers can be measured.")
    if not messages or messages[-1].role != "user":
        raise DataError(f"{place} does not end with a message of the user: nothing is asked.")
    return tuple({"role": message.role, "content": message.text} for message in messages)


def chat_messages(messages: Messages) -> list[Any]:
    """A query's messages as Inspect's."""
    from inspect_ai import model

    kinds: dict[str, Any] = {
        "user": model.ChatMessageUser,
        "assistant": model.ChatMessageAssistant,
        "system": model.ChatMessageSystem,
    }
    return [kinds[one["role"]](content=one["content"]) for one in messages]


@dataclass
class _Heard:
    prompts: dict[str, Messages] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


async def _hear_all(name: str, task: Any, samples: dict[str, Any]) -> _Heard:
    """Prompts of all samples; settings that the solver gives with them."""
    heard = _Heard()
    if task.sandbox is not None:
        raise DataError(f"task {name!r} needs a sandbox: only plain answers can be measured.")
    for id, sample in samples.items():
        if sample.sandbox is not None or sample.files or sample.setup:
            raise DataError(f"sample {id!r} of task {name!r} needs a sandbox or files.")
        answer = _Answer(f"sample {id!r} of task {name!r}", "", task.config.system_message)
        try:
            await _solve(task, id, sample, answer)
        except Exception as error:  # what a solver makes of an empty answer is no matter
            if not answer.prompt:
                if isinstance(error, TailcastError):
                    raise
                raise DataError(
                    f"{answer.place}: its solver does not ask through generate() "
                    f"({why(error)}); only tasks that ask once can be measured."
                ) from error
        heard.prompts[id] = answer.heard()
        heard.settings |= answer.settings
    return heard


async def _solved(
    name: str, task: Any, id: str, sample: Any, completion: str
) -> tuple[Any, Messages]:
    """A sample's state after an answer, and what was asked."""
    answer = _Answer(f"sample {id!r} of task {name!r}", completion, task.config.system_message)
    state = await _solve(task, id, sample, answer)
    return state, answer.heard()


async def _solve(task: Any, id: str, sample: Any, answer: "_Answer") -> Any:
    """Run a task's solver on a sample."""
    from inspect_ai.model import ChatMessageUser, GenerateConfig, ModelName, get_model
    from inspect_ai.scorer import Target
    from inspect_ai.solver import TaskState

    private("model._model", "init_active_model")(get_model("none/none"), GenerateConfig())
    text = isinstance(sample.input, str)
    state: Any = TaskState(
        model=ModelName(MODEL),
        sample_id=id if sample.id is None else sample.id,
        epoch=1,
        input=sample.input,
        messages=[ChatMessageUser(content=sample.input)] if text else deepcopy(sample.input),
        target=Target(sample.target),
        choices=sample.choices,
        metadata=deepcopy(sample.metadata or {}),
    )
    private("solver._task_state", "set_sample_state")(state)
    setup = task.setup if isinstance(task.setup, Sequence) else filter(None, [task.setup])
    for solver in (*setup, task.solver):
        state = await solver(state, answer)
    state.completed = True
    return state


class _Answer:
    """generate() for a solver: hears one prompt, gives one completion, and no second one.

    Args:
        place: Which sample, for the errors' sentences.
        completion: What the model is to have said.
        system: A system message that the task's config puts first.
    """

    def __init__(self, place: str, completion: str, system: str | None) -> None:
        self.place = place
        self.completion = completion
        self.system = system
        self.prompt: Messages = ()
        self.settings: dict[str, Any] = {}
        self.refused = ""

    async def __call__(self, state: Any, tool_calls: str = "loop", **settings: Any) -> Any:
        from inspect_ai.model import ModelOutput, ModelUsage

        if self.prompt:
            self.refused = "its solver asks the model more than once"
        elif state.tools:
            self.refused = "its solver gives the model tools"
        if self.refused:
            raise DataError(f"{self.place}: {self.refused}; only one answer can be measured.")
        system = settings.get("system_message", self.system)
        first = ({"role": "system", "content": system},) if system else ()
        self.prompt = (*first, *messages_of(state.messages, self.place))
        self.settings = {name: settings[name] for name in _IGNORED if name in settings}
        state.output = ModelOutput.from_content(MODEL, self.completion)
        state.output.usage = ModelUsage()
        state.messages.append(state.output.message)
        return state

    def heard(self) -> Messages:
        """What was asked.

        Raises:
            DataError: If the solver asked nothing, or more than once even where it hid that.
        """
        if self.refused or not self.prompt:
            reason = self.refused or "its solver does not ask the model"
            raise DataError(f"{self.place}: {reason}; only one answer can be measured.")
        return self.prompt
