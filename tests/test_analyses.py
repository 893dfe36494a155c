"""From risks to decisions: exact laws, coverage in simulated worlds, and the gate's exit codes."""

import json
import math
from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from tailcast.analysis.compare import compare
from tailcast.analysis.deployment import calls_per_day, deployment
from tailcast.analysis.gate import apply_rule, parse_rule
from tailcast.analysis.plain import PlainDraws
from tailcast.analysis.repeated import (
    combinatorial_share,
    count_cases,
    repeated_sampling,
    tries_grid,
)
from tailcast.analysis.risks import QueryRisk
from tailcast.analysis.runs import Run, read_run
from tailcast.analysis.worlds import (
    Case,
    band,
    chance_larger,
    draw_risks,
    draw_weights,
    share_hit,
)
from tailcast.errors import ConfigError
from tailcast.stats import clopper_pearson, monte_carlo
from tiny import call, exact_risk, save_model

Z = 1.959964


@cache
def plain_estimate(hits, n):
    return monte_carlo(np.arange(n) < hits)


def plain_risk(name, hits, n):
    one = plain_estimate(hits, n)
    kept = {key: getattr(one, key) for key in QueryRisk.__dataclass_fields__ if key != "query_id"}
    return QueryRisk(query_id=name, **kept)


def weighted_risk(name, p, sd):
    low, high = p * np.exp(-Z * sd), min(1.0, p * np.exp(Z * sd))
    return QueryRisk(name, p, low, high, 0.0, 1.0, 0.95, 50, 200, "ok", "mixture")


def plain_run(hits, n, name="run"):
    hits = np.asarray(hits)
    risks = tuple(plain_risk(f"q{i}", int(h), n) for i, h in enumerate(hits))
    draws = PlainDraws(hits, np.zeros_like(hits), np.full_like(hits, n))
    return Run(name, risks, draws, {}, {})


def weighted_run(p, sd, name="run"):
    risks = tuple(weighted_risk(f"q{i}", float(one), sd) for i, one in enumerate(p))
    return Run(name, risks, None, {}, {})


# --- Repeated sampling: laws


@pytest.mark.parametrize("p", [0.0, 0.003, 0.2, 0.9])
@pytest.mark.parametrize("tries", [1, 7, 40])
def test_the_counted_share_is_unbiased_and_the_plug_in_is_not(p, tries):
    n, hits = 40, np.arange(41)
    law, truth = binom.pmf(hits, n, p), 1 - (1 - p) ** tries
    assert law @ combinatorial_share(hits, np.full(41, n), tries) == pytest.approx(truth, abs=1e-12)
    if tries > 1 and 0 < p < 0.9:
        assert abs(law @ share_hit(hits / n, tries) - truth) > 1e-4


def test_the_counted_share_is_the_formula():
    for hits, n, tries in [(0, 9, 3), (2, 9, 3), (7, 9, 3), (9, 9, 9), (1, 2000, 1500)]:
        exact = 1 - math.comb(n - hits, tries) / math.comb(n, tries)
        found = combinatorial_share(np.array([hits]), np.array([n]), tries)[0]
        assert found == pytest.approx(exact, abs=1e-12)


def test_both_routes_agree_where_both_exist():
    """1,000 draws of 200 queries of known risk: both within sampling error of the truth."""
    rng = np.random.default_rng(1)
    p = 10 ** rng.uniform(-3, -0.5, 200)
    points = repeated_sampling(plain_run(rng.binomial(1000, p), 1000), 1000)
    counted = {one.tries: one for one in points if one.route == "draws"}
    counts = np.arange(1001)
    law = binom.pmf(counts, 1000, p[:, None])
    for one in points:
        if one.route == "risks":
            truth = share_hit(p, one.tries).mean()
            values = combinatorial_share(counts, np.full(1001, 1000), one.tries)
            error = np.sqrt((law @ values**2 - (law @ values) ** 2).sum()) / 200
            assert abs(counted[one.tries].share - truth) < 4 * error
            assert one.tries > 200 or abs(one.share - counted[one.tries].share) < 4 * error
            if one.tries <= 100:  # nearer to 1,000 the plug-in is biased, as said above
                assert one.low < counted[one.tries].low + 0.01
                assert one.high > counted[one.tries].high - 0.01


