"""What is measured for an experiment: one model, one behaviour, and the sizes.

Everything is done by tailcast's own verbs and runs. Each is printed as the command that does the
same by itself, and what is there already is not done again.
"""

import os
import shlex
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from tailcast.cli.main import app
from tailcast.cli.view import progress_view
from tailcast.config import make_config
from tailcast.errors import ConfigError
from tailcast.store import RunStore
from tailcast.toml import read_toml
from tailcast.types import ModelSettings

__all__ = ["BEHAVIOURS", "MODELS", "SCALES", "Scale", "Study", "measure", "steering", "verb"]

os.environ.setdefault("TQDM_DISABLE", "1")  # the loaders' bars; ours is rich's

HERE = Path(__file__).resolve().parent
MODELS = ("llama-3.2-1b", "llama-3.1-8b", "qwen2.5-7b", "phi-4", "olmo-3-7b")
BEHAVIOURS = ("harm", "sycophancy", "hallucination")

_FITTED_FROM = {
    "harm": "--harmful data/harmful_train.json --harmless data/harmless_train.json",
    "sycophancy": "--behaviour data/trait_data_extract/sycophantic.json --from system-prompts",
    "hallucination": "--behaviour data/trait_data_extract/hallucinating.json --from system-prompts",
}
_EMBEDDED_FITTED_FROM = {
    "harm": "--pairs src/tailcast/assets/demo_pairs.jsonl --layer 16",
    "sycophancy": "--behaviour sycophancy",
    "hallucination": "--behaviour hallucination",
}


@dataclass(frozen=True)
class Scale:
    """Sizes of the experiments.

    Attributes:
        changes: Fields of the run that differ from its config.
        rivals: Proposals drawn at random from the grid.
        bases: Base queries that are paraphrased, at most.
        wordings: Wordings of each, its own one included.
        draws: Draws of each wording, if not those of the run.
        splits: Random splits of queries to test forecasts on.
    """

    changes: dict[str, Any]
    rivals: int
    bases: int | None
    wordings: int
    draws: int | None
    splits: int


SCALES = {
    "paper": Scale({}, rivals=8, bases=None, wordings=26, draws=None, splits=200),
    "small": Scale(
        {"limit": 6, "samples": 150, "monte_carlo": 2000, "pilot_samples": 100},
        rivals=2, bases=10, wordings=4, draws=60, splits=100,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """One model and one behaviour at one scale.

    Attributes:
        name: As in the table, "llama-3.2-1b/harm".
        config: The TOML file.
        scale: Its sizes.
        changes: Fields of the run that the user changed.
    """

    name: str
    config: Path
    scale: Scale
    changes: dict[str, Any]

    @classmethod
    def of(cls, model: str, behaviour: str, scale: str, changes: dict[str, Any]) -> "Study":
        """By names, as on the command line.

        Raises:
            ConfigError: If there is no such config.
        """
        config = HERE / model / f"{behaviour}.toml"
        if not config.is_file():
            have = sorted(str(one.relative_to(HERE)) for one in HERE.glob("*/*.toml"))
            raise ConfigError(f"{model}/{behaviour}.toml is not there: have {', '.join(have)}.")
        return cls(f"{model}/{behaviour}", config, SCALES[scale], changes)

    @property
    def fields(self) -> dict[str, Any]:
        """All fields of its run."""
        return {**read_toml(self.config), **self.scale.changes, **self.changes}

    @property
    def out(self) -> Path:
        """Its run directory; the experiments' other runs lie beside it."""
        return Path(self.fields["out"])

    def beside(self, part: str) -> Path:
        """Run directory, file or record of a part of an experiment."""
        return self.out.with_name(f"{self.out.name}-{part}")


def measure(study: Study, part: str = "", **changes: Any) -> list[dict[str, Any]]:
    """The estimates of a run, which is made or gone on with.

    Args:
        study: What is measured.
        part: Name of the run; empty for the main one.
        **changes: Fields in which it differs from the main one.
    """
    from tailcast.pipeline import Inputs, run

    out = study.beside(part) if part else study.out
    config = make_config({**study.fields, **changes, "out": str(out)}, place=str(study.config))
    shown = {**study.scale.changes, **study.changes, **changes, "out": str(out)}
    flags = [f"{_flag(name)} {_word(value)}" for name, value in shown.items() if value is not None]
    _say(f"tailcast run {_relative(study.config)} {' '.join(flags)}")
    done = (out / "finished.json").is_file()
    target = None if done else _loaded(config.model_settings)
    with progress_view(quiet=False) as progress:
        run(config, inputs=Inputs(target=target), progress=progress)
    return RunStore(out).read_lines("estimates.jsonl")


def steering(study: Study) -> None:
    """The steering vector of a study, fitted unless its file is there."""
    fields = study.fields
    out = Path(fields["steering"])
    if out.is_file():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    model, behaviour = study.name.split("/")
    sources = _EMBEDDED_FITTED_FROM if model == "embedded" else _FITTED_FROM
    words = ["steer", "--model", fields["model"], *sources[behaviour].split(), "--out", str(out)]
    for name in ("device", "dtype"):
        words += [f"--{name}", fields[name]] if name in fields else []
    if "system-prompts" in words:
        names = ("judge", "judge_model", "judge_server", "max_new_tokens")
        words += [part for name in names for part in (_flag(name), str(fields[name]))]
    verb(words)


def verb(words: Sequence[str]) -> str:
    """Run one of tailcast's verbs; what it printed.

    Raises:
        ConfigError: If this version of tailcast has no such verb.
    """
    _say("tailcast " + shlex.join(words))
    found = app
    for word in words[: 2 if words[0] == "analyse" else 1]:
        try:
            found = found[word]
        except KeyError:
            raise ConfigError(
                f"this tailcast has no verb {shlex.join(words[:2])!r}, which the experiment "
                "needs: install a newer one."
            ) from None
    printed = StringIO()
    with redirect_stdout(printed):
        app(words, exit_on_error=False, print_error=False)
    return printed.getvalue()


@cache
def _loaded(settings: ModelSettings) -> Any:
    """The target, loaded once for all runs of an experiment."""
    from tailcast.models import load_target  # imported late: bars look at the environment then

    return load_target(settings)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _word(value: Any) -> str:
    """A field's value as words of a command."""
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    return shlex.quote(str(value))


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _say(command: str) -> None:
    print(f"$ {command}", flush=True)
