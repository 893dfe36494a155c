"""Which workers of a Ray cluster does a run ask for?"""

from typing import Self

from pydantic import BaseModel, Field, model_validator

__all__ = ["ClusterSettings"]


class ClusterSettings(BaseModel, frozen=True, extra="forbid"):
    """Who works, if not this process, and what each of them takes of the cluster."""

    ray: str | None = Field(
        None,
        description="Work is done by Ray's workers: local, on this machine; auto, on the cluster "
        "that it belongs to; or ray://HOST:PORT. In this process if not given.",
    )
    workers: int | None = Field(
        None, ge=1, description="How many of them; one for each GPU, or core, if not given."
    )
    gpus_per_worker: int | None = Field(
        None, ge=1, description="GPUs that each of workers takes, for device_map; 1 if not given."
    )
    judges: int | None = Field(
        None,
        ge=1,
        description="So many further workers judge, without the model, while the others draw; "
        "this process judges if not given.",
    )
    judge_gpus: float | None = Field(
        None, gt=0, le=1, description="Part of a GPU that each of judges takes; none if not given."
    )

    @model_validator(mode="after")
    def _names_workers(self) -> Self:
        if self.ray not in (None, "local", "auto") and not str(self.ray).startswith("ray://"):
            raise ValueError(f"ray {self.ray!r} is none of local, auto and a ray:// address")
        for name in ("workers", "gpus_per_worker", "judges", "judge_gpus"):
            if getattr(self, name) is not None and self.ray is None:
                raise ValueError(f"{name} is for Ray: give ray too, local for instance")
        if self.judge_gpus is not None and self.judges is None:
            raise ValueError("judge_gpus is for judges: give judges too, or drop it")
        return self
