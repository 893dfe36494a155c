"""How is a judge of ours used as a scorer in an Inspect evaluation?"""

from typing import Any

from tailcast.errors import MissingExtra
from tailcast.judges import build_judge, judge_texts
from tailcast.judges.inspect_tasks import messages_of
from tailcast.types import JudgeSettings, Query

__all__ = ["inspect_scorer"]


def inspect_scorer(judge: str, **settings: Any) -> Any:
    """A scorer for ``Task(scorer=...)``: 1 for a hit, 0 for none, unscored where the judge fails.

    Its metrics are the mean, so the rate of hits, and its standard error.

    Args:
        judge: The judge's specification, such as ``refusal`` or ``pattern:REGEX``.
        **settings: ``threshold``, ``judge_model`` and all other fields of a judge.

    Raises:
        MissingExtra: If Inspect is not installed.
        JudgeError: If the judge cannot be built.
    """
    try:
        from anyio import to_thread
        from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
        from inspect_ai.solver import TaskState
    except ImportError as error:
        raise MissingExtra("inspect-ai", "inspect", "inspect_scorer") from error
    built = build_judge(JudgeSettings(judge=judge, **settings))

    @scorer(metrics=[mean(), stderr()], name="tailcast_judge")  # type: ignore[untyped-decorator]
    def tailcast_judge(judge: str) -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            id, text = str(state.sample_id), state.output.completion
            asked = list(state.messages)
            while asked and asked[-1].role == "assistant":
                asked.pop()
            query = Query(id, messages_of(asked, f"sample {id!r}"), target=tuple(target))
            found = await to_thread.run_sync(judge_texts, built, query, [text])
            if found.failed[0]:
                return Score.unscored(reason="scoring_failed", explanation=found.errors[0])
            facts = {"score": float(found.scores[0]), "threshold": built.threshold}
            return Score(value=float(found.hits[0]), answer=text, metadata=facts)

        return score

    return tailcast_judge(judge)
