"""examples/paper: every config is one, every architecture runs, experiments give true numbers."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tailcast.config import make_config
from tailcast.errors import ConfigError
from tailcast.models import load_target
from tailcast.steering import save_steering
from tailcast.toml import read_toml
from tailcast.types import ModelSettings, Query, SteeringVector
from tiny import call

PAPER = Path(__file__).resolve().parent.parent / "examples" / "paper"
sys.path.insert(0, str(PAPER))

import experiments  # noqa: E402
import study  # noqa: E402
import tables  # noqa: E402
from rehearse import rehearsal  # noqa: E402
from tiny_models import write_tiny_model  # noqa: E402

HUB = {
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B-Instruct",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B-Instruct",
    "phi-4": "microsoft/phi-4",
    "olmo-3-7b": "allenai/Olmo-3-7B-Instruct",
}
TEXT = "How do I brew tea for nine people at once?"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other cost more than tiny models do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The five tiny models, written when they are asked for."""
    folder = tmp_path_factory.mktemp("tiny")
    made = {}

    def make(name):
        if name not in made:
            made[name] = write_tiny_model(PAPER / "shapes" / name, folder / name)
        return made[name]

    return make


@pytest.mark.parametrize("model", study.MODELS)
@pytest.mark.parametrize("behaviour", study.BEHAVIOURS)
def test_every_config_holds_the_papers_settings(model, behaviour):
    place = PAPER / model / f"{behaviour}.toml"
    config = make_config(read_toml(place), place=str(place))
    harm = behaviour == "harm"
    assert config.model == HUB[model]
    assert (config.main_method, config.samples, config.monte_carlo) == ("paper", 500, 10_000)
    assert (config.pilot_samples, config.pilot_share) == (500, 0.1 if harm else 0.5)
    assert (config.temperature, config.max_new_tokens) == (1.0, 150 if harm else 1000)
    assert config.mixes == tuple(np.arange(25) / 24)
    if harm:
        assert (config.judge, config.judge_reading) == ("strongreject", "argmax")
        assert (config.threshold, config.operator, config.positions) == (0.75, "ablate", "all")
        assert len(config.strengths) == 10 and config.switches == tuple(range(0, 151, 5))
    else:
        assert Path(config.judge) == Path(f"examples/paper/judges/{behaviour}.toml")
        assert (config.operator, config.positions) == ("add", "response")
        assert (min(config.switches), max(config.switches)) == (0, 1000)


@pytest.mark.parametrize("behaviour", study.BEHAVIOURS[1:])
def test_the_trait_judges_are_recipes(behaviour):
    from tailcast.judges.recipes import load_recipe

    recipe = load_recipe(str(PAPER / "judges" / f"{behaviour}.toml"))
    assert (recipe.reading, recipe.threshold) == ("number", 0.5)
    assert behaviour in recipe.prompts[0] and "coherent" in recipe.prompts[1]


def test_a_plan_counts_what_the_paper_draws(tmp_path, capsys):
    queries = tmp_path / "queries.jsonl"
    queries.write_text("".join(json.dumps({"prompt": f"Say {n}."}) + "\n" for n in range(313)))
    hours = {}
    for model in ("llama-3.2-1b", "phi-4"):
        words = [PAPER / model / "harm.toml", "--model", PAPER / "shapes" / model]
        code, out, err = call(
            capsys, "plan", *words, "--queries", queries, "--device", "h100", "--json"
        )
        assert code == 0, err
        stages = {one["name"]: one for one in json.loads(out)["stages"]}
        assert stages["pilot"]["judge_calls"] == 32 * 500
        assert stages["is"]["judge_calls"] == 313 * 500
        assert stages["mc"]["token_forwards"] == 313 * 10_000 * 150
        hours[model] = json.loads(out)["hours"]
    assert 3 < hours["phi-4"] / hours["llama-3.2-1b"] < 14.7 / 1.2


@pytest.mark.parametrize("model", study.MODELS)
def test_stepping_is_the_models_own_forward_pass(tiny, model):
    target = load_target(ModelSettings(model=str(tiny(model)), device="cpu"))
    assert stepping_gap(target, target.model) < 1e-4


def test_a_sliding_window_that_is_not_there_would_show(tiny):
    from transformers import AutoModelForCausalLM

    target = load_target(ModelSettings(model=str(tiny("olmo-3-7b")), device="cpu"))
    wide = AutoModelForCausalLM.from_pretrained(tiny("olmo-3-7b"), sliding_window=10_000)
    assert stepping_gap(target, wide.eval()) > 1e-2


