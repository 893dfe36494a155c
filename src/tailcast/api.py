"""The package in one call: a model, queries and a judge in, estimates out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tailcast.config import make_config
from tailcast.data import load_queries
from tailcast.errors import MissingExtra
from tailcast.pipeline import Inputs, run
from tailcast.progress import Progress
from tailcast.report.tables import estimates_html
from tailcast.sampling import StreamKind
from tailcast.stats import Estimate
from tailcast.types import Judge, Query, SteeringVector, Target

__all__ = ["Estimates", "estimate"]


class Estimates(tuple[Estimate, ...]):
    """Estimates in the order of the queries, with a door to data frames; a table in notebooks."""

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return estimates_html(self)

    def to_pandas(self) -> Any:
        """A pandas frame, one row for each estimate.

        Raises:
            MissingExtra: If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtra("pandas", "pandas", "to_pandas") from error
        return pandas.DataFrame([asdict(one) for one in self])

    def to_polars(self) -> Any:
        """A polars frame, one row for each estimate.

        Raises:
            MissingExtra: If polars is not installed.
        """
        try:
            import polars
        except ImportError as error:
            raise MissingExtra("polars", "polars", "to_polars") from error
        return polars.DataFrame([asdict(one) for one in self])


def estimate(
    model: str | Target,
    queries: str | Path | Sequence[str] | Sequence[Query] | None = None,
    judge: str | Callable[[Query, str], float] | None = None,
    *,
    steering: str | Path | SteeringVector | None = None,
    streams: Sequence[str] | Mapping[str, StreamKind] = (),
    out: str | Path | None = None,
    **settings: Any,
) -> Estimates:
    """Estimate the risk of every query.

    Args:
        model: A directory, gguf file, hub id, "embedded", or a target.
        queries: A file, a data set id, a query set's name, or a list of prompts or queries;
            None for those of ``behaviour=...``.
        judge: A specification, or a function (query, completion) -> score in [0, 1]; None for
            the behaviour's, or ``refusal``.
        steering: A steering vector or its file; without one it is plain sampling.
        streams: More streams for the mixture, as after ``--streams``, or kinds of your own by name.
        out: Run directory; without one nothing is kept.
        **settings: Any other field of a run, as in the TOML file: ``samples=500``,
            ``proposal="0.5,8,0.1"``, ``method="paper"``, ``temperature=0.7`` ...

    Returns:
        One estimate for each query and method.

    Raises:
        TailcastError: As :func:`tailcast.pipeline.run`.
    """
    values = dict(settings)
    inputs = Inputs(
        target=None if isinstance(model, str) else model,
        judge=_judge(judge, values.get("threshold") or 0.5) if callable(judge) else None,
        queries=None
        if queries is None or isinstance(queries, str | Path)
        else load_queries(queries),
        steering=steering if isinstance(steering, SteeringVector) else None,
        streams=streams if isinstance(streams, Mapping) else None,
    )
    values["streams"] = tuple(streams)
    values["model"] = model if isinstance(model, str) else model.fingerprint
    if queries is not None:
        values["queries"] = str(queries) if isinstance(queries, str | Path) else "in memory"
    if judge is not None:
        values["judge"] = judge if isinstance(judge, str) else _name(judge)
    if steering is not None:
        values["steering"] = "in memory" if inputs.steering else str(steering)
    with TemporaryDirectory(prefix="tailcast-") as scratch:
        config = make_config({**values, "out": str(out or scratch)})
        return Estimates(run(config, inputs=inputs, progress=Progress()))


def _judge(function: Callable[[Query, str], float], threshold: float) -> Judge:
    return Judge(_name(function), function, threshold, getattr(function, "settled", None))


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}:{getattr(function, '__qualname__', type(function).__name__)}"
