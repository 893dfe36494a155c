"""Streams that learn from hits: what they learn, and that estimates stay right and repeatable."""

import json
import shutil

import numpy as np
import pytest
import torch

import tailcast
from tailcast.cli import main
from tailcast.models import TabularTarget, load_target
from tailcast.pipeline import learning
from tailcast.sampling import Place, laws_along, target_law
from tailcast.stats import Round
from tailcast.steering import save_steering
from tailcast.streams import Hit, Openings, Prompted, Seen, fit_shift
from tailcast.types import ModelSettings, Query, SamplingSettings, SteeringVector
from tiny import call, exact_risk, save_model

SETTINGS = SamplingSettings(max_new_tokens=4)
QUERIES = [Query.user("q", "hello"), Query.user("r", "there")]


def world() -> TabularTarget:
    """Three ways to hit; steering sees one of them."""
    rng = np.random.default_rng(3)
    table = rng.normal(size=(4, 8, 8))
    table[:, :, 3:6] -= 2.5
    shift = np.zeros_like(table)
    shift[:, :, 3] = 2.0
    return TabularTarget(table, shift)


def twice(query: Query, text: str) -> float:
    return float(any(text.split().count(word) >= 2 for word in "345"))


def measure(out, unit, seed=0, **more):
    return tailcast.estimate(
        world(), QUERIES, twice, steering=unit, samples=700, max_new_tokens=4, switches=(2, 4),
        seed=seed, out=out, **more,
    )  # fmt: skip


def test_openings_of_earlier_rounds_leave_the_estimate_unbiased(tmp_path, unit):
    truths = [world().exact_risk(q, lambda text: twice(None, text) > 0, 4) for q in QUERIES]
    values = np.array([
        [one.p or 0.0 for one in measure(tmp_path / str(seed), unit, seed)] for seed in range(24)
    ])  # fmt: skip
    z = (values.mean(0) - truths) / (values.std(0, ddof=1) / np.sqrt(len(values)))
    assert (np.abs(z) < 4).all()
    drawn = [
        json.loads(path.read_text())["counts"]["q"][-1]
        for path in sorted((tmp_path / "0" / "rounds").iterdir())
    ]
    plan = json.loads((tmp_path / "0" / "rounds" / "0000.json").read_text())
    assert plan["components"][-1][-1] == "openings"
    assert drawn[0] == 0 and max(drawn) > 0, "they learn from the second round on, and are used"


def test_a_run_cut_short_goes_on_to_the_same_bytes(tmp_path, unit):
    measure(tmp_path / "whole", unit)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in ("estimates.jsonl", "finished.json", "rounds/0002.json"):
        (tmp_path / "cut" / name).unlink()
    for kind in ("samples", "verdicts", "scores"):
        shutil.rmtree(tmp_path / "cut" / kind / "round-2")
    for place in (tmp_path / "cut" / "rounds").iterdir():
        if place.name > "0002.json":
            place.unlink()
    for place in (tmp_path / "cut").glob("*/round-[3-9]"):
        shutil.rmtree(place)
    measure(tmp_path / "cut", unit)
    name = "estimates.jsonl"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_hit_left_out_is_judged_by_the_others():
    """Effective number 1 / (0.5^2 + 0.5^2) = 2: two hits of one each."""
    hits = [Hit((7,), (1, 2), 0.5), Hit((7,), (1, 3), 0.5)]
    found = Openings(hits, reserves=(1.0, 1.0))
    p = np.array([0.2, 0.1])
    ratio = found.ratio_without(Hit((7,), (1, 2), 0.5), np.log(p))
    pooled = (1 + p[0]) / 2  # the other hit began with 1, the reserve is one opening
    first = (1 + pooled) / 2
    second = p[1] / 2 / 2  # the other one went on with 3
    assert ratio == pytest.approx(np.log(first * second / p.prod()))
    assert found.ratio_without(Hit((8,), (4,), 1.0), np.log([0.3])) == pytest.approx(
        np.log(0.3 / 3) - np.log(0.3)
    ), "a query without hits of its own: the reserve of two hits of others"


def test_of_very_many_hits_a_part_is_learned_from_in_proportion():
    rng = np.random.default_rng(0)
    logs = rng.normal(size=5000)
    rounds = [
        Round(np.array([5000]), np.zeros(2500, np.int64), np.zeros((2500, 1)), part)
        for part in np.split(logs, 2)
    ]
    whole = learning._weights(rounds, 5000)
    assert whole == pytest.approx(np.exp(logs) / np.exp(logs).sum())
    part = learning._weights(rounds, 200)
    assert part.sum() == pytest.approx(1) and (part > 0).sum() <= 200
    assert np.abs(np.cumsum(part) - np.cumsum(whole)).max() <= 0.5 / 200 + 1e-9, "evenly"
    shifted = np.roll(part, 2500)
    assert np.abs(np.cumsum(shifted) - np.cumsum(whole)).max() > 0.5 / 200 + 1e-9


