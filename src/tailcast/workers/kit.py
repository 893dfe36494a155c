"""What does a worker hold from task to task?"""

from functools import cached_property
from pathlib import Path
from typing import Any

from tailcast.config import RunConfig
from tailcast.judges import build_judge
from tailcast.models import build_engine, load_served, load_target, load_vllm
from tailcast.types import Engine, Judge, Target

__all__ = ["Kit"]


class Kit:
    """Model, judge and engine of a run, each loaded when it is first asked for.

    A copy that is sent to another process loads its own.

    Args:
        config: Names them.
        target: A target to use instead.
        judge: A judge to use instead.
        engine: An engine to use instead.
    """

    def __init__(
        self, config: RunConfig, *, target: Target | None = None, judge: Judge | None = None,
        engine: Engine | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self._given = target, judge, engine
        self._engine: Engine | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _kit, (self.config, *self._given)

    @cached_property
    def target(self) -> Target:
        """The model."""
        config = self.config
        if self._given[0] is not None:
            return self._given[0]
        if config.target_engine == "vllm":
            return load_vllm(config.model_settings, memory=config.memory)
        if config.target_server is None:
            return load_target(config.model_settings)
        place = None if config.out is None or "://" in config.out else Path(config.out)
        return load_served(
            config.model_settings, config, weighs=config.mixes_proposals, place=place
        )

    @cached_property
    def judge(self) -> Judge:
        """The judge."""
        return self._given[1] or build_judge(self.config.judge_settings)

    def of_a_judge(self) -> "Kit":
        """For a worker that only judges, one of ``judges``: the rate of requests is for all."""
        config = self.config
        rate = config.judge_rate and config.judge_rate / (config.judges or 1)
        return Kit(config.model_copy(update={"judge_rate": rate}), judge=self._given[1])

    def engine(self, rows: int) -> Engine | None:
        """What samples past the switch, asked ``rows`` times at once; None for our own loop."""
        if self._engine is None:
            config = self.config
            self._engine = self._given[2] or build_engine(
                config.engine, config.model_settings, self.target.end_tokens,
                served_name=config.engine_model, seeded=config.engine_seeds, workers=rows,
            )  # fmt: skip
        return self._engine


def _kit(
    config: RunConfig, target: Target | None, judge: Judge | None, engine: Engine | None
) -> Kit:
    return Kit(config, target=target, judge=judge, engine=engine)
