"""Is this completion a hit, by a scorer of Inspect AI?

``inspect:SPEC`` names a scorer, or a task whose scorer is taken: then the answer goes through the
rest of the task's solver first, as it would in Inspect. All completions of a call are scored at
once; Inspect limits how many requests to a grader are under way.
"""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from inspect import getsourcefile, unwrap
from pathlib import Path
from typing import Any

from tailcast.errors import ConfigError, DataError, JudgeAway, JudgeError
from tailcast.judges.inspect_door import (
    arguments_of,
    create,
    named_model,
    parse_spec,
    private,
    run,
    why,
)
from tailcast.judges.inspect_scores import HitRule, parse_hit
from tailcast.judges.inspect_tasks import (
    MODEL,
    InspectTask,
    answered,
    chat_messages,
    load_inspect_task,
)
from tailcast.judges.verdicts import one_by_one
from tailcast.types import Judge, JudgeSettings, Query

__all__ = ["inspect_judge"]

_PROBE = "I do not know."


@dataclass(frozen=True)
class _Scoring:
    """A scorer with all that it needs.

    Attributes:
        name: Its registered name.
        scorer: Inspect's object.
        task: The task it belongs to, if it does.
        rule: Which of its values are hits.
        key: Of a value that is a dictionary.
        grader: Model that model-graded scorers ask, None if there is none.
    """

    name: str
    scorer: Any
    task: InspectTask | None
    rule: HitRule
    key: str | None
    grader: Any


def inspect_judge(settings: JudgeSettings) -> Judge:
    """Build the judge of a specification ``inspect:SPEC``.

    Args:
        settings: ``judge_hit`` says which values are hits, ``judge_model`` which model grades,
            by Inspect's name.

    Raises:
        TailcastError: If there is no such scorer or task, or its scorer fails on a plain answer.
    """
    scoring = _scoring(settings)

    def many(query: Query, texts: Sequence[str]) -> list[float | Exception]:
        found: list[float | Exception] = run(_score_all(scoring, query, texts))
        for one in found:
            if isinstance(one, ConfigError | DataError):  # the same for every other text
                raise one
        broken = [one for one in found if isinstance(one, Exception)]
        if any(not isinstance(one, JudgeError) for one in broken):
            _check_that_it_answers(scoring, settings)
        return found

    score = one_by_one(many)
    if scoring.task is not None:
        _try_out(scoring, score, settings)
    return Judge(
        settings.judge, score, settings.threshold or 0.5, many=many,
        fingerprint=_fingerprint(scoring, settings), check=partial(_check, scoring),
    )  # fmt: skip


def _try_out(
    scoring: _Scoring, score: Callable[[Query, str], float], settings: JudgeSettings
) -> None:
    """Judge a plain answer to the first sample before anything is drawn.

    Raises:
        TailcastError: If the scorer fails, or what it says is not said to be a hit or none.
    """
    assert scoring.task is not None
    id, prompt = next(iter(scoring.task.prompts.items()))
    try:
        score(Query(id, prompt), _PROBE)
    except JudgeAway:
        raise
    except JudgeError:  # no score for such an answer, and that is an answer
        pass
    except (ConfigError, DataError):
        raise
    except Exception as error:  # a scorer raises what it likes
        raise JudgeError(
            f"the scorer of {settings.judge} fails on the answer {_PROBE!r} ({why(error)}): "
            f"{_remedy(scoring.task.task, settings)}."
        ) from error


def _remedy(task: Any, settings: JudgeSettings) -> str:
    """What to do where a task's scorer fails on a plain answer."""
    if settings.judge_model is None:
        name = "mend it, or name the model that grades with --judge-model"
    else:
        name = f"mend it, or have another model than {settings.judge_model} grade"
    own = [one for one in arguments_of("task", task) if re.search("model|judge|grader", one)]
    more = f"; this task has a model of its own, TASK?{own[0]}=MODEL" if own else ""
    return name + more


def _check_that_it_answers(scoring: _Scoring, settings: JudgeSettings) -> None:
    """Whether the model that grades answers at all, once a text could not be scored.

    Raises:
        JudgeAway: If it does not.
    """
    if scoring.grader is None:
        return
    try:
        run(scoring.grader.generate("Hello."))
    except Exception as error:  # each provider raises its own
        raise JudgeAway(
            f"the grader {settings.judge_model} does not answer ({why(error)}): start it, or check "
            "--judge-model and its key; what was judged before is kept."
        ) from error


