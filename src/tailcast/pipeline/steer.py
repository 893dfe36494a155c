"""From files to a steering vector, for a run and for ``tailcast steer``."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tailcast.behaviours import Behaviour, judge_fields, load_behaviour, no_judge
from tailcast.config import ContrastSettings, RunConfig
from tailcast.data import load_pairs, load_prompts
from tailcast.errors import ConfigError, SteeringError
from tailcast.foreign import check_asked
from tailcast.judges import asks_a_model, build_judge
from tailcast.kept_answers import KeptAnswers
from tailcast.models import HuggingFaceTarget
from tailcast.steering import fit_refusal_direction, load_steering, save_steering
from tailcast.steering.fitting import Form, fit_from_pairs
from tailcast.steering.system_prompts import read_contrast
from tailcast.store import RunStore
from tailcast.types import (
    ContrastPair,
    Judge,
    JudgeSettings,
    Operator,
    SamplingSettings,
    SteeringVector,
)

__all__ = ["Sources", "fit_from_files", "steering_of"]


@dataclass(frozen=True)
class Sources:
    """What a steering vector is fitted from: one of pairs, two prompt files, a behaviour.

    Attributes:
        pairs: File of contrast pairs, or a behaviour that has some.
        harmful: File of prompts that the model refuses.
        harmless: File of prompts that it answers.
        behaviour: Name, folder or file of a behaviour.
        part: "pairs" or "system-prompts" of the behaviour; None for pairs where it has some.
        contrast: How the model answers under the system prompts.
    """

    pairs: Path | None = None
    harmful: Path | None = None
    harmless: Path | None = None
    behaviour: str | None = None
    part: str | None = None
    contrast: ContrastSettings = field(default_factory=ContrastSettings)

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the files and behaviours that are given."""
        names = ("pairs", "harmful", "harmless", "behaviour")
        return tuple(name for name in names if getattr(self, name) is not None)


def fit_from_files(
    load: Callable[[], HuggingFaceTarget], out: Path, sources: Sources, form: Form,
    operator: Operator | None = None,
) -> list[SteeringVector]:  # fmt: skip
    """Fit a steering vector and save it.

    Args:
        load: Loads the model, after the files have been read.
        out: File to write.
        sources: What it is fitted from.
        form: What is made of them.
        operator: How the vector will steer; None for the usual one of the source.

    Raises:
        ConfigError: If not exactly one source is given, the name does not end in
            .safetensors, the model has no such layer, or the source lacks what is asked of it.
        SteeringError: If the source is too small, or too few answers survive the judge.
        JudgeAway: If the judge answers no more; the answers so far and its judgements are kept.
    """
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out} must end in .safetensors.")
    if sources.given == ("harmful", "harmless"):
        vectors = [_refusal(load, sources, form, operator or "ablate")]
    elif operator == "ablate":
        raise ConfigError("ablate needs a refusal direction: give --harmful and --harmless.")
    elif sources.given == ("pairs",):
        vectors = fit_from_pairs(load_pairs(str(sources.pairs)), load(), form)
    elif sources.given == ("behaviour",):
        vectors = _from_behaviour(load, sources, form, out.with_suffix(".answers.jsonl"))
    else:
        raise ConfigError("give --pairs, or --behaviour, or --harmful together with --harmless.")
    save_steering(vectors, out)
    return vectors


def _refusal(
    load: Callable[[], HuggingFaceTarget], sources: Sources, form: Form, operator: Operator
) -> SteeringVector:
    """The refusal direction, of the layer that is named or of the best one."""
    prompts = load_prompts(str(sources.harmful)), load_prompts(str(sources.harmless))
    if form.component or len(form.layers) > 1:
        raise ConfigError(
            "a refusal direction is of one layer and has no components: give --pairs for those."
        )
    layer = form.layers[0] if form.layers else None
    vector = fit_refusal_direction(load(), *prompts, operator=operator, layer=layer)
    return replace(vector, profile=form.profile)


def _from_behaviour(
    load: Callable[[], HuggingFaceTarget], sources: Sources, form: Form, kept: Path
) -> list[SteeringVector]:
    """Vectors from a behaviour's pairs or from answers under its system prompts, which are kept."""
    behaviour = load_behaviour(sources.behaviour or "")
    parts = {"pairs": behaviour.pairs, "system-prompts": behaviour.system_prompts}
    part = sources.part or next((name for name, some in parts.items() if some), "pairs")
    if not parts[part]:
        other = next((f": use --from {name}" for name, some in parts.items() if some), "")
        raise ConfigError(f"behaviour {sources.behaviour!r} has no {part}{other}.")
    if part == "pairs":
        return fit_from_pairs(behaviour.pairs, load(), form)
    if form.reading != "response":
        raise ConfigError("answers under system prompts are read over the response only.")
    return _from_system_prompts(behaviour, load, form, sources.contrast, kept)


