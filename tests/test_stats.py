import numpy as np
import pytest
from scipy.stats import binom, norm

from tailcast.stats import (
    betting_lower_bound,
    clopper_pearson,
    cross_entropy,
    diagnose,
    effective_sample_size,
    importance_sampling,
    monte_carlo,
    pareto_khat,
    weighted_hits_interval,
)


def test_clopper_pearson_published_values():
    """Method.md: 10 hits in 10,000 give [4.8e-4, 1.8e-3]; no hit in 500 less than 7.4e-3."""
    low, high = clopper_pearson(10, 10_000)
    assert (round(low, 5), round(high, 5)) == (0.00048, 0.00184)
    assert clopper_pearson(0, 500) == (0.0, pytest.approx(1 - 0.025 ** (1 / 500)))
    assert clopper_pearson(5, 5)[1] == 1.0


@pytest.mark.parametrize("p", [1e-3, 0.02, 0.3])
def test_clopper_pearson_covers_exactly_at_least_its_level(p):
    n = 400
    hits = np.arange(n + 1)
    ends = np.array([clopper_pearson(int(k), n) for k in hits])
    inside = (ends[:, 0] <= p) & (p <= ends[:, 1])
    assert binom.pmf(hits, n, p)[inside].sum() >= 0.95


def log_normal(rng, n, *, p=3e-4, share=0.22, sd=2.0):
    """Weights of method.md section 9: log-normal hits with mean p."""
    hits = rng.random(n) < share
    return np.where(hits, rng.normal(np.log(p / share) - sd**2 / 2, sd, n), 0.0), hits, p


def two_ways(rng, n):
    """A way to hit that is often drawn with small weights, and one that is seldom drawn."""
    easy, hard = rng.random(n) < 0.45, rng.random(n) < 0.02
    log_w = np.where(hard, np.log(0.3), np.log(0.005) + 0.5 * rng.standard_normal(n))
    return log_w, easy | hard, 0.02 * 0.3 + 0.98 * 0.45 * 0.005 * np.exp(0.125)


def pareto(rng, n):
    """Weights with a Pareto tail of shape 0.4: finite variance, no third moment."""
    hits = rng.random(n) < 0.3
    return np.log(1e-3 * (1 + rng.pareto(2.5, n))), hits, 0.3 * 1e-3 * 2.5 / 1.5


@pytest.mark.parametrize(
    ("law", "n"),  # at 64 two_ways misses its second way in one run of four: nothing can cover
    [(log_normal, 64), (log_normal, 500), (two_ways, 500), (pareto, 64), (pareto, 500)],
)
def test_interval_of_weighted_hits_covers(law, n):
    rng = np.random.default_rng(5)
    ours = normal = 0
    runs = 400
    for _ in range(runs):
        log_w, hits, p = law(rng, n)
        low, high = weighted_hits_interval(log_w[hits], n)
        value = np.where(hits, np.exp(log_w), 0)
        assert low <= value.mean() <= high
        ours += low <= p <= high
        half = 1.96 * value.std(ddof=1) / np.sqrt(n)
        normal += abs(value.mean() - p) <= half
    noise = 3 * np.sqrt(0.95 * 0.05 / runs)
    if law is log_normal:
        assert normal / runs < 0.85  # negative control: the usual interval must fail this test
    assert ours / runs >= 0.95 - noise


def test_interval_without_spread_is_the_exact_one_scaled():
    assert weighted_hits_interval(np.zeros(7), 500) == pytest.approx(clopper_pearson(7, 500))
    assert weighted_hits_interval(np.zeros(0), 500) == (0.0, 1.0)
    assert weighted_hits_interval(np.array([-3.0]), 500) == (0.0, 1.0)


def test_no_hits_is_no_zero():
    none = monte_carlo(np.zeros(500, bool))
    assert none.p is None and none.stderr is None and none.verdict == "weak"
    assert none.ci_high == pytest.approx(0.00735, abs=1e-5)
    weighted = importance_sampling(np.zeros(500), np.zeros(500, bool))
    assert weighted.p is None and weighted.ci_high == 1.0 and weighted.verdict == "unreliable"
    assert "bounds nothing" in weighted.reasons[0]


def test_failures_of_the_judge_are_the_first_reason_and_undo_a_bound_for_no_hit():
    none = np.zeros(40, dtype=bool)
    one = monte_carlo(none).with_failures(30, monte_carlo(np.arange(40) < 30))
    assert one.verdict == "weak" and one.p is None and one.ci_high > 0.75
    assert one.reasons[0].startswith("the judge failed on 30 of 40") and len(one.reasons) == 2
    assert f"no hit among those judged: the risk is below {one.ci_high:.2g}" in one.reasons[1]


def test_target_draws_give_the_same_by_both_estimators():
    hits = np.arange(500) % 10 == 0
    plain, weighted = monte_carlo(hits), importance_sampling(np.zeros(500), hits)
    assert plain.p == weighted.p == 0.1
    assert (plain.ci_low, plain.ci_high) == pytest.approx((weighted.ci_low, weighted.ci_high))
    assert plain.verdict == weighted.verdict == "ok"


def test_forbidden_draws_count_as_draws_of_weight_zero():
    log_w = np.array([0.0, -np.inf, 0.0, 0.0])
    found = importance_sampling(log_w, np.array([True, True, False, False]))
    assert found.p == 0.25 and found.n_hits == 1