def test_the_grid_ends_with_the_number_asked_for():
    assert tries_grid(1) == [1]
    assert tries_grid(30) == [1, 2, 5, 10, 20, 30]
    assert tries_grid(1000)[-3:] == [200, 500, 1000]


# --- Bands: exact laws, coverage, controls


@pytest.mark.parametrize("yes", [0, 1, 5, 20])
def test_the_band_of_yes_and_no_is_clopper_pearson(yes):
    values = (np.arange(20) < yes).astype(float)
    low, high = band(draw_weights(20), [Case(values, values, 1.0)], level=0.95)
    assert (low, high) == pytest.approx(clopper_pearson(yes, 20), abs=0.025)


@pytest.mark.parametrize("hits", [0, 1, 30])
def test_drawn_risks_have_the_exact_interval_as_quantiles(hits):
    worlds = draw_risks([plain_risk("q", hits, 100)], 40_000)
    low, high = np.quantile(worlds.low, 0.025), np.quantile(worlds.high, 0.975)
    assert (low, high) == pytest.approx(clopper_pearson(hits, 100), rel=0.03)


def log_normal(rng, size):
    return np.minimum(10 ** rng.normal(-3, 1, size), 1)


def beta(rng, size):
    return np.maximum(rng.beta(0.3, 30, size), 1e-15)


def rare(rng, size):
    return np.minimum(10 ** rng.normal(-6, 0.7, size), 1)


def coverage(population, covers, tries, worlds=300):
    """Share of simulated worlds whose band holds the population's share."""
    rng = np.random.default_rng(5)
    big = population(rng, 400_000)
    truth = {k: share_hit(big, k).mean() for k in tries}
    found = np.zeros(len(tries))
    for _ in range(worlds):
        for number, (low, high) in enumerate(covers(rng)):
            found[number] += low <= truth[tries[number]] <= high
    return found / worlds


LEAST = 0.95 - 3 * math.sqrt(0.95 * 0.05 / 300)


@pytest.mark.parametrize("population", [log_normal, beta, rare])
def test_bands_of_counted_shares_cover(population):
    tries = [10, 100] if population is log_normal else [1, 10, 100]
    weights = draw_weights(60)[:400]

    def bands(rng):
        run = plain_run(rng.binomial(200, population(rng, 60)), 200)
        return [band(weights, count_cases(run, k, len(weights)), level=0.95) for k in tries]

    assert (coverage(population, bands, tries) >= LEAST).all()


def test_without_the_unseen_query_rare_risks_are_not_covered():
    """Negative control: the plain bootstrap of zeros has no width."""

    def bands(rng):
        hits = rng.binomial(200, rare(rng, 60))
        means = hits[rng.integers(0, 60, (500, 60))].mean(axis=1) / 200
        return [tuple(np.quantile(means, [0.025, 0.975]))]

    assert coverage(rare, bands, [1])[0] < 0.2


@pytest.mark.parametrize(("population", "sd"), [(log_normal, 0.3), (log_normal, 0.7), (beta, 0.7)])
def test_bands_by_weighted_risks_cover(population, sd):
    tries, weights = [100, 1000, 10_000], draw_weights(150)[:300]

    def bands(rng):
        noise = np.exp(sd * rng.standard_normal(150) - sd**2 / 2)
        risks = weighted_run(np.minimum(population(rng, 150) * noise, 1.0), sd).risks
        worlds = draw_risks(risks, len(weights))
        return [band(weights, worlds.after(k), level=0.95) for k in tries]

    assert (coverage(population, bands, tries) >= LEAST).all()


def test_noise_drawn_around_noisy_estimates_does_not_cover():
    """Negative control: the estimates' spread holds their errors already."""
    weights = draw_weights(150)[:300]

    def bands(rng):
        noise = np.exp(0.7 * rng.standard_normal(150) - 0.7**2 / 2)
        p = np.minimum(log_normal(rng, 150) * noise, 1.0)
        drawn = np.minimum(p * np.exp(0.7 * rng.standard_normal((len(weights), 150))), 1.0)
        values = share_hit(drawn, 10_000)
        return [band(weights, [Case(values, values, values.max(axis=1))], level=0.95)]

    assert coverage(log_normal, bands, [10_000])[0] < 0.8


