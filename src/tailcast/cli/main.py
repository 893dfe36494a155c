"""Verbs and their flags; what they do is elsewhere."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from pydantic import BaseModel, Field, create_model

from tailcast.cli import behaviours
from tailcast.cli.analyse import analyse
from tailcast.cli.calibrate import calibrate_judge, label
from tailcast.cli.compare import compare
from tailcast.cli.crosscheck import crosscheck
from tailcast.cli.export import export
from tailcast.cli.paraphrase import paraphrase
from tailcast.cli.report import plot, report, report_of_demo
from tailcast.cli.status import status
from tailcast.cli.streams import learn, proposals
from tailcast.cli.view import (
    Messages,
    console,
    progress_view,
    show_estimates,
    show_explanation,
    show_plan,
)
from tailcast.config import ContrastSettings, RunConfig, make_config
from tailcast.errors import ConfigError, TailcastError
from tailcast.store import RunStore, existing_run
from tailcast.toml import read_toml
from tailcast.types import ModelSettings, Operator

__all__ = ["app", "main"]

app = App(
    name="tailcast",
    help="How often does a language model do something rare and bad?",
    help_format="plaintext",
    result_action="return_value",
)
app.register_install_completion_command()
app.command(analyse)
app.command(compare)
app.command(crosscheck)
app.command(paraphrase)
app.command(status)
app.command(label)
app.command(calibrate_judge)
app.command(report)
app.command(plot)
app.command(proposals)
app.command(learn)

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON lines.")]
Quiet = Annotated[bool, Parameter(name="--quiet", negative=(), help="No progress.")]
Preset = Annotated[Literal["paper"] | None, Parameter(help="Settings of Angell et al. 2026.")]


def _flags() -> type[BaseModel]:
    """Every field of a run as an optional flag; the default stands in its help."""
    fields: dict[str, Any] = {}
    for name, info in RunConfig.model_fields.items():
        default = "" if info.is_required() or info.default is None else f" Default: {info.default}."
        text = f"{info.description}{default}"
        kind = str if "Literal" in str(info.annotation) else info.annotation  # checked by RunConfig
        fields[name] = (kind | None, Field(None, description=text))  # type: ignore[operator]
    return create_model("Flags", **fields)


Flags = _flags()
Contrast = Annotated[ContrastSettings | None, Parameter(name="*")]
Part = Annotated[Literal["pairs", "system-prompts"] | None, Parameter(name="--from")]
RunFlags = Annotated[Flags | None, Parameter(name="*")]  # type: ignore[valid-type]


@app.command
def run(
    config: Path, /, *, flags: RunFlags = None, preset: Preset = None, json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Run what a TOML file says; every field is also a flag, which wins.

    A file may name another as its base, whose fields it has unless it says otherwise, and a
    preset.

    A run that was interrupted goes on where it stopped; a finished one does nothing.

    Args:
        config: TOML file with the fields below.
    """
    values, said = read_toml(config), _given(flags)
    values = {"out": str(config.with_suffix("")), **values, **said}
    _run(values, preset, json, quiet, place=str(config), said=said)


@app.command
def estimate(
    *, flags: RunFlags = None, preset: Preset = None, json: Json = False, quiet: Quiet = False
) -> None:
    """Estimate the risk of every query; the same as run, without a file.

    Without a steering vector it is plain Monte Carlo; with one it is importance sampling
    from a mixture of many proposals and the target (--method mixture), or from one proposal
    as in the paper (--method paper, or --proposal). --method splitting needs no weights, and no
    vector either.
    """
    _run(_given(flags), preset, json, quiet)


@app.command
def steer(
    *, model: str, out: Path, pairs: Path | None = None, harmful: Path | None = None,
    harmless: Path | None = None, layer: str = "auto", operator: Operator | None = None,
    reading: Literal["response", "prompt"] = "response", adapter: str | None = None,
    device: str = "auto", dtype: str = "auto", behaviour: str | None = None,
    part: Part = None, contrast: Contrast = None, component: int = 0, profile: str = "",
) -> None:  # fmt: skip
    """Fit a steering vector from contrast pairs, or a refusal direction from prompts.

    With --behaviour NAME the pairs are the behaviour's, or, with --from system-prompts, those
    of the model's own answers under its contrast system prompts that its judge tells apart.

    Args:
        model: Directory, gguf file, hub id or "embedded".
        out: File to write, *.safetensors.
        pairs: Pairs {"prompt", "unsafe", "safe"}, one a line, or a behaviour.
        harmful: Prompts that the model refuses, for a refusal direction.
        harmless: Prompts that it answers.
        layer: "auto" by held-out score, a number, "all" of them apart, or some at once as 8,12.
        operator: How it will steer; add for pairs and ablate for prompts, if not said.
        reading: Average over the response, or the last prompt token.
        adapter: PEFT adapter of the model.
        device: auto, cuda, mps, cpu.
        dtype: auto, bfloat16, float32.
        behaviour: Name, folder or file of a behaviour.
        part: What of the behaviour is used; its pairs, if not said and it has some.
        component: 0 for the mean of the differences, 1 and up for their principal components.
        profile: Multiples of the strength token by token, the last one holds on: 1,0.8,0.5.
    """
    from tailcast.models import load_target
    from tailcast.pipeline.steer import Sources, fit_from_files
    from tailcast.steering.fitting import Form, read_profile

    settings = ModelSettings(model=model, adapter=adapter, device=device, dtype=dtype)
    sources = Sources(pairs, harmful, harmless, behaviour, part, contrast or ContrastSettings())
    form = Form(layer, reading, component, read_profile(profile))
    for vector in fit_from_files(lambda: load_target(settings), out, sources, form, operator):
        for at, direction in vector.places:
            norm = sum(direction**2) ** 0.5
            print(f"{out}  {vector.operator} at layer {at}, norm {norm:.4g}")