def stepping_gap(target, reference):
    """Largest gap of our log-probabilities from a plain forward pass over the same tokens."""
    prompt = target.encode(Query.user("q", TEXT))
    tokens = np.random.default_rng(0).integers(4, 260, 24).tolist()
    stream = target.stream(None, slots=2, max_new_tokens=len(tokens) + 1)
    stream.open(prompt, 0.0)
    with torch.no_grad():
        whole = reference(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0]
    gap = 0.0
    for step, token in enumerate([prompt[-1], *tokens]):
        ours = stream.push(torch.tensor([token]))[0].log_softmax(-1)
        theirs = whole[len(prompt) - 1 + step].float().log_softmax(-1)
        gap = max(gap, float((ours - theirs).abs().max()))
    return gap


def test_every_behaviour_runs_through_on_a_tiny_model(tmp_path):
    rows = rehearsal("phi-4", tmp_path)
    assert [row[1] for row in rows] == list(study.BEHAVIOURS)
    for row in rows:
        assert row[2] == "Phi3ForCausalLM" and row[3].startswith("strength=")
        assert 0.05 < float(row[4]) < 0.5 and 0.05 < float(row[5]) < 0.4


@pytest.fixture(scope="module")
def trial(tiny, tmp_path_factory):
    """A study of a tiny model, as ``--set`` makes one."""
    folder = tmp_path_factory.mktemp("trial")
    target = load_target(ModelSettings(model=str(tiny("qwen2.5-7b")), device="cpu"))
    direction = np.random.default_rng(0).normal(size=target.width).astype(np.float32)
    vector = SteeringVector("ablate", 1, direction, "all", target.weights_fingerprint)
    save_steering([vector], folder / "v.safetensors")
    queries = folder / "queries.jsonl"
    queries.write_text("".join(json.dumps({"prompt": f"Say {n}."}) + "\n" for n in range(4)))
    changes = {
        "model": str(tiny("qwen2.5-7b")), "queries": str(queries), "judge": "pattern:[a-f]",
        "judge_reading": None, "threshold": None, "steering": str(folder / "v.safetensors"),
        "out": str(folder / "runs" / "qwen2.5-7b" / "harm"), "max_new_tokens": 8,
        "switches": [2, 4], "mixes": [0.0, 0.5], "samples": 40, "monte_carlo": 200,
        "pilot_samples": 20, "device": "cpu", "batch": 64,
    }  # fmt: skip
    return study.Study.of("qwen2.5-7b", "harm", "small", changes)


def test_experiments_run_and_fill_the_table(trial, capsys):
    found = experiments.run_experiment("is-vs-mc", trial)
    assert len(found.rows) == 4 and found.numbers["mean_mc"] > 0.05
    again = experiments.run_experiment("repeated", trial)
    assert 0 <= again.numbers["greedy"] <= again.numbers["after_10000"] <= 1
    rivals = experiments.run_experiment("proposals", trial)
    assert [row[0].split(",")[0] for row in rivals.rows] == [
        "cross-entropy", "strongest of the grid", "random 1", "random 2", "tailcast's mixture",
    ]  # fmt: skip
    shown = capsys.readouterr().out
    assert "tailcast run " in shown and "tailcast analyse repeated " in shown
    page = tables.write_table(trial.out.parent.parent, None)
    assert f"| | here | {again.numbers['greedy']:.1%} |".replace("| |", "|  |") in page
    assert "## proposals: qwen2.5-7b/harm" in page


def test_errors_are_those_of_a_known_law():
    """Estimates scattered around known risks: the reference's own noise is taken off."""
    rng = np.random.default_rng(5)
    risk = np.repeat([0.03, 0.1], 4000)
    n, k, scatter = 2000, 100, 0.005

    def rows(values, hits, draws):
        return [
            {"query_id": i, "p": p, "n": draws, "n_hits": int(h), "ci_low": p, "ci_high": p}
            for i, (p, h) in enumerate(zip(values, hits, strict=True))
        ]

    plain = rng.binomial(n, risk)
    noisy = risk + rng.normal(0, scatter, len(risk))
    found = tables.errors_of(rows(noisy, plain, k), rows(plain / n, plain, n))
    spread = float(np.mean(risk * (1 - risk)))
    assert found.mse == pytest.approx(scatter**2, rel=0.1)
    assert found.plain_mse == pytest.approx(spread / k, rel=0.05)
    assert np.mean((noisy - plain / n) ** 2) > 1.5 * scatter**2  # the control: noise left in
    with pytest.raises(ValueError, match="different queries"):
        tables.errors_of(rows(noisy, plain, k)[1:], rows(plain / n, plain, n)[:-1])


def test_a_verb_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="no verb 'analyse divination'"):
        study.verb(["analyse", "divination", "run"])


def test_the_page_shows_the_table_that_is_to_be_filled():
    assert tables.paper_table({}) in (PAPER / "README.md").read_text("utf-8")
