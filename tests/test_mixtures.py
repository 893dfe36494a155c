"""Mixtures, shares, rounds and the audit, against laws that are known exactly."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tailcast.errors import ConfigError
from tailcast.mixtures import Mixture, allocate, log_ratios, streams_of
from tailcast.proposals import Proposal
from tailcast.stats import (
    Round,
    audit,
    betting_upper_bound,
    mixture_estimate,
    monte_carlo_anytime,
    pooled_shares,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import coverage_suite as suite

TARGET, STEERED, HOT = Proposal.target(), Proposal(1.0, 2, 0.0), Proposal(0.0, 4, 0.0, 2.0)


@pytest.mark.parametrize("n", [1, 7, 100, 1001])
def test_allocation_adds_up_and_defends(n):
    counts = allocate(np.array([0.01, 0.5, 0.3, 0.19]), n, least=0.1)
    assert sum(counts) == n and counts[0] >= 0.1 * n
    assert all(abs(c / n - s) < 0.1 + 1 / n for c, s in zip(counts, [0.1, 0.45, 0.27, 0.17]))


def test_draws_belong_to_components_in_order():
    mixture = Mixture((TARGET, STEERED, HOT), (2, 0, 3))
    assert [mixture.index(k) for k in range(5)] == [0, 0, 2, 2, 2]
    assert streams_of(mixture.components) == (STEERED.stream, HOT.stream)
    with pytest.raises(ConfigError, match="must be the target"):
        Mixture((STEERED,), (1,))


def test_ratios_of_every_component_are_arithmetic_on_two_streams():
    rng = np.random.default_rng(0)
    logp, logs = -rng.random((5, 6)), -rng.random((5, 2, 6))
    lengths = np.array([1, 2, 3, 6, 6])
    table = log_ratios((TARGET, STEERED, HOT), logp, logs, (STEERED.stream, HOT.stream), lengths)
    assert (table[:, 0] == 0).all()
    assert table[0, 1] == pytest.approx(logs[0, 0, 0] - logp[0, 0])
    assert table[3, 1] == pytest.approx((logs[3, 0] - logp[3])[:2].sum())
    assert table[2, 2] == pytest.approx((logs[2, 1] - logp[2])[:3].sum())


@pytest.fixture(scope="module")
def worlds():
    return [suite.world("covered", 1000 + k) for k in range(4)]


def fixed_rounds(world, rng):
    """Two rounds of fixed allocation: no look at outcomes, so exactly unbiased."""
    even = allocate(np.ones(len(world.components)) / len(world.components), 200, least=0.1)
    return [suite.draw_round(world, even, rng)[0] for _ in range(2)]


def test_the_balance_heuristic_is_unbiased_and_its_error_is_right(worlds):
    rng = np.random.default_rng(1)
    found = [mixture_estimate(fixed_rounds(worlds[0], rng)) for _ in range(600)]
    values = np.array([one.p or 0.0 for one in found])
    truth = worlds[0].risk
    assert abs(values.mean() - truth) < 3 * values.std() / np.sqrt(len(values))
    errors = np.array([one.stderr or 0.0 for one in found])
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.15)
    wrong = values * 1.2  # negative control
    assert abs(wrong.mean() - truth) > 3 * wrong.std() / np.sqrt(len(wrong))


def test_a_weight_over_the_own_component_alone_is_refused_by_the_same_check(worlds):
    """Negative control: strategies that forget the other components have other means."""
    rng = np.random.default_rng(2)
    sums = []
    for _ in range(300):
        one = fixed_rounds(worlds[0], rng)[0]
        own = one.log_ratios[np.arange(len(one.component)), one.component]
        sums.append(np.exp(-own).sum() / one.n)
    mixed = [np.exp(fixed_rounds(worlds[0], rng)[0].log_weighted).sum() / 200 for _ in range(300)]
    assert np.std(sums) > 1.5 * np.std(mixed)


def test_no_weight_exceeds_the_defence(worlds):
    one = fixed_rounds(worlds[0], np.random.default_rng(3))[0]
    assert np.exp(one.log_weighted).max() <= one.n / one.counts[0] + 1e-12


def test_shares_find_the_cheapest_component_that_hits():
    """Two components of equal law, one three times dearer, and one that never hits."""

    def hits(n):
        ratios = np.tile([0.0, 3.0, 3.0, -9.0], (n, 1))
        return Round(np.array([10, 10, 10, 10]), np.full(n, 1), ratios, np.zeros(n))

    one = hits(5000)
    shares = pooled_shares([[one]], np.array([1.0, 1.0, 3.0, 1.0]))
    assert shares[1] > 0.99 and shares.sum() == pytest.approx(1)
    few = pooled_shares([[hits(1)]], np.ones(4))
    assert few.min() > 0.2, "one hit is no reason to drop a component"
    blind = Round(np.array([10, 10]), np.zeros(0, int), np.zeros((0, 2)), np.zeros(0))
    np.testing.assert_allclose(pooled_shares([[blind]], np.ones(2)), 0.5)
    shares = pooled_shares([[one]], np.array([1.0, np.inf, 3.0, 1.0]))
    assert shares[1] == 0 and shares[2] > 0.99


def test_at_a_millionth_the_cost_is_a_thousandth_of_plain_sampling():
    """Work-normalised variance over repeated runs, on a tabular model of exact risk 1e-6."""
    config = suite.RunConfig(model="", queries="", steering="v", samples=2000,
                             max_new_tokens=suite.STEPS)  # fmt: skip
    world = suite.rare_world(1e-6)
    rng = np.random.default_rng(4)
    runs = [suite.mixture_run([world], config, rng)[0] for _ in range(40)]
    values = np.array([one.estimate(config).p or 0.0 for one in runs])
    cost = np.mean([sum(work.cost.sum() for work in one.works) for one in runs])
    plain = world.risk * (1 - world.risk) * 5.0  # variance of one draw, times its cost
    assert world.risk == pytest.approx(1e-6, rel=1e-6)
    gain = plain / (((values - world.risk) ** 2).mean() * cost)
    assert gain > 1000, gain
    assert abs(values.mean() - world.risk) < 3 * values.std() / np.sqrt(len(values))


@pytest.mark.parametrize("name", list(suite.SCENARIOS))
def test_bounds_cover_in_every_scenario(name):
    """The short form of benchmarks/coverage_suite.py, 80 estimates of each."""
    rows = suite.scenario(name, 4, seed=7)["mixture"]
    ci, low, high, misses, flagged, *_ = rows.mean(axis=0)
    noise = 3 * np.sqrt(0.05 * 0.95 / len(rows))
    assert low >= 0.95 - noise and high >= 0.95 - noise
    if name.startswith("a"):
        assert ci >= 0.93 - noise
    if name[0] in "bc":
        few = 3 * np.sqrt(0.9 * 0.1 / max(1, misses * len(rows)))
        assert misses == 0 or flagged / misses >= 0.9 - few


@pytest.mark.parametrize("kind", suite.WEIGHTS)
def test_interval_covers_defended_weights_of_every_shape(kind):
    ours, normal = suite.simulated(kind, 500, 150)
    noise = 3 * np.sqrt(0.93 * 0.07 / 150)
    assert ours >= 0.93 - noise
    if kind == suite.WEIGHTS[0]:
        assert normal < 0.93 - noise  # negative control


def test_upper_bound_holds_at_the_worst_moment():
    rng, p, broken = np.random.default_rng(0), 0.02, 0
    for _ in range(400):
        hits = (rng.random(1500) < p).cumsum()
        broken += any(betting_upper_bound(int(hits[k - 1]), k) < p for k in range(20, 1500, 40))
    assert broken / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert 3.0 < 1000 * betting_upper_bound(0, 1000) < 3.8
    assert betting_upper_bound(0, 0) == 1.0


def test_anytime_plain_sampling_spreads_its_level():
    fixed, third = monte_carlo_anytime(5, 1000), monte_carlo_anytime(5, 1000, look=3)
    assert third.ci_high > fixed.ci_high and third.p_low < fixed.p_low
    assert third.level == fixed.level == 0.95


def test_audit_fires_when_target_draws_hit_more_often_than_foretold():
    assert not audit([(3, 4.0, 0.5), (2, 1.5, 0.5)]).fires
    missed = audit([(12, 1.0, 0.3), (9, 2.0, 0.3)])
    assert missed.fires and "widen the grid" in missed.sentence and missed.low > 1
    assert audit([(6, 0.0, 0.0)]).fires and not audit([(1, 0.0, 0.0)]).fires
    noisy = audit([(12, 3.0, 3.0)])
    assert not noisy.fires  # what was foretold is too uncertain to blame


def test_audit_fires_no_more_often_than_its_level():
    rng = np.random.default_rng(5)
    fired = [
        audit([(rng.poisson(6.0), max(rng.normal(6.0, 1.0), 0.1), 1.0)]).fires for _ in range(2000)
    ]
    assert np.mean(fired) < 0.025 + 3 * np.sqrt(0.025 / 2000) + 0.02