def test_a_prompted_stream_takes_the_place_of_the_runs_system_prompt(place):
    settings = ModelSettings(model=str(place / "model"), device="cpu", system_prompt="no")
    target = load_target(settings)
    bare = load_target(settings.model_copy(update={"system_prompt": None}))
    query = Query.user("a", "tell me")
    asked = Query("a", ({"role": "system", "content": "two"}, *query.messages))
    assert Prompted(target, [query], "two").prompts == {target.encode(query): bare.encode(asked)}
    reworded = Prompted(target, [query], "red {query}").prompts[target.encode(query)]
    assert reworded == target.encode(Query.user("a", "red tell me")), "the system prompt stays"
    assert target.system_prompt == "no"


def seen_from(law, draws, rng):
    """First tokens of hits of six queries, drawn from a law, the target being another."""
    target = torch.log_softmax(torch.zeros(1, 30), -1)
    tokens = rng.choice(30, size=draws, p=law)
    return Seen(
        logp=target, positions=np.zeros(1, np.int64), places=np.zeros(draws, np.int64),
        tokens=tokens, groups=rng.integers(6, size=draws), weights=np.ones(draws),
    )  # fmt: skip


def test_a_shift_gains_what_there_is_to_gain_and_nothing_else():
    rng = np.random.default_rng(0)
    embedding = torch.from_numpy(rng.normal(size=(30, 4)).astype(np.float32))
    law = torch.softmax(embedding @ torch.tensor([1.0, -0.5, 0.5, 0.0]), 0).double()
    law = (law / law.sum()).numpy()
    possible = float((law * np.log(law * 30)).sum())
    shift, facts = fit_shift(seen_from(law, 3000, rng), embedding, tokens=2)
    assert 0.8 * possible < facts["gain"] < 1.2 * possible
    assert np.abs(shift[1]).max() == 0, "no hit has a second token"
    _, nothing = fit_shift(seen_from(np.ones(30) / 30, 60, rng), embedding, tokens=1)
    assert nothing["gain"] < 0.1 * possible