@app.command
def plan(
    config: Path, /, *, flags: RunFlags = None, preset: Preset = None, json: Json = False
) -> None:
    """Say what a run would cost before it is begun, from a ten-second trial on this machine.

    With --device a100, h100 or h200 it is reckoned from the data sheet of that device, and
    nothing is measured.

    Args:
        config: TOML file as for run, with the fields below; each is also a flag, which wins.
    """
    from tailcast.pipeline.plan import plan as plan_run

    values, said = read_toml(config), _given(flags)
    checked = make_config({**values, **said}, preset=preset, place=str(config), said=said)
    show_plan(plan_run(checked), as_json=json)


@app.command
def show(directory: Path, /, *, json: Json = False) -> None:
    """Show the estimates of a run.

    Args:
        directory: A run directory.
    """
    store = existing_run(directory)
    show_estimates(store.read_lines("estimates.jsonl"), store.path, as_json=json)


app.command(behaviours.list_behaviours, name="behaviours")
app.command(behaviours.list_query_sets, name="query-sets")


@app.command
def explain(
    directory: Path, query: str, /, *, method: str | None = None, show_text: bool = False,
    plot: Path | None = None, json: Json = False,
) -> None:  # fmt: skip
    """Say which draws carry an estimate, and which proposals brought them.

    Args:
        directory: A run directory.
        query: Id of the query.
        method: Which of its estimates, if there are several; the last one if not given.
        show_text: Show the completions too.
        plot: Also draw the weights to this picture (png or svg).
    """
    from tailcast.analysis.explain import as_json, explain

    found = explain(existing_run(directory), query, method)
    if plot is not None and not found.hits:
        print(f"{query} has no hit, so there are no weights to draw.", file=sys.stderr)
    elif plot is not None:
        from tailcast.report.hit_weights import hit_weights_of
        from tailcast.report.render import save_plot

        save_plot(lambda look: hit_weights_of(found, look), plot)
    if json:
        print(as_json(found, texts=show_text))
    else:
        show_explanation(found, texts=show_text)


app.command(export)


@app.command
def demo(
    *, out: Path = Path("tailcast-demo"), samples: int = 300, json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Measure the embedded model on 12 queries, and write report.html into the run directory.

    Args:
        out: Run directory.
        samples: Draws of each query, by importance sampling and by plain sampling.
    """
    from tailcast.models.embedded import asset

    values = {
        "model": "embedded",
        "queries": str(asset("demo_queries.jsonl")),
        "pairs": str(asset("demo_pairs.jsonl")),
        "judge": "refusal",
        "temperature": 0.7,
        "max_new_tokens": 24,
        "samples": samples,
        "monte_carlo": samples,
        "out": str(out),
    }
    _run(values, None, json, quiet)
    report_of_demo(out)


def _given(flags: BaseModel | None) -> dict[str, Any]:
    """The fields that were given as flags."""
    values = flags.model_dump() if flags is not None else {}
    return {name: value for name, value in values.items() if value is not None}


def _run(
    values: dict[str, Any], preset: str | None, as_json: bool, quiet: bool, place: str = "",
    said: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Check, run, and show."""
    config = make_config(values, preset=preset, place=place, said=said)
    if config.out is None:
        raise ConfigError("out is missing: name a run directory with --out.")
    from tailcast.pipeline import run as run_pipeline

    with progress_view(quiet=quiet) as progress:
        run_pipeline(config, progress=progress)
    store = RunStore(config.out)
    show_estimates(store.read_lines("estimates.jsonl"), store.path, as_json=as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: Words after the program's name; those of the process if None.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the loaders' bars; ours is rich's
    logging.basicConfig(level=logging.WARNING, handlers=[Messages()])
    logging.getLogger("huggingface_hub").propagate = False  # it prints its warnings itself
    warnings.simplefilter("ignore")
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except (TailcastError, CycloptsError) as error:
        text = str(error).strip()
        console().print(f"tailcast: {text}", style="red", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        console().print("tailcast: stopped; run the same command again to go on.")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
