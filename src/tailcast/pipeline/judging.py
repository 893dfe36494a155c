"""What is asked of a judge: the functions that are given to whoever holds it.

Each takes the kit and a task that says all that the outcome depends on, as those of
:mod:`tailcast.pipeline.tasks` do; none needs the model.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tailcast.judges import judge_texts, screened
from tailcast.types import Query, Verdicts
from tailcast.workers import Kit

__all__ = ["JudgeFacts", "JudgeTask", "Judged", "MeetTask", "judge_draws", "meet_judge"]


@dataclass(frozen=True)
class MeetTask:
    """Build the judge, and see that it can judge answers to some queries."""

    queries: Sequence[Query]
    name: str = "reading the judge"


@dataclass(frozen=True)
class JudgeFacts:
    """What a run must know of its judge.

    Attributes:
        fingerprint: What decides its scores besides its specification; empty if nothing does.
        settles: Whether it can tell on the way that a verdict is settled. Whoever draws then
            holds it too: such judges are rules about a text, and cheap.
    """

    fingerprint: str
    settles: bool


def meet_judge(kit: Kit, task: MeetTask) -> JudgeFacts:
    """The facts of the kit's judge.

    Raises:
        TailcastError: If it cannot be built, or not judge one of the queries.
    """
    judge = kit.judge
    for query in task.queries:
        if judge.check is not None:
            judge.check(query)
    return JudgeFacts(judge.fingerprint, judge.settled is not None)


@dataclass(frozen=True)
class JudgeTask:
    """Judge the draws of a shard.

    Attributes:
        stage: Name of the stage.
        query: The query.
        shard: Range of the draws.
        texts: Their completions.
        ended: Those that count as no hit without being asked about.
    """

    stage: str
    query: Query
    shard: tuple[int, int]
    texts: Sequence[str]
    ended: Sequence[bool]

    @property
    def draws(self) -> str:
        """Which draws."""
        return f"draws {self.shard[0]} to {self.shard[1] - 1} of {self.stage}"

    @property
    def name(self) -> str:
        """Query, draws and stage."""
        return f"judging query {self.query.id}, {self.draws}"


@dataclass(frozen=True)
class Judged:
    """The verdicts of a shard, and what the judge did for them, as it counts itself."""

    verdicts: Verdicts
    used: dict[str, int]


def judge_draws(kit: Kit, task: JudgeTask) -> Judged:
    """Judge; with a screen, the share of the draws that it lets the judge see.

    Raises:
        TailcastError: Whatever the judge raises of a whole batch.
    """
    config, judge = kit.config, kit.judge
    before = Counter(judge.usage() if judge.usage else {})
    shares = None
    if config.screen:
        name = f"{config.seed}/{task.stage}/{task.query.id}/{task.shard[0]}/screen"
        shares = screened(task.texts, config.screen_share, name)
    verdicts = judge_texts(
        judge, task.query, task.texts, ended=task.ended, shares=shares, draws=task.draws
    )
    return Judged(verdicts, dict(Counter(judge.usage() if judge.usage else {}) - before))