def test_a_dozen_queries_do_not_bound_the_mean_of_a_heavy_tail():
    """A limit that docs/decisions.md owns up to, and not a property to keep."""
    weights = draw_weights(12)[:400]

    def bands(rng):
        run = plain_run(rng.binomial(200, log_normal(rng, 12)), 200)
        return [band(weights, count_cases(run, 1, len(weights)), level=0.95)]

    assert 0.5 < coverage(log_normal, bands, [1])[0] < LEAST


def test_queries_without_hits_are_bounded_and_not_safe():
    """Beyond the draws nothing is known of them; as zeros they would be below the truth."""
    weights, tries = draw_weights(60)[:400], [10_000]

    def bands(rng):
        risks = plain_run(rng.binomial(200, beta(rng, 60)), 200).risks
        return [band(weights, draw_risks(risks, len(weights)).after(10_000), level=0.95)]

    def as_zero(rng):
        given = rng.binomial(200, beta(rng, 60)) / 200
        values = share_hit(given, 10_000)
        return [band(weights, [Case(values, values, 1.0)], level=0.95)]

    assert coverage(beta, bands, tries)[0] >= LEAST
    assert coverage(beta, as_zero, tries)[0] < 0.5


def test_no_hit_at_all_is_no_zero():
    points = repeated_sampling(plain_run([0] * 30, 200), 10_000)
    assert all(one.share is None and one.low == 0 and one.high > 0 for one in points)
    assert points[-1].high > 0.99


# --- Deployment


def test_deployment_is_the_law_of_independent_calls():
    run = weighted_run([1e-3, 1e-5], 0.1)
    found = deployment(run, 1000.0, weights=np.array([1.0, 3.0]), monitor_recall=0.9)
    risk = (1e-3 + 3e-5) / 4
    value = {(one.name, one.past_monitor): one.value for one in found.quantities}
    assert value["risk_of_a_call", False] == pytest.approx(risk)
    assert value["harmful_a_day", False] == pytest.approx(1000 * risk)
    assert value["chance_of_one_in_a_day", False] == pytest.approx(1 - (1 - risk) ** 1000)
    assert value["days_to_the_first", False] == pytest.approx(1 / (1000 * risk))
    assert value["harmful_a_day", True] == pytest.approx(100 * risk)
    answers = value["answers_to_see_one", False]
    assert 1 - (1 - risk) ** answers >= 0.95 > 1 - (1 - risk) ** (answers - 1)
    assert found.carriers[0] == ("q0", pytest.approx(1e-3 / 4 / risk))
    for one in found.quantities:
        assert one.low <= one.value <= one.high


def test_deployment_without_hits_knows_upper_ends_alone():
    found = deployment(plain_run([0] * 20, 100), 1e6)
    known = {one.name: one for one in found.quantities}
    assert known["risk_of_a_call"].value is None and known["risk_of_a_call"].high > 0
    assert known["days_to_the_first"].high is None and known["days_to_the_first"].low > 0
    assert found.risk_at_ceilings == pytest.approx(1 - 0.05 ** (1 / 100), rel=1e-6)


@pytest.mark.parametrize("spread", [0.3, 0.6])
def test_the_mean_risk_is_covered(spread):
    def population(rng, size):
        return 10 ** rng.normal(-3, spread, size)

    def bands(rng):
        noise = np.exp(0.5 * rng.standard_normal(80) - 0.125)
        found = deployment(weighted_run(population(rng, 80) * noise, 0.5), 1.0).quantities[0]
        return [(found.low, found.high)]

    assert coverage(population, bands, [1])[0] >= LEAST


def test_calls_are_read_with_their_unit():
    assert calls_per_day("1e9/day") == 1e9
    assert calls_per_day("2/second") == pytest.approx(172_800)
    assert calls_per_day("365.25/year") == pytest.approx(1)
    for text in ("many", "1e9/fortnight", "-3/day", "0", "1e999"):
        with pytest.raises(ConfigError, match="calls must be"):
            calls_per_day(text)


# --- Comparison


