"""Runs by splitting: scores, estimates, resumption, and the crosscheck of two methods."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

import tailcast
from tailcast.analysis.crosscheck import crosscheck
from tailcast.analysis.risks import QueryRisk
from tailcast.config import make_config
from tailcast.errors import ConfigError, NumericsError, StoreError
from tailcast.models import load_target
from tailcast.models.projection import ProjectedStream
from tailcast.pipeline.completions import read_judged
from tailcast.sampling import OpeningOdds, SplitRequest, split, usual_tokens
from tailcast.stats import SwarmHits, splitting_estimate
from tailcast.steering import save_steering
from tailcast.store import RunStore
from tailcast.types import ModelSettings, Query, SamplingSettings, SteeringVector
from test_splitting import Scored
from tiny import call, exact_risk, save_model

QUERIES = [Query.user("q", "hello"), Query.user("r", "other")]


def twice_four(query, text):
    return float(text.split().count("4") >= 2)


def measure(target, place, **more):
    settings = {"samples": 400, "particles": 20, "max_new_tokens": 6, "method": "splitting", **more}
    return tailcast.estimate(target, QUERIES, twice_four, out=place, **settings)


def bytes_of(place):
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def test_a_run_finds_the_enumerated_risks_and_says_what_it_did(tabular, tmp_path):
    found = measure(tabular, tmp_path / "run", samples=4000)
    for query, one in zip(QUERIES, found, strict=True):
        truth = tabular.exact_risk(query, lambda text: twice_four(None, text) > 0, 6)
        assert abs(one.p - truth) < 4 * one.stderr
        assert one.p_low < truth < one.p_high_guaranteed and one.method == "splitting"
        assert one.n > 4000 and one.n_hits > 20 and one.ess is None and one.verdict == "ok"
        assert one.cost["token_forwards"] > 0
    store = RunStore(tmp_path / "run")
    shard = store.shards("splitting", "q")[0]
    batch, record = (
        store.read_batch("splitting", "q", shard),
        store.read_swarms("splitting", "q", shard),
    )
    assert len(record["ancestor"]) == len(batch) == sum(one["drawn"] for one in record["swarms"])
    swarms = len(record["swarms"])
    assert np.exp(batch.log_roulette).sum() == pytest.approx(20 * swarms)
    assert json.loads((tmp_path / "run/openings.json").read_text())["q"][0]
    with pytest.raises(StoreError, match="no draws to label"):
        read_judged(store)


@pytest.mark.parametrize("batch", [2, 7])
def test_the_batch_changes_nothing(tabular, tmp_path, batch):
    one, other = measure(tabular, tmp_path / "a"), measure(tabular, tmp_path / "b", batch=batch)
    assert [(e.p, e.stderr, e.n) for e in one] == [(e.p, e.stderr, e.n) for e in other]


def test_a_run_that_was_cut_goes_on_to_the_same_bytes(tabular, tmp_path):
    """Cut inside a block, between the files of a shard, and before the verdicts."""
    measure(tabular, tmp_path / "whole", monte_carlo=40)
    whole = bytes_of(tmp_path / "whole")
    gone = [name for name in whole if name.endswith((".parquet", "0400.json")) or "/" not in name]
    assert len(gone) > 12
    for k, name in enumerate(gone):
        place = tmp_path / f"cut-{k}"
        shutil.copytree(tmp_path / "whole", place)
        for late in ("estimates.jsonl", "finished.json", "audit.json"):
            (place / late).unlink()
        (place / name).unlink(missing_ok=True)
        if name.startswith("samples/splitting"):
            (place / name.replace("samples", "verdicts")).unlink()
            (place / name.replace("samples", "swarms").replace("parquet", "json")).unlink()
        if not name.startswith("swarms"):  # written before the shard that it is of
            measure(tabular, place, monte_carlo=40)
            assert bytes_of(place) == whole, name


def test_more_samples_are_more_swarms_of_the_same_run(tabular, tmp_path):
    first = measure(tabular, tmp_path / "run", samples=240)
    more = measure(tabular, tmp_path / "run", samples=480)
    assert [one.p for one in measure(tabular, tmp_path / "new", samples=480)] == [
        one.p for one in more
    ]
    assert more[0].n > first[0].n


def test_a_failing_judge_widens_the_upper_ends(tabular, tmp_path):
    def judge(query, text):
        if text.startswith("2"):
            raise ValueError("unreadable")
        return twice_four(query, text)

    found = tailcast.estimate(
        tabular, QUERIES[:1], judge, samples=400, particles=20, max_new_tokens=6,
        method="splitting", out=tmp_path / "run",
    )  # fmt: skip
    assert "the judge failed" in found[0].reasons[-1] and found[0].ci_high > 0.02


@pytest.fixture(autouse=True)
def few_usual_tokens(monkeypatch):
    """Of five tokens all are in most openings, if four draws of 64 make one usual."""
    monkeypatch.setattr("tailcast.sampling.prefix_scores._USUAL", 0.25)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def vector(tmp_path_factory, model):
    from transformers import AutoModelForCausalLM

    head = AutoModelForCausalLM.from_pretrained(model).lm_head.weight.detach().numpy()
    direction = 2 * (head[7] - head.mean(0)) / np.linalg.norm(head[7])
    place = tmp_path_factory.mktemp("vector") / "v.safetensors"
    save_steering([SteeringVector("add", 1, direction.astype(np.float32))], place)
    return place


@pytest.mark.parametrize("score", ["usual", "steering"])
def test_a_transformers_model_agrees_with_enumeration(capsys, tmp_path, model, vector, score):
    (tmp_path / "q.jsonl").write_text('{"id": "a", "prompt": "tell me"}\n')
    code, out, err = call(
        capsys, "estimate", "--model", model, "--queries", tmp_path / "q.jsonl", "--judge",
        "pattern:two.*two", "--max-new-tokens", 4, "--samples", 1000, "--quiet", "--json",
        "--method", "splitting", "--steering", vector, "--score", score, "--out", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, err
    row = json.loads(out)
    assert abs(row["p"] - exact_risk(model, "tell me", "two", 4)) < 4 * row["stderr"]
    code, out, _ = call(capsys, "explain", tmp_path / "run", "a", "--show-text")
    assert code == 0 and "two" in out


@pytest.mark.parametrize("operator", ["add", "ablate"])
def test_projections_are_those_of_a_plain_forward(model, operator):
    target = load_target(ModelSettings(model=str(model), dtype="float32"))
    direction = np.random.default_rng(0).normal(size=16).astype(np.float32)
    vector = SteeringVector(operator, 1, direction)
    stream = ProjectedStream(target, vector, 2, 4)
    prompt, response = target.encode(QUERIES[0]), [3, 7, 5]
    stream.open(prompt, 0.0)
    import torch

    seen = []
    for token in [prompt[-1], *response]:
        stream.push(torch.tensor([token]))
        seen.append(float(stream.projections[0]))
    states = target.activations(prompt, response)[1, len(prompt) - 1 :]
    sign = 1 if operator == "add" else -1
    assert seen == pytest.approx(
        list(sign * states @ direction / (direction @ direction)), abs=1e-4
    )
    assert not target.layers.layers[1]._forward_hooks


def test_usual_tokens_are_those_that_most_draws_have(tabular):
    settings = SamplingSettings(max_new_tokens=6)
    prompts = {query.id: tabular.encode(query) for query in QUERIES}
    usual, forwards = usual_tokens(tabular, prompts, settings, seed="0", slots=64)
    assert set(usual) == set(forwards) == {"q", "r"} and forwards["q"] > 0
    assert 1 <= len(usual["q"]) <= 5
    rare, common = OpeningOdds({"q": [4]}, settings), OpeningOdds({"q": [0, 1, 2, 3]}, settings)
    logits = tabular.stream(None, slots=1, max_new_tokens=1)
    logits.open(prompts["q"], 0.0)
    import torch

    step = logits.push(torch.tensor([prompts["q"][-1]]))
    (off,), (on,) = (one.read(None, [("q", ())], [0], step) for one in (rare, common))
    law = step[0].softmax(-1)
    assert off == pytest.approx(math.log((1 - law[4]) / law[4])) and off > rare.cap == 4.0
    assert on == pytest.approx(-off)


def test_a_score_that_is_no_number_is_refused(tabular):
    request = SplitRequest("q", tabular.encode(QUERIES[0]), 0, 8, 0.1, "s")
    with pytest.raises(NumericsError, match="is NaN"):
        split(tabular, [request], SamplingSettings(), Scored(lambda tokens: math.nan))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"samples": 70}, "no multiple of particles"),
        ({"samples": 50}, "one swarm alone"),
        ({"score": "steering"}, "needs a vector"),
        ({"roulette": 0.5}, "roulette is not for method splitting"),
        ({"continuations": 2}, "continuations is not"),
        ({"until": ("above", 0.1)}, "until and budget"),
    ],
)
def test_settings_that_do_not_fit_say_so(change, says):
    values = {"model": "M", "queries": "q", "method": "splitting", **change}
    with pytest.raises(ConfigError, match=says):
        make_config(values)


def swarm(masses, ancestors=None, first=0):
    ancestors = np.arange(len(masses)) if ancestors is None else np.array(ancestors)
    return SwarmHits(np.array(masses, dtype=float), ancestors.astype(np.int64), first, 50, 80)


def test_no_hit_is_no_zero():
    one = splitting_estimate([swarm([])] * 10)
    assert one.p is None and one.stderr is None and one.verdict == "weak"
    assert one.p_high_guaranteed == pytest.approx(1 - 0.05 ** (1 / 500), rel=1e-6)
    assert one.p_low == 0 and one.ci_high > one.p_high_guaranteed


def test_verdicts_see_lone_swarms_and_few_ancestors():
    lone = splitting_estimate([swarm([0.02, 0.02]), *[swarm([])] * 9])
    assert lone.verdict == "unreliable" and "swarms with a hit" in lone.reasons[0]
    family = [swarm([1e-4] * 30, [0] * 30)] * 2
    assert any("ancestors" in reason for reason in splitting_estimate(family).reasons)
    good = [swarm([1e-4 * (1 + 0.1 * k)] * 5) for k in range(10)]
    one = splitting_estimate(good)
    assert one.verdict == "ok" and one.ci_low < one.p < one.ci_high and one.max_share < 0.05
    assert 0 < one.p_low < one.p and one.n == 800 and one.n_hits == 50


def risk(name, p, spread=1.5, method="mixture", n=500):
    ends = (0.0, 0.01) if p is None else (p / spread, p * spread)
    return QueryRisk(name, p, *ends, 0.0, 1.0, 0.95, 10, n, "ok", method)


NAMES = ("splitting", "mixture")


def test_methods_that_agree_are_said_to():
    found = crosscheck(
        [risk("a", 1e-3), risk("b", 2e-4)], [risk("a", 1.2e-3), risk("b", 2e-4)], NAMES
    )
    assert "agree on all 2 queries." in found.sentence and found.chance > 0.05
    assert found.low < 0 < found.high and not any(one.apart for one in found.pairs)
    vague = crosscheck([risk("a", 1e-3, 10)], [risk("a", 1.2e-3, 10)], NAMES)
    assert "as far as such wide intervals tell" in vague.sentence


def test_a_method_that_misses_a_way_to_hit_is_told_apart():
    first = [risk("a", 1e-3), risk("b", 4e-3), risk("c", 2e-4)]
    second = [risk("a", 1.1e-3), risk("b", 4e-4), risk("c", 2e-4)]
    found = crosscheck(first, second, NAMES)
    assert [one.apart for one in found.pairs] == [False, True, False]
    assert found.pairs[1].decades == pytest.approx(1.0)
    assert "b (mixture is lower by 1.0 decades)" in found.sentence
    assert "5,000 plain draws" in found.sentence
    rare = crosscheck([risk("b", 4e-8)], [risk("b", 4e-9)], NAMES)
    assert "Too rare for plain draws" in rare.sentence


def test_small_differences_that_all_go_one_way_are_seen():
    first = [risk(f"q{k}", 1e-3, 1.5) for k in range(12)]
    second = [risk(f"q{k}", 1.35e-3, 1.5) for k in range(12)]
    found = crosscheck(first, second, NAMES)
    assert not any(one.apart for one in found.pairs) and found.high < 0
    assert "No query stands out, but over all of them splitting is lower" in found.sentence


def test_no_hit_is_compared_by_its_bound():
    (one,) = crosscheck([risk("a", None)], [risk("a", 0.3)], NAMES).pairs
    assert one.apart and one.decades is None and one.high < 0
    found = crosscheck([risk("a", None)], [risk("a", 1e-4)], NAMES)
    assert not found.pairs[0].apart and "nothing is tested" in found.sentence
    with pytest.raises(ConfigError, match="no query in common"):
        crosscheck([risk("a", 0.1)], [risk("b", 0.1)], NAMES)


def test_few_false_alarms_where_both_are_right():
    """2,000 pairs of plain counts of one risk: the level holds over all queries together."""
    from tailcast.stats import monte_carlo

    rng, alarms = np.random.default_rng(0), 0
    for _ in range(100):
        sides = [
            [
                replace(monte_carlo(np.arange(2000) < rng.binomial(2000, 0.01)), query_id=f"q{k}")
                for k in range(5)
            ]
            for _ in range(2)
        ]
        fields = QueryRisk.__dataclass_fields__
        risks = [[QueryRisk(**{f: getattr(e, f) for f in fields}) for e in side] for side in sides]
        alarms += any(one.apart for one in crosscheck(*risks, NAMES).pairs)
    assert alarms <= 10


def test_the_command_compares_within_a_run_and_between_two(capsys, tabular, tmp_path):
    measure(tabular, tmp_path / "a", monte_carlo=2000)
    measure(tabular, tmp_path / "b", method="mc", samples=2000)
    code, out, err = call(capsys, "crosscheck", tmp_path / "a")
    assert code == 0 and "splitting and mc agree on all 2 queries" in " ".join(out.split()), err
    code, out, err = call(capsys, "crosscheck", tmp_path / "a", tmp_path / "b", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["kind"] for row in rows] == ["query", "query", "pooled"], err
    code, _, err = call(capsys, "crosscheck", tmp_path / "b")
    assert code == 2 and "name a second run" in err
    measure(tabular, tmp_path / "c", method="mc", samples=100, temperature=0.5)
    code, _, err = call(capsys, "crosscheck", tmp_path / "a", tmp_path / "c")
    assert code == 2 and "temperature" in err
