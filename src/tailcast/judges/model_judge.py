"""A judge made of a recipe and a model: asked once a text, kept on disk, within a budget."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tailcast.errors import JudgeError
from tailcast.judges.cache import JudgementCache
from tailcast.judges.readings import Replies, Reply, score_of
from tailcast.judges.recipes import Recipe, load_recipe
from tailcast.judges.verdicts import one_by_one
from tailcast.types import Judge, JudgeSettings, ModelSettings, Query

__all__ = ["model_judge"]


class Answering(Protocol):
    """A model that can be asked a recipe's prompts."""

    @property
    def fingerprint(self) -> str:
        """What decides its answers: weights, or name and place."""

    def ask(self, query: Query, completions: Sequence[str]) -> Iterable[Replies]:
        """Each completion, in any order, with a reply to every prompt about it."""


Scoring = Callable[[Query, Sequence[str]], Iterable[tuple[str, float | Exception]]]


@dataclass
class Meter:
    """What a judge did: completions asked about, found on disk, asked twice, and given up."""

    calls: int = 0
    cached: int = 0
    asked_again: int = 0
    failed: int = 0


def model_judge(settings: JudgeSettings) -> Judge:
    """A judge model by name, recipe file or classifier.

    Args:
        settings: Which judge, which model, how it is read and what it may cost.

    Raises:
        JudgeError: If recipe or model cannot be used.
    """
    if settings.judge == "classifier":
        from tailcast.judges.classifier import Classifier

        if not settings.judge_model:
            raise JudgeError("judge classifier needs a model: name it with --judge-model.")
        model: Any = Classifier(ModelSettings(model=settings.judge_model), settings.judge_label)
        name, threshold, scores = model.fingerprint, 0.5, model.scores
    else:
        recipe = load_recipe(
            settings.judge, reading=settings.judge_reading, prompt=settings.judge_prompt
        )
        model = _model(recipe, settings)
        name, threshold = f"{recipe.fingerprint} {model.fingerprint}", recipe.threshold
        scores = _scoring(recipe, model)
    asking = _Asking(
        spec=settings.judge,
        model=model,
        scores=scores,
        cache=JudgementCache(name),
        limit=settings.judge_calls,
        writes_once=settings.judge_server is None,  # to judge a batch that was cut short whole
    )
    threshold = settings.threshold or threshold
    return Judge(
        settings.judge, one_by_one(asking.many), threshold, many=asking.many,
        fingerprint=f"{name} from {threshold:g}", usage=asking.usage,
    )  # fmt: skip


@dataclass
class _Asking:
    """Asks about what is not on disk yet."""

    spec: str
    model: Any
    scores: Scoring
    cache: JudgementCache
    limit: int | None
    writes_once: bool
    meter: Meter = field(default_factory=Meter)

    def many(self, query: Query, texts: Sequence[str]) -> list[float | Exception]:
        """Score of each completion, or the exception.

        Raises:
            JudgeError: When the budget of calls is spent; what was judged before is kept.
        """
        found: dict[str, float | Exception] = dict(self.cache.get(query, texts))
        self.meter.cached += len(found)
        rest = [text for text in dict.fromkeys(texts) if text not in found]
        left = len(rest) if self.limit is None else max(0, self.limit - self.meter.calls)
        found.update(self._asked(query, rest[:left]))
        if left < len(rest):
            raise JudgeError(
                f"judge {self.spec} has been asked {self.meter.calls} times, and judge_calls is "
                f"{self.limit}: raise it and run again; what was judged is kept."
            )
        return [found[text] for text in texts]

    def _asked(self, query: Query, texts: Sequence[str]) -> dict[str, float | Exception]:
        """Ask; ask once more where the answer could not be read; keep what can."""
        answers = self._kept(query, texts)
        unread = [text for text, answer in answers.items() if isinstance(answer, Exception)]
        answers.update(self._kept(query, unread))
        self.meter.asked_again += len(unread)
        self.meter.failed += sum(isinstance(answer, Exception) for answer in answers.values())
        return answers

    def _kept(self, query: Query, texts: Sequence[str]) -> dict[str, float | Exception]:
        """Ask, and write scores to disk: each as it comes, or all at the end."""
        answers: dict[str, float | Exception] = {}
        for text, answer in self.scores(query, texts) if texts else ():
            answers[text] = answer
            self.meter.calls += 1
            if not (self.writes_once or isinstance(answer, Exception)):
                self.cache.put(query, {text: answer})
        if self.writes_once:
            good = {text: one for text, one in answers.items() if not isinstance(one, Exception)}
            self.cache.put(query, good)
        return answers

    def usage(self) -> dict[str, int]:
        """What it did and what that cost."""
        return {**vars(self.meter), **getattr(self.model, "usage", {})}


def _model(recipe: Recipe, settings: JudgeSettings) -> Answering:
    """The model that answers: on this machine, at a server, or by Inspect."""
    server, name = settings.judge_server, settings.judge_model
    if server == "inspect":
        from tailcast.judges.inspect_model import InspectModel

        if not name:
            raise JudgeError("judge_server inspect needs a model: name it with --judge-model.")
        return InspectModel(recipe, name, workers=settings.judge_workers)
    if server:
        from tailcast.judges.remote import ServerModel

        return ServerModel(
            recipe, server, name=name or "", workers=settings.judge_workers,
            rate=settings.judge_rate,
        )  # fmt: skip
    from tailcast.judges.local import LocalModel

    if not (name or recipe.model):
        raise JudgeError(
            f"judge {settings.judge} has no model of its own: name one with --judge-model, and "
            "with --judge-server where it is served."
        )
    adapter = None if name else recipe.adapter or None
    return LocalModel(recipe, ModelSettings(model=name or recipe.model, adapter=adapter))


def _scoring(recipe: Recipe, model: Answering) -> Scoring:
    """The least score of a recipe's prompts."""

    def scores(query: Query, texts: Sequence[str]) -> Iterator[tuple[str, float | Exception]]:
        for text, replies in model.ask(query, texts):
            yield text, _least(recipe, replies)

    return scores


def _least(recipe: Recipe, replies: Sequence[Reply | Exception]) -> float | Exception:
    found = []
    for reply in replies:
        if isinstance(reply, Exception):
            return reply
        try:
            found.append(score_of(recipe, reply))
        except JudgeError as error:
            return error
    return min(found)