@pytest.mark.parametrize("differing", [1, 3, 5])
def test_the_chance_of_an_order_is_the_sign_tests(differing):
    weights = draw_weights(30)
    zero, more = np.zeros(30), (np.arange(30) < differing).astype(float)
    one, other = Case(more, more, 1.0), Case(zero, zero, 1.0)
    assert chance_larger(weights, [one], [other]) == pytest.approx(1 - 0.5**differing, abs=0.035)


def orders_of(rng, shift, *, paired=True, runs=200):
    """Chances of the order of two runs at one try; the second has ``shift`` times the risk."""
    weights = draw_weights(60)[:400]
    for _ in range(runs):
        p = 10 ** rng.normal(-1.5, 0.7, 60)
        q = p if paired else 10 ** rng.normal(-1.5, 0.7, 60)
        hits = [rng.binomial(300, np.minimum(one, 1)) for one in (p, shift * q)]
        cases = [count_cases(plain_run(one, 300), 1, 400) for one in hits]
        lead = int(hits[1].sum() > hits[0].sum())
        yield lead, chance_larger(weights, cases[lead], cases[1 - lead])


def test_equal_models_are_seldom_told_apart_and_different_ones_are():
    rng = np.random.default_rng(3)
    null = np.mean([chance >= 0.95 for _, chance in orders_of(rng, 1.0)])
    assert null <= 0.10 + 3 * math.sqrt(0.1 * 0.9 / 200)
    told = np.mean([lead and chance >= 0.95 for lead, chance in orders_of(rng, 1.5)])
    unpaired = [lead and chance >= 0.95 for lead, chance in orders_of(rng, 1.5, paired=False)]
    assert told > 0.9
    assert np.mean(unpaired) < told - 0.4  # negative control: other queries show far less


def test_more_draws_without_a_hit_make_no_order():
    """Both never hit: 10 times the draws are no proof of a lower risk."""
    found = compare([plain_run([0] * 300, 200, "a"), plain_run([0] * 300, 2000, "b")], 1000)
    assert all(one.riskier is None and one.chance == 0 for one in found.orders)


def test_rankings_cross_where_they_do():
    """A few dangerous queries against many that are slightly so."""
    few = np.where(np.arange(100) < 10, 0.3, 1e-9)
    many = np.full(100, 1e-3)
    found = compare([weighted_run(few, 0.1, "few"), weighted_run(many, 0.1, "many")], 10_000)
    (crossing,) = found.crossings
    grid = np.geomspace(1, 10_000, 4000)
    gap = [share_hit(few, k).mean() - share_hit(many, k).mean() for k in grid]
    truth = grid[np.flatnonzero(np.diff(np.sign(gap)))[0]]
    assert (crossing.first, crossing.second) == ("few", "many")
    assert crossing.tries == pytest.approx(truth, rel=0.25)
    assert min(crossing.chance_before, crossing.chance_after) > 0.95


# --- The gate


def test_rules_are_read_and_nothing_else():
    assert str(parse_rule(" ci_high>=1e-3 ")) == "ci_high >= 0.001"
    for text in ("p", "p > ", "q > 1", "p > -1", "p = 1", "p > 1 or 1", "__import__('os')", "p>1e"):
        with pytest.raises(ConfigError, match="NAME OP NUMBER"):
            parse_rule(text)


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ("p > 0.02", True), ("p > 0.03", False), ("ci_high > 0.06", True), ("n < 200", True),
        ("p_high_guaranteed > 0.04", True), ("mean > 1e-2", True), ("mean > 0.02", False),
        ("max >= 0.03", True), ("max > 0.03", False),
    ],
)  # fmt: skip
def test_a_rule_fails_what_it_is_true_of(text, failed):
    run = plain_run([0, 3], 100)
    found = apply_rule(parse_rule(text), run, compare([run], 1).models[0])
    assert found.failed is failed, found.sentence
    if text == "p > 0.02":
        assert "1 without a hit" in found.sentence


# --- The command line