def test_laws_along_completions_are_the_targets_own():
    target = world()
    prompt = target.encode(QUERIES[0])
    given = [Place(prompt, (1, 2, 3)), Place(prompt, (1, 4)), Place((2,), (5,)), Place(prompt, ())]
    found = dict(laws_along(target, given, SETTINGS, tokens=3, slots=2))
    assert set(found) == {
        Place(prompt, ()), Place(prompt, (1,)), Place(prompt, (1, 2)), Place((2,), ()),
    }  # fmt: skip
    expected = target_law(torch.from_numpy(target.table[2, 2][None]), SETTINGS)[0]
    torch.testing.assert_close(found[Place(prompt, (1, 2))], expected)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, a sibling of it, queries, and a first run."""
    root = tmp_path_factory.mktemp("streams")
    save_model(root / "model")
    save_model(root / "sibling", layers=1)
    (root / "q.jsonl").write_text(
        '{"id": "a", "prompt": "tell me"}\n{"id": "b", "prompt": "red"}\n'
    )
    (root / "openings.txt").write_text("two two\nyes two\n")
    words = ("estimate", *arguments(root), "--method", "mixture", "--out", root / "first")
    main([str(word) for word in words])
    return root


def arguments(root):
    return [
        "--model", root / "model", "--queries", root / "q.jsonl", "--judge",
        "pattern:two.*two", "--max-new-tokens", 4, "--samples", 1000, "--quiet", "--json",
    ]  # fmt: skip


def test_every_stream_that_a_user_can_name_gives_the_exact_risk(place, capsys):
    learn = ("learn", place / "first", "--out", place / "shift.safetensors", "--tokens", 3)
    assert "nats a token" in call(capsys, *learn)[1]
    specs = [
        f"prefill:{place / 'openings.txt'}", f"hits:{place / 'first'}", "prompt:{query} two two",
        f"model:{place / 'sibling'}", f"learned:{place / 'shift.safetensors'}",
        f"tilt:1.5:model:{place / 'sibling'}",
    ]  # fmt: skip
    words = [word for spec in specs for word in ("--streams", spec)]
    words += ["--level", 0.9999, "--seed", 1, "--out", place / "second"]
    _, out, _ = call(capsys, "estimate", *arguments(place), *words)
    rows = [json.loads(line) for line in out.splitlines()]
    for row, prompt in zip(rows, ("tell me", "red"), strict=True):
        truth = exact_risk(place / "model", prompt, "two", 4)
        # by the bounds that need no assumption: the few heavy hits make a z-score no z-score
        assert truth / 2 < row["p_low"] <= truth <= row["p_high_guaranteed"] < 2 * truth
        assert row["p"] == pytest.approx(truth, rel=0.15)
    _, out, _ = call(capsys, "proposals", place / "second", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    uses = [one for one in records if one["record"] == "proposal"]
    assert {one["proposal"].split(" ")[0].split(":")[0] for one in uses} >= {
        "target", "prefill", "hits", "prompt", "model", "learned", "tilt",
    }  # fmt: skip
    assert sum(one["carried"] for one in uses) == pytest.approx(1)
    ways = [one for one in records if one["record"] == "opening"]
    assert sum(one["carried"] for one in ways) == pytest.approx(1)
    assert all(one["words"] is None for one in ways)
    assert "two two" in call(capsys, "proposals", place / "second", "--show-text")[1]


def test_layers_of_one_file_are_streams_of_their_own(place, capsys):
    rng = np.random.default_rng(0)
    path = place / "layers.safetensors"
    width = load_target(ModelSettings(model=str(place / "model"), device="cpu")).width
    save_steering(
        [SteeringVector("add", n, rng.normal(size=width).astype(np.float32)) for n in range(2)],
        path,
    )
    words = ["estimate", *arguments(place), "--no-openings", "--strengths", 0.5, "--out"]
    both, pairs = place / "both.safetensors", place / "pairs.jsonl"
    unsafe = [("tell me", "two red"), ("red", "two two"), ("me", "one two")]
    pairs.write_text("".join(
        json.dumps({"prompt": prompt, "unsafe": text, "safe": "no"}) + "\n"
        for prompt, text in unsafe
    ))  # fmt: skip
    code, out, err = call(
        capsys, "steer", "--model", place / "model", "--pairs", pairs, "--out", both,
        "--layer", "1,0", "--component", 1, "--profile", "1,0.5,0.2",
    )  # fmt: skip
    assert code == 0 and "at layer 1" in out and "at layer 0" in out, err
    layers = [f"vector:{path}@0", f"vector:{path}@1", f"vector:{both}"]
    layers = [word for one in layers for word in ("--streams", one)]
    code, out, err = call(capsys, *words, place / "layers", *layers)
    assert code == 0, err
    for row, prompt in zip(map(json.loads, out.splitlines()), ("tell me", "red"), strict=True):
        truth = exact_risk(place / "model", prompt, "two", 4)
        assert abs(row["p"] - truth) < 4 * row["stderr"]
    plan = json.loads((place / "layers" / "rounds" / "0000.json").read_text())
    assert set(layers) - {"--streams"} < {one[4] for one in plan["components"]}
    code, _, err = call(capsys, *words, place / "none", "--streams", f"vector:{path}")
    assert code == 2 and "vector:FILE@LAYER" in " ".join(err.split())


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("magic", "stream 'magic' is none of prefill:TEXT"),
        ("prompt:", "stream 'prompt:' is none of"),
        ("prompt: ", "the text of a prompted stream is empty"),
        ("tilt:far:prompt:x", "does not begin with a number"),
        ("hits:/nowhere", "run directory '/nowhere' does not exist"),
        ("learned:/nowhere.safetensors", "learned shift '/nowhere.safetensors' cannot be read"),
        ("vector:/nowhere.safetensors", "/nowhere.safetensors"),
        ("model:/nowhere", "/nowhere"),
        ("adapter:/nowhere", "/nowhere"),
    ],
)
def test_what_cannot_be_a_stream_is_said(place, capsys, spec, sentence):
    words = ("estimate", *arguments(place), "--streams", spec, "--out", place / "bad")
    code, _, err = call(capsys, *words)
    assert code == 2 and sentence in " ".join(err.split()) and "Traceback" not in err
    shutil.rmtree(place / "bad", ignore_errors=True)


def test_learn_says_first_where_it_cannot_write(place, capsys):
    code, _, err = call(
        capsys, "learn", place / "first", "--out", place / "no" / "shift.safetensors"
    )
    assert code == 2 and "of --out does not exist" in " ".join(err.split())


def test_streams_are_of_mixtures_and_distinct(place, capsys):
    for words, sentence in (
        (["--streams", "prompt:x", "--method", "mc"], "streams are of method mixture, not mc"),
        (["--streams", "prompt:x", "--streams", "prompt:x"], "hold one twice"),
        (["--streams", "openings"], "part of every mixture, unless --no-openings"),
    ):
        _, _, err = call(capsys, "estimate", *arguments(place), *words, "--out", place / "bad")
        assert sentence in " ".join(err.split())
