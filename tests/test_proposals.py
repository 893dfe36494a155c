import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailcast.errors import ConfigError, NumericsError
from tailcast.proposals import Proposal, ProposalGrid, log_weights

RNG = np.random.default_rng(1)
LOGP = np.log(RNG.uniform(0.01, 1, (50, 6)))
LOGS = np.log(RNG.uniform(0.01, 1, (50, 6)))
LENGTHS = RNG.integers(1, 7, 50)


def by_hand(row, switch, mix):
    total = 0.0
    for step in range(min(switch, LENGTHS[row])):
        p, s = np.exp(LOGP[row, step]), np.exp(LOGS[row, step])
        total += np.log(p) - np.log((1 - mix) * s + mix * p)
    return total


@pytest.mark.parametrize("switch", [0, 1, 3, 6])
@pytest.mark.parametrize("mix", [0.0, 0.2, 1.0])
def test_log_weights_equal_the_definition_written_out(switch, mix):
    weights = log_weights(LOGP, LOGS, LENGTHS, switch=switch, mix=mix)
    expected = [by_hand(row, switch, mix) for row in range(50)]
    np.testing.assert_allclose(weights, expected, atol=1e-12)


@pytest.mark.parametrize(("switch", "mix"), [(0, 0.3), (4, 1.0)])
def test_the_target_itself_has_weight_one_exactly(switch, mix):
    assert (log_weights(LOGP, LOGS, LENGTHS, switch=switch, mix=mix) == 0.0).all()


def test_equal_streams_have_weight_one_exactly():
    """Strength 0: both streams gave the same numbers."""
    weights = log_weights(LOGP, LOGP, LENGTHS, switch=6, mix=0.0)
    assert (weights == 0.0).all()


def test_tokens_after_the_switch_are_never_looked_at():
    poisoned = LOGS.copy()
    poisoned[:, 2:] = np.nan
    clean = log_weights(LOGP, LOGS, LENGTHS, switch=2, mix=0.1)
    assert (log_weights(LOGP, poisoned, LENGTHS, switch=2, mix=0.1) == clean).all()


@given(st.floats(0.01, 0.99), st.integers(1, 6))
def test_mix_bounds_the_weight(mix, switch):
    """The free invariant of architecture.md: log w <= -switch log mix."""
    weights = log_weights(LOGP, LOGS, LENGTHS, switch=switch, mix=mix)
    assert weights.max() <= -switch * np.log(mix) + 1e-9


def test_end_token_counts_when_it_falls_before_the_switch():
    """Trap 1 of the paper's code: the step that draws the end token is part of the sequence."""
    logp, logs = np.log([[0.5, 0.1]]), np.log([[0.5, 0.4]])
    weight = log_weights(logp, logs, np.array([2]), switch=2, mix=0.0)
    np.testing.assert_allclose(np.exp(weight), 0.25)
    dropped = log_weights(logp, logs, np.array([1]), switch=2, mix=0.0)
    assert np.exp(dropped) == 1.0  # what dropping it would give


def test_a_token_that_the_target_forbids_weighs_nothing():
    logp = np.array([[-np.inf, -1.0]])
    assert log_weights(logp, np.array([[-1.0, -1.0]]), np.array([2]), switch=2, mix=0.0) == -np.inf


def test_a_token_that_the_proposal_forbids_is_an_error_and_mix_mends_it():
    logp, logs = np.array([[-1.0]]), np.array([[-np.inf]])
    with pytest.raises(NumericsError, match="raise mix above 0"):
        log_weights(logp, logs, np.array([1]), switch=1, mix=0.0)
    weight = log_weights(logp, logs, np.array([1]), switch=1, mix=0.5)
    np.testing.assert_allclose(np.exp(weight), 2.0)


def test_grid_ratios_equal_each_proposals_own():
    grid = ProposalGrid((0.5, 1.0), (1, 3, 6), (0.0, 0.25))
    ratios = grid.log_ratios(LOGP, np.stack([LOGS, LOGS + 0.1], 1), LENGTHS)
    for index, proposal in enumerate(grid):
        logs = LOGS + (0.1 if proposal.strength == 1.0 else 0.0)
        own = -log_weights(LOGP, logs, LENGTHS, switch=proposal.switch, mix=proposal.mix)
        np.testing.assert_allclose(ratios.reshape(50, -1)[:, index], own, atol=1e-12)
    marginal = np.log(np.exp(ratios.reshape(50, -1)).mean(1))
    np.testing.assert_allclose(grid.log_marginal_ratio(ratios), marginal, atol=1e-12)


def test_every_proposal_of_a_grid_is_drawn_equally_often():
    grid = ProposalGrid((0.5, 1.0), (1, 3), (0.0, 0.25, 0.5))
    drawn = [grid.draw(u) for u in (np.arange(120) + 0.5) / 120]
    assert {drawn.count(one) for one in grid} == {10}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2", "STRENGTH,SWITCH,MIX"),
        ("a,2,0", "STRENGTH"),
        ("1,2,0,1,4", "STRENGTH"),
        ("1,2,0,0", "heat"),
        ("1,-2,0", "-2"),
        ("1,2,1.5", r"outside \[0, 1\]"),
        ("nan,2,0", "finite"),
    ],
)
def test_bad_proposals_are_refused_in_words(text, message):
    with pytest.raises(ConfigError, match=message):
        Proposal.parse(text)


def test_parse_reads_what_is_written():
    assert Proposal.parse("0.75,8,0.1") == Proposal(0.75, 8, 0.1)
    assert Proposal.target().is_target and not Proposal(0.75, 8, 0.1).is_target