def write_run(path, hits, n=200, **changes):
    """A finished plain run as the store keeps it, with counts of the given hits."""
    from dataclasses import asdict

    from tailcast.store import RunStore
    from tailcast.types import Verdicts

    store = RunStore(path)
    queries = path.parent / "queries.csv"
    rows = "".join(f"q{i},ask,{i + 1}\n" for i in range(len(hits)))
    queries.write_text(f"id,prompt,asked\n{rows}")
    config = {
        "model": path.name, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 8,
        "judge": "refusal", "threshold": 0.5, "queries": str(queries),
    }  # fmt: skip
    config.update(changes)
    store.write_json("manifest.json", {"config": config, "facts": {"queries": "digest"}})
    rows = []
    for number, count in enumerate(hits):
        name, hit = f"q{number}", np.arange(n) < count
        one = monte_carlo(hit)
        rows.append({**asdict(one), "query_id": name, "prompt": "ask"})
        place = path / "samples" / "mc" / name
        place.mkdir(parents=True)
        (place / f"00000000-{n:08d}.parquet").touch()
        store.write_verdicts(
            "mc", name, (0, n), Verdicts(hit.astype(float), hit, ("",) * n, np.ones(n))
        )
    store.write_lines("estimates.jsonl", rows)
    return path


def test_the_gate_sets_the_exit_code(capsys, tmp_path):
    old = write_run(tmp_path / "old", [0, 1, 4, 0])
    new = write_run(tmp_path / "new", [3, 9, 30, 8])
    assert call(capsys, "compare", old, new)[0] == 0
    code, out, _ = call(capsys, "compare", old, new, "--fail-if-worse", 0.5, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    gate = next(one for one in rows if one["kind"] == "gate")
    assert code == 1 and gate["failed"] and "+1.00 decades" in gate["sentence"]
    assert call(capsys, "compare", new, old, "--fail-if-worse", 0.5)[0] == 0
    assert call(capsys, "compare", old, new, "--fail-if-worse", 1.1)[0] == 0
    code, out, _ = call(capsys, "compare", old, new, "--fail-if", "p > 0.1", "--fail-if", "n<10")
    assert code == 1 and "gate p > 0.1: FAILED" in out and "gate n < 10: passed" in out
    assert call(capsys, "compare", new, "--fail-if", "max > 0.5")[0] == 0


@pytest.mark.parametrize("unequal", [{"screen": "refusal"}, {"roulette": 0.5}])
def test_hits_that_count_unequally_are_not_counted(tmp_path, unequal):
    plain = read_run(write_run(tmp_path / "plain", [3, 9, 30, 8])).plain
    assert plain is not None and plain.hits.tolist() == [3, 9, 30, 8]
    assert read_run(write_run(tmp_path / "unequal", [3, 9, 30, 8], **unequal)).plain is None


def test_a_baseline_needs_two_files_alone(capsys, tmp_path):
    now = write_run(tmp_path / "now", [0, 1, 4, 0])
    (tmp_path / "baseline").mkdir()
    for name in ("manifest.json", "estimates.jsonl"):
        (tmp_path / "baseline" / name).write_bytes((now / name).read_bytes())
    code, out, _ = call(capsys, "compare", tmp_path / "baseline", now, "--fail-if-worse", 0)
    assert code == 0 and "neither" in out and "passed" in out


def test_the_example_of_a_gate_is_a_config_and_its_rules_are_rules():
    import re
    from pathlib import Path

    from tailcast.config import make_config
    from tailcast.toml import read_toml

    examples = Path(__file__).parent.parent / "examples"
    make_config(read_toml(examples / "release-gate.toml"))
    rules = re.findall('--fail-if "(.+?)"', (examples / "release-gate.yml").read_text())
    assert [str(parse_rule(one)) for one in rules] == ["p_low > 0.2"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"temperature": 0.7}, "temperature differ: 1.0 and 0.7"),
        ({"judge": "pattern:x"}, "judge differ: 'refusal' and 'pattern:x'"),
        ({"threshold": 0.75}, "threshold differ: 0.5 and 0.75"),
        ({"max_new_tokens": 9}, "max_new_tokens differ: 8 and 9"),
    ],
)
def test_runs_that_are_no_equals_are_refused(capsys, tmp_path, changes, named):
    one = write_run(tmp_path / "one", [0, 1])
    two = write_run(tmp_path / "two", [0, 1], **changes)
    for verb in (["compare"], ["analyse", "repeated"]):
        code, _, err = call(capsys, *verb, one, two)
        assert code == 2 and named in err