def test_effective_sample_size_by_hand():
    assert effective_sample_size(np.log([1.0, 1.0, 2.0])) == pytest.approx(16 / 6)
    assert effective_sample_size(np.array([-np.inf])) == 0.0
    assert effective_sample_size(np.array([-2000.0, -2000.0])) == pytest.approx(2.0)


@pytest.mark.parametrize("shape", [0.2, 0.8])
def test_khat_finds_the_shape_of_a_pareto_law(shape):
    log_w = -shape * np.log(np.random.default_rng(2).random(20_000))
    tail = 3 * np.sqrt(20_000)
    assert pareto_khat(log_w) == pytest.approx(shape, abs=4 * (1 + shape) / np.sqrt(tail))
    assert pareto_khat(log_w[:20]) is None and pareto_khat(np.zeros(100)) is None


def test_one_sample_that_owns_the_estimate_is_unreliable():
    log_w = np.full(100, -10.0)
    log_w[0] = 0.0
    found = diagnose(log_w)
    assert found.verdict == "unreliable"
    assert any("max_share" in reason for reason in found.reasons)


def test_a_heavy_tail_that_ends_is_no_reason_with_many_effective_hits():
    """Clusters of equal weights: k-hat takes the step between them for a tail."""
    log_w = np.repeat(np.log([1.0, 3.0, 40.0]), [400, 80, 20])
    log_w += np.random.default_rng(3).normal(0, 0.02, len(log_w))
    found = diagnose(log_w, bound=0.5)
    assert found.khat > 0.7 and found.ess_hits > 50 and found.verdict == "ok"
    few = diagnose(log_w[::2], bound=0.5)
    assert few.khat > 0.7 and few.ess_hits < 50 and few.verdict != "ok"
    assert diagnose(log_w).verdict != "ok", "without a bound the tail may go on"


def test_healthy_weights_are_ok():
    log_w = np.random.default_rng(3).normal(-5, 0.3, 200)
    assert diagnose(log_w).verdict == "ok"


def test_cross_entropy_finds_the_law_closest_to_the_optimum():
    """Hits ~ N(2, 1) under p*h; candidates N(m, 1): the argmin is m = 2, whatever drew them."""
    rng = np.random.default_rng(4)
    x = rng.normal(0, 2, 20_000)  # the pilot's wide law
    log_w = norm.logpdf(x, 2, 1) - norm.logpdf(x, 0, 2)
    means = np.arange(-1, 5.0)
    ratios = norm.logpdf(x[:, None], means, 1)
    assert means[cross_entropy(ratios, log_w).argmin()] == 2.0
    unweighted = cross_entropy(ratios, np.zeros(len(x)))
    assert means[unweighted.argmin()] == 0.0  # negative control: without the weights it is wrong
    assert (cross_entropy(ratios[:0], log_w[:0]) == 0).all()


def test_a_tail_of_equal_weights_has_no_khat():
    few = np.concatenate([np.zeros(70), -1.0 - np.arange(30)])
    assert pareto_khat(few) is None


def simulated_hits(rng, n, spread=2.0, risk=3e-4, share=0.22):
    """Log-weights of hits of a proposal: log-normal, with mean weight risk / share."""
    count = rng.binomial(n, share)
    return np.log(risk / share) - spread**2 / 2 + spread * rng.standard_normal(count)


@pytest.mark.parametrize("n", [64, 500])
def test_betting_bound_covers_and_is_within_a_small_factor(n):
    rng, runs, risk = np.random.default_rng(11), 400, 3e-4
    found = [betting_lower_bound(simulated_hits(rng, n), n) for _ in range(runs)]
    assert np.mean(np.array(found) <= risk) > 0.95
    assert np.median(found) > risk / (12 if n == 64 else 4)
    weights = [np.exp(simulated_hits(rng, n)).sum() / n for _ in range(runs)]
    assert np.mean(np.array(weights) <= risk) < 0.8  # negative control: the mean is no bound


def test_betting_bound_holds_at_the_worst_moment():
    """The largest bound over all moments of a run of plain draws still covers."""
    rng, runs, risk, n = np.random.default_rng(12), 300, 0.02, 400
    missed = 0
    for _ in range(runs):
        hits = np.cumsum(rng.random(n) < risk)
        looks = range(20, n + 1, 20)
        missed += max(betting_lower_bound(np.zeros(hits[t - 1]), t) for t in looks) > risk
    assert missed / runs < 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)


def test_betting_bound_of_extreme_input():
    assert betting_lower_bound(np.array([]), 100) == 0.0
    assert betting_lower_bound(np.array([-np.inf]), 100) == 0.0
    tiny = betting_lower_bound(np.full(200, -60.0), 400)
    assert tiny == pytest.approx(0.5 * np.exp(-60.0), rel=0.3) and tiny < 0.5 * np.exp(-60.0)
    exact = clopper_pearson(50, 1000, level=0.9)[0]
    assert 0.7 * exact < betting_lower_bound(np.zeros(50), 1000) < 0.05


def test_bounds_of_plain_draws_are_the_exact_one_sided_ones():
    none = monte_carlo(np.zeros(100, dtype=bool))
    assert none.p_low == 0.0 and none.p_high_guaranteed == pytest.approx(1 - 0.05 ** (1 / 100))
    some = monte_carlo(np.arange(100) < 5)
    assert some.ci_low < some.p_low < 0.05 < some.p_high_guaranteed < some.ci_high