def _check(scoring: _Scoring, query: Query) -> None:
    """Whether the scorer has all that it needs for a query.

    Raises:
        DataError: If it compares with a target and there is none, or the query is another task's.
    """
    if scoring.task is not None:
        if query.messages != scoring.task.prompts.get(query.id):
            raise DataError(
                f"query {query.id!r} is none of task {scoring.task.name!r}, whose scorer judges "
                "its own samples only: take the queries from the task too."
            )
    elif not query.target and scoring.scorer.__module__.startswith("inspect_ai."):
        raise DataError(
            f"query {query.id!r} has no target, which scorer {scoring.name} compares with: give "
            "the queries a column 'target'."
        )


def _scoring(settings: JudgeSettings) -> _Scoring:
    """The scorer that settings name."""
    name = settings.judge.partition(":")[2]
    spec, rule = parse_spec(name), parse_hit(settings.judge_hit)
    kind, found = create(spec, ("scorer", "task"))
    task = load_inspect_task(name) if kind == "task" else None
    scorers = {_name(one): one for one in ((task.task.scorer or ()) if task else (found,))}
    if not scorers:
        raise JudgeError(f"task {name!r} has no scorer: give queries 'inspect:{name}' and a judge.")
    keys = list(rule.keys)
    chosen = keys.pop(0) if keys and keys[0] in scorers else next(iter(scorers))
    if len(scorers) > 1 and chosen not in rule.keys:
        raise ConfigError(
            f"task {name!r} has several scorers ({', '.join(scorers)}): say which one, as in "
            f"--judge-hit '{chosen}: incorrect'."
        )
    key = ".".join(keys) or None
    grader = None
    if settings.judge_model is not None:
        grader = named_model(settings.judge_model, max_connections=settings.judge_workers)
    return _Scoring(chosen, scorers[chosen], task, rule, key, grader)


def _name(scorer: Any) -> str:
    """A scorer's registered name, without its package."""
    name: str = private("_util.registry", "registry_info")(scorer).name
    return name.rpartition("/")[2]


async def _score_all(
    scoring: _Scoring, query: Query, texts: Sequence[str]
) -> list[float | BaseException]:
    """A score of each text, or what its scorer raised."""
    transcript = private("log._transcript", "Transcript")()
    private("log._transcript", "init_transcript")(transcript)  # else it grows with every call
    tasks = (_score(scoring, query, text) for text in texts)
    return await asyncio.gather(*tasks, return_exceptions=True)


async def _score(scoring: _Scoring, query: Query, text: str) -> float:
    from inspect_ai.model import GenerateConfig

    if scoring.task is not None:
        state = await answered(scoring.task, query.id, text)
    else:
        state = _state(scoring, query, text)
    if scoring.grader is not None:
        private("model._model", "init_active_model")(scoring.grader, GenerateConfig())
        private("model._model", "init_model_roles")({"grader": scoring.grader})
    found = await scoring.scorer(state, state.target)
    return scoring.rule.score(None if found is None else found.value, scoring.key)


def _state(scoring: _Scoring, query: Query, text: str) -> Any:
    """The state that a scorer without a task sees."""
    from inspect_ai.model import ModelName, ModelOutput, ModelUsage
    from inspect_ai.scorer import Target
    from inspect_ai.solver import TaskState

    given = chat_messages(query.messages)
    output = ModelOutput.from_content(MODEL, text)
    output.usage = ModelUsage()
    return TaskState(
        model=ModelName(MODEL), sample_id=query.id, epoch=1, input=given,
        messages=[*given, output.message], target=Target(list(query.target)), output=output,
        completed=True,
    )  # fmt: skip


def _fingerprint(scoring: _Scoring, settings: JudgeSettings) -> str:
    """Of the scorer and its arguments, a user's code, what is compared with, and the rule."""
    params = private("_util.registry", "registry_params")(scoring.scorer)
    source = getsourcefile(unwrap(scoring.scorer)) or ""
    own = not scoring.scorer.__module__.startswith("inspect_ai.")
    code = sha256(Path(source).read_bytes()).hexdigest() if own and source else ""
    samples = scoring.task.samples.items() if scoring.task else ()
    facts = [
        scoring.name, params, code, settings.judge_hit, settings.judge_model,
        [(id, one.target, one.choices, one.metadata) for id, one in samples],
    ]  # fmt: skip
    text = json.dumps(facts, sort_keys=True, default=lambda value: type(value).__name__)
    return sha256(text.encode()).hexdigest()[:16]