def test_mistakes_are_one_sentence(capsys, tmp_path):
    run = write_run(tmp_path / "run", [0, 5, 2])
    other = write_run(tmp_path / "other", [1, 2])
    (tmp_path / "empty").mkdir()
    for words, said in [
        (["compare", run, other], "number of queries differ: 3 and 2"),
        (["compare", run, run], "named twice"),
        (["compare", run, tmp_path / "none"], "does not exist"),
        (["compare", tmp_path / "empty"], "no run directory"),
        (["compare", run, "--fail-if", "risk > 1"], "NAME OP NUMBER"),
        (["compare", run, "--fail-if-worse", "0.5"], "needs two runs"),
        (["compare", run, "--tries", "0.5"], "whole number"),
        (["analyse", "repeated", run, "--greedy", run], "is not greedy"),
        (["analyse", "deployment", run, "--calls", "lots"], "calls must be"),
        (["analyse", "deployment", run, "--calls", "9/day", "--weights", "no"], "no column 'no'"),
        (["analyse", "deployment", run, "--calls", "9", "--monitor-recall", "2"], "lie in [0, 1]"),
        (["analyse", "repeated", run, "--level", "1.5"], "level must lie in (0, 1)"),
    ]:
        code, _, err = call(capsys, *words)
        assert code == 2 and said in " ".join(err.split()), (words, err)


def test_weights_come_from_a_column_or_a_file(capsys, tmp_path):
    run = write_run(tmp_path / "run", [0, 0, 40])
    table = tmp_path / "weights.csv"
    table.write_text("id,weight\nq2,1\nq0,9\nq1,0\nother,5\n")
    for source, risk in [(None, 0.2 / 3), ("asked", 0.2 / 2), (table, 0.2 / 10)]:
        words = ["analyse", "deployment", run, "--calls", "1e3/day", "--json"]
        code, out, _ = call(capsys, *words, *([] if source is None else ["--weights", source]))
        value = json.loads(out)["quantities"][0]["value"]
        assert code == 0 and value == pytest.approx(risk)


def test_greedy_is_said_to_be_missing_or_read_from_a_greedy_run(capsys, tmp_path):
    run = write_run(tmp_path / "run", [0, 5, 200], model="m")
    greedy = write_run(tmp_path / "greedy", [0, 0, 1], 1, model="m", top_k=1)
    code, out, _ = call(capsys, "analyse", "repeated", run, "--tries", "1e3")
    assert code == 0 and "no greedy answers" in out
    picture = tmp_path / "curve.png"
    words = ["analyse", "repeated", run, "--greedy", greedy, "--json", "--plot", picture]
    code, out, _ = call(capsys, *words)
    first = json.loads(out.splitlines()[0])
    assert code == 0 and first["route"] == "greedy" and first["share"] == pytest.approx(1 / 3)
    assert (first["low"], first["high"]) == pytest.approx(clopper_pearson(1, 3))
    assert picture.stat().st_size > 10_000
    other = write_run(tmp_path / "third", [0, 0, 1], 1, model="else", top_k=1)
    code, _, err = call(capsys, "analyse", "repeated", run, "--greedy", other)
    assert code == 2 and "model differ" in err


def test_target_draws_among_a_mixtures_rounds_are_counted(capsys, tmp_path):
    """On a model on disk: the target's draws of the rounds agree with the exact risk."""

    from tailcast.steering import save_steering
    from tailcast.types import SteeringVector

    model = save_model(tmp_path / "model")
    direction = np.random.default_rng(0).normal(size=16).astype(np.float32)
    save_steering([SteeringVector("add", 1, direction)], tmp_path / "v.safetensors")
    (tmp_path / "q.jsonl").write_text('{"id": "a", "prompt": "tell me"}\n')
    code, _, err = call(
        capsys, "estimate", "--model", model, "--queries", tmp_path / "q.jsonl", "--judge",
        "pattern:two.*two", "--max-new-tokens", 3, "--samples", 1000, "--quiet", "--steering",
        tmp_path / "v.safetensors", "--defence", 0.4, "--out", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, err
    plain = read_run(tmp_path / "run").plain
    truth = exact_risk(model, "tell me", "two", 3)
    n = int(plain.n[0])
    assert n > 300 and plain.failed[0] == 0
    assert abs(plain.hits[0] / n - truth) < 4 * math.sqrt(truth * (1 - truth) / n)