def _from_system_prompts(
    behaviour: Behaviour, load: Callable[[], HuggingFaceTarget], form: Form,
    settings: ContrastSettings, kept: Path,
) -> list[SteeringVector]:  # fmt: skip
    """Vectors from the model's own answers under contrast system prompts."""
    judges = _judges_of(behaviour, settings)
    target = load()
    form.check(target)
    cases = [
        ((one.positive, one.negative), question)
        for one in behaviour.system_prompts
        for question in behaviour.questions
    ]
    facts = {
        "model": target.fingerprint, "cases": cases,
        **settings.model_dump(include={"rollouts", "max_new_tokens", "temperature", "seed"}),
    }  # fmt: skip
    found = read_contrast(
        target,
        cases,
        judges,
        settings=SamplingSettings(
            max_new_tokens=settings.max_new_tokens, temperature=settings.temperature
        ),
        rollouts=settings.rollouts,
        seed=settings.seed,
        needed=8 if form.layer == "auto" else 2,
        kept=KeptAnswers(kept, facts),
    )
    vectors = fit_from_pairs(found.pairs, target, form, differences=found.differences)
    for vector in vectors:
        vector.provenance.update(
            method="system prompts", behaviour=behaviour.name, **settings.model_dump(),
            asked=found.asked, rates=[found.positive_rate, found.negative_rate],
        )  # fmt: skip
        vector.provenance["judge"] = judges[0].spec
    return vectors


def _judges_of(behaviour: Behaviour, settings: ContrastSettings) -> tuple[Judge, Judge | None]:
    """The judge of the behaviour, and that of coherence, which judge trait brings with it."""
    has_model = bool(settings.judge_model or settings.judge_server)
    asked = {
        "judge": settings.judge, **judge_fields(behaviour, settings.judge, has_model=has_model),
        "judge_model": settings.judge_model, "judge_server": settings.judge_server,
    }  # fmt: skip
    if not asked["judge"]:
        raise ConfigError(no_judge(behaviour.name, behaviour))
    check_asked(asked, settings.model_dump(), f"behaviour {behaviour.name!r}")
    if settings.threshold:
        asked["threshold"] = settings.threshold
    coherence = settings.coherence or ("coherence" if asked["judge"] == "trait" else None)
    first = build_judge(JudgeSettings(**asked))
    if not coherence:
        return first, None
    model = {name: asked[name] for name in ("judge_model", "judge_server")}
    return first, build_judge(
        JudgeSettings(judge=coherence, **(model if asks_a_model(coherence) else {}))
    )


def steering_of(
    config: RunConfig, store: RunStore, fit: Callable[[Sequence[ContrastPair]], SteeringVector],
    weights: str,
) -> SteeringVector | None:  # fmt: skip
    """The steering vector: loaded, fitted before, or fitted now from pairs.

    Args:
        config: Names the vector or the pairs.
        store: Keeps a fitted one.
        fit: Fits one.
        weights: Fingerprint of the model's weights; empty if it has none.

    Raises:
        SteeringError: If it was fitted on another model.
    """
    name = "steering.safetensors"
    if config.pairs and not store.holds(name):
        _keep(fit(load_pairs(config.pairs)), store, name)
    if not (config.pairs or config.steering):
        return None
    given = Path(config.steering) if config.steering else None
    with nullcontext(given) if given else store.as_file(name) as source:
        vector = load_steering(
            source,
            layer=None if config.pairs else config.layer,
            operator=config.operator,
            positions=config.positions,
        )
    if vector.fingerprint and weights and vector.fingerprint != weights:
        raise SteeringError(
            f"steering vector {config.steering or name} was fitted on another model "
            f"({vector.fingerprint}, this one is {weights}): fit one for this model with tailcast "
            "steer."
        )
    return vector


def _keep(vector: SteeringVector, store: RunStore, name: str) -> None:
    with TemporaryDirectory() as scratch:
        save_steering([vector], Path(scratch) / name)
        store.write_bytes(name, (Path(scratch) / name).read_bytes())
