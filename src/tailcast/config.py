"""Everything that defines a run, in one flat record: a TOML file, flags, or keywords."""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from tailcast.cluster import ClusterSettings
from tailcast.errors import ConfigError
from tailcast.filled import PRESETS, filled
from tailcast.foreign import check_asked
from tailcast.mixtures import KINDS, LEARNING, WITH_MODELS, default_components
from tailcast.proposals import Proposal, ProposalGrid
from tailcast.server import ServerSettings, refused
from tailcast.types import JudgeSettings, ModelSettings, Operator, Positions, SamplingSettings

__all__ = ["PRESETS", "ContrastSettings", "Rule", "RunConfig", "make_config"]

Rule = tuple[str, float]

RULES = ("relative-error", "above", "below")
BUDGETS = ("tokens", "minutes", "judge-calls")
_MOST_DRAWS = 100_000


class RunConfig(
    ClusterSettings, ServerSettings, ModelSettings, SamplingSettings, JudgeSettings,
    frozen=True, extra="forbid",
):  # fmt: skip
    """A run: what is measured, how it is sampled, where it is kept."""

    task: str | None = Field(
        None,
        description="Inspect task, FILE.py@NAME or registered: its samples are the queries and its "
        "scorer is the judge.",
    )
    behaviour: str | None = Field(
        None,
        description="Name, folder or file of a behaviour: its queries, judge, threshold and "
        "pairs, unless they are given.",
    )
    queries: str = Field(
        description="JSONL, JSON, CSV or Parquet file, a data set id, NAME or NAME=FILE of a "
        "known query set, or paraphrases: our own, for analyse sensitivity."
    )
    column: str | None = Field(None, description="Column of the prompt, if it has another name.")
    limit: int | None = Field(None, ge=1, description="Take the first so many queries.")
    method: Literal["mc", "paper", "mixture", "splitting"] | None = Field(
        None,
        description="mc: plain sampling; paper: one proposal, given or chosen; mixture: many of "
        "them and the target; splitting: swarms of the target, no weights. mixture where a "
        "steering vector is given, paper with proposal, else mc.",
    )
    samples: int = Field(
        500,
        ge=1,
        description="Draws of each query by the main method; of splitting, those it begins with.",
    )
    particles: int = Field(
        20, ge=4, description="splitting: particles of a swarm; samples / particles swarms."
    )
    floor: float = Field(
        1e-3, gt=0, lt=1, description="splitting: a swarm ends where so rare a share is left."
    )
    score: Literal["steering", "usual"] | None = Field(
        None,
        description="splitting: projection on the steering vector, or log-odds to leave the "
        "target's usual openings. The first where there is a vector.",
    )
    until: Rule | None = Field(
        None,
        description="Stop a query once this is known: relative-error 0.25, above 1e-4 or "
        "below 1e-3; samples are then the most it gets, 100,000 if not given.",
    )
    budget: Rule | None = Field(
        None,
        description="End the run after the round that spends this: tokens 1e6, minutes 10, "
        "or judge-calls 1e4.",
    )
    defence: float = Field(
        0.1, gt=0, lt=1, description="Least share of the target's draws in a mixture."
    )
    monte_carlo: int = Field(0, ge=0, description="Also so many plain draws, for comparison.")
    seed: int = Field(0, ge=0, description="Names all random numbers of the run.")
    level: float = Field(0.95, gt=0, lt=1, description="Coverage of the intervals.")
    batch: int | None = Field(
        None, ge=2, description="Rows of a forward pass; as many as memory holds if not given."
    )
    memory: float | None = Field(
        None, gt=0, description="GiB that those rows may take; half of what is free if not given."
    )
    settle: bool = Field(
        True, description="End a completion once no way to go on changes the judge's verdict."
    )
    roulette: float = Field(
        1.0, gt=0, le=1, description="Follow up a refusal with this probability only; 1: always."
    )
    continuations: int = Field(1, ge=1, description="Completions of each steered prefix.")
    steering: str | None = Field(None, description="Steering vector to use.")
    pairs: str | None = Field(None, description="Contrast pairs to fit a steering vector from.")
    layer: int | None = Field(None, ge=0, description="Layer to steer; found by itself for pairs.")
    operator: Operator | None = Field(None, description="add or ablate, if not the vector's own.")
    positions: Positions | None = Field(None, description="response or all, if not its own.")
    proposal: str | None = Field(None, description="STRENGTH,SWITCH,MIX[,HEAT] to draw from.")
    per_query: bool = Field(
        False, description="paper: choose a proposal for every query, not one for all."
    )
    streams: tuple[str, ...] = Field(
        (),
        description=f"More streams for the mixture: {', '.join(KINDS)}; see docs/streams.md.",
    )
    openings: bool = Field(
        True, description="mixture: from the second round on, follow openings of earlier hits too."
    )
    strengths: tuple[float, ...] = Field((0.1, 0.2, 0.3, 0.5, 0.75, 1.0), description="Grid.")
    heats: tuple[float, ...] = Field((1.5, 2.0), description="Grid of mixture: target's heats.")
    switches: tuple[int, ...] = Field((2, 4, 8), description="Grid.")
    mixes: tuple[float, ...] = Field((0.0, 0.1, 0.25, 0.5, 0.75), description="Grid of paper.")
    pilot_share: float = Field(0.1, gt=0, le=1, description="paper: queries in the pilot.")
    pilot_samples: int = Field(200, ge=1, description="paper: draws of each query in it.")
    out: str | None = Field(None, description="Run directory, or the URL of one: s3://...")

    @model_validator(mode="after")
    def _fits_its_server(self) -> Self:
        if problem := refused(self):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.steering and self.pairs:
            raise ValueError("steering and pairs exclude each other: drop one of them")
        self._check_streams()
        if self.main_method == "paper" and not (self.steering or self.pairs):
            raise ValueError(
                f"method {self.main_method} needs a steering vector: give steering or pairs"
            )
        if self.per_query and not self.selects:
            raise ValueError("per_query is of method paper without a proposal: drop it")
        for name, known in (("until", RULES), ("budget", BUDGETS)):
            rule = getattr(self, name)
            if rule and (rule[0] not in known or not rule[1] > 0):
                raise ValueError(
                    f"{name} {rule[0]} {rule[1]:g} is none of {', '.join(known)} "
                    "with a number above 0"
                )
        if self.main_method not in ("mc", "mixture") and (self.until or self.budget):
            raise ValueError("until and budget are of mc and mixture: drop them, or change method")
        if self.splits:
            self._check_splitting()
        if self.samples % self.continuations:
            raise ValueError(
                f"samples = {self.samples} is no multiple of continuations = "
                f"{self.continuations}: change one of them"
            )
        if self.engine not in ("own", "vllm") and not self.engine.startswith(
            ("http://", "https://")
        ):
            raise ValueError(f"engine {self.engine!r} is none of own, vllm and an http:// address")
        if self.engine != "own" and self.roulette < 1:
            raise ValueError("roulette is played by the own engine only: drop it, or engine")
        if self.proposal:
            self._check_switch(Proposal.parse(self.proposal).switch)
        if (self.selects or self.mixes_proposals) and "switches" in self.model_fields_set:
            self._check_switch(max(self.switches, default=0))
        return self

    def _check_streams(self) -> None:
        if self.streams and not self.mixes_proposals:
            raise ValueError(f"streams are of method mixture, not {self.main_method}: drop them")
        if LEARNING in self.streams:
            raise ValueError(
                f"stream {LEARNING} is part of every mixture, unless --no-{LEARNING} is given: "
                "drop it"
            )
        if len(set(self.streams)) < len(self.streams):
            raise ValueError(f"streams {', '.join(self.streams)} hold one twice: drop it")

    def _check_splitting(self) -> None:
        swarms, rest = divmod(self.samples, self.particles)
        if rest or swarms < 2:
            raise ValueError(
                f"samples = {self.samples} is no multiple of particles = {self.particles} by two "
                "or more, and one swarm alone has no error: change one of them"
            )
        if self.split_score == "steering" and not (self.steering or self.pairs):
            raise ValueError("score steering needs a vector: give steering or pairs, or usual")
        for name in ("roulette", "continuations", "screen", "engine", "proposal"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is not for method splitting: drop it, or change method")

    @model_validator(mode="after")
    def _fits_its_workers(self) -> Self:
        alone = next((one for one in self.streams if one.startswith(WITH_MODELS)), None)
        if self.ray and (alone or self.splits):
            what = "method splitting" if self.splits else f"stream {alone}"
            raise ValueError(f"{what} runs in this process: drop ray")
        if self.device_map and self.device != "auto":
            raise ValueError(f"device_map says where the model lies: drop device {self.device}")
        if self.gpus_per_worker and not self.device_map:
            raise ValueError("gpus_per_worker is for models on several GPUs: give device_map auto")
        if self.judges and self.judge_calls:
            raise ValueError(
                "judge_calls are counted in one process: drop judges, or end the run by budget "
                "judge-calls"
            )
        return self

    def _check_switch(self, switch: int) -> None:
        if switch > self.max_new_tokens:
            raise ValueError(
                f"switch {switch} lies beyond max_new_tokens = {self.max_new_tokens}: "
                "lower it or raise max_new_tokens"
            )

    @property
    def main_method(self) -> str:
        """The method, chosen or by what else is given."""
        if self.method is not None:
            return self.method
        if self.proposal:
            return "paper"
        return "mixture" if self.steering or self.pairs or self.streams else "mc"

    @property
    def steers(self) -> bool:
        """Whether the main method is importance sampling."""
        return self.main_method in ("paper", "mixture")

    @property
    def splits(self) -> bool:
        """Whether the main method is adaptive multilevel splitting."""
        return self.main_method == "splitting"

    @property
    def split_score(self) -> str:
        """The score of prefixes: as given, or by whether there is a vector."""
        return self.score or ("steering" if self.steering or self.pairs else "usual")

    @property
    def selects(self) -> bool:
        """Whether one proposal is to be chosen from a pilot."""
        return self.main_method == "paper" and self.proposal is None

    @property
    def mixes_proposals(self) -> bool:
        """Whether draws are shared out over many proposals."""
        return self.main_method == "mixture"

    @property
    def learns(self) -> bool:
        """Whether one of them follows the openings of a run's own hits."""
        return self.openings and self.mixes_proposals and not self.proposal

    @property
    def by_rounds(self) -> bool:
        """Whether the number of draws is decided on the way."""
        return self.mixes_proposals or self.until is not None or self.budget is not None

    @property
    def draws(self) -> int:
        """Most draws of a query by the main method."""
        fixed = "samples" in self.model_fields_set or not (self.until or self.budget)
        return self.samples if fixed else _MOST_DRAWS

    @property
    def target_share(self) -> float:
        """Least share of the target's draws: more of them where they are what can decide."""
        return max(self.defence, 0.5) if self.until and self.until[0] == "below" else self.defence

    @property
    def components(self) -> tuple[Proposal, ...]:
        """Of the mixture, the target first; the target alone for plain sampling."""
        if not self.mixes_proposals:
            return (Proposal.target(),)
        if self.proposal:
            return Proposal.target(), Proposal.parse(self.proposal)
        kinds = (*self.streams, *([LEARNING] if self.learns else []))
        return default_components(
            self.strengths, self.grid.switches, () if self.shows_no_laws else self.heats, kinds,
            steered=bool(self.steering or self.pairs),
        )  # fmt: skip

    @property
    def grid(self) -> ProposalGrid:
        """The grid of proposals; default switches beyond the length limit are left out."""
        switches = tuple(one for one in self.switches if one <= self.max_new_tokens)
        return ProposalGrid(self.strengths, switches or (self.max_new_tokens,), self.mixes)

    @property
    def model_settings(self) -> ModelSettings:
        """The part that says which model."""
        return ModelSettings(**self.model_dump(include=set(ModelSettings.model_fields)))

    @property
    def sampling_settings(self) -> SamplingSettings:
        """The part that says how it is sampled."""
        return SamplingSettings(**self.model_dump(include=set(SamplingSettings.model_fields)))

    @property
    def countable(self) -> bool:
        """Whether a hit of the target counts once, so that hits can simply be counted."""
        return self.roulette == 1.0 and not self.screen

    @property
    def judge_settings(self) -> JudgeSettings:
        """The part that says which judge."""
        return JudgeSettings(**self.model_dump(include=set(JudgeSettings.model_fields)))


class ContrastSettings(BaseModel, frozen=True, extra="forbid"):
    """How a model answers under contrast system prompts, and who judges it."""

    judge: str | None = Field(None, description="system-prompts: judge, if not the behaviour's.")
    threshold: float | None = Field(None, gt=0, le=1, description="Its threshold.")
    judge_model: str | None = Field(
        None,
        description="Its model, if not the judge's own; or the model that answers the behaviour's "
        "eval_prompt.",
    )
    judge_server: str | None = Field(None, description="Where that is served, if not here.")
    coherence: str | None = Field(
        None, description="system-prompts: a judge whose hits are the coherent answers."
    )
    rollouts: int = Field(10, ge=1, description="system-prompts: answers to each question.")
    max_new_tokens: int = Field(64, ge=1, description="system-prompts: longest answer, in tokens.")
    temperature: float = Field(1.0, gt=0, description="system-prompts: of the answers.")
    seed: int = Field(0, ge=0, description="system-prompts: names the random numbers.")


def make_config(
    values: dict[str, Any], *, preset: str | None = None, place: str = "",
    said: dict[str, Any] | None = None,
) -> RunConfig:  # fmt: skip
    """A checked config from plain values.

    Args:
        values: Field names and values.
        preset: Name of settings that fields not in ``values`` take, if not its own ``preset``;
            see :data:`PRESETS`.
        place: Where the values are from, for the error's sentence.
        said: Those of them that the user said himself, and not a file: they alone may name code
            that is run, see :mod:`tailcast.foreign`. All of them if None.

    Raises:
        ConfigError: Naming the field, what was given and what is allowed.
        DataError: If a behaviour is named that cannot be read.
    """
    whole = filled(values, preset)
    own = values if said is None else said
    check_asked(whole, own, place or f"behaviour {values.get('behaviour')!r}")
    try:
        return RunConfig(**whole)
    except ValidationError as error:
        raise ConfigError(_sentence(error, place)) from None


def _sentence(error: ValidationError, place: str) -> str:
    """The first thing that is wrong, with field, value and bound."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"][:1])
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    where = f" (in {place})" if place else ""
    if first["type"] == "missing":
        return f"{name} is missing{where}: give --{name.replace('_', '-')}."
    if first["type"] == "extra_forbidden":
        return f"{name!r} is no setting{where}: see tailcast run --help for all of them."
    if not name:
        return f"{message}{where}."
    return f"{name} {message.replace('should', 'must')}, got {first['input']!r}{where}."
