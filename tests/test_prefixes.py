"""Equal prefixes are computed once, and running out of slots loses neither work nor law."""

import gc
import weakref

import numpy as np
import pytest

from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, draw
from tailcast.sampling.kinds import Part
from tailcast.sampling.prefixes import PrefixTree
from tailcast.types import SamplingSettings

SETTINGS = SamplingSettings(max_new_tokens=6)


def requests(target, query, proposal, count):
    prompt = target.encode(query)
    return [DrawRequest(query.id, prompt, proposal, i, f"s/{i}") for i in range(count)]


def distinct(batch, steered):
    """Prefixes that laws were needed of: all but the finished completions themselves."""
    rows = zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)
    return len({tuple(row[:k]) for row, n in rows for k in range(min(n, steered))})


def test_every_distinct_prefix_is_computed_once(tabular, unit, query):
    proposal = Proposal(1.0, 3, 0.1)
    [batch] = draw(
        tabular, requests(tabular, query, proposal, 500), SETTINGS, steering=unit, slots=10_000
    )
    assert batch.token_forwards == distinct(batch, 6) + distinct(batch, 3)
    assert batch.token_forwards < 0.5 * batch.lengths.sum()


@pytest.mark.parametrize("slots", [2, 3, 7, 30])
def test_few_slots_draw_the_same_completions(tabular, unit, query, slots):
    mixed = [Proposal(1.0, 3, 0.1), Proposal(0.5, 6, 0.0), Proposal.target()]
    prompt = tabular.encode(query)
    wanted = [DrawRequest("q", prompt, mixed[i % 3], i, f"s/{i}") for i in range(150)]
    [many] = draw(tabular, wanted, SETTINGS, steering=unit, slots=10_000)
    [few] = draw(tabular, wanted, SETTINGS, steering=unit, slots=slots)
    assert (many.tokens == few.tokens).all()
    np.testing.assert_array_equal(many.token_logp, few.token_logp)
    np.testing.assert_array_equal(many.token_logs, few.token_logs)
    assert few.token_forwards >= many.token_forwards


class State:
    def __init__(self, kept):
        self.kept = kept


class Watched:
    """A target whose stream counts open slots and keeps an eye on saved states."""

    def __init__(self, target):
        self.target, self.open_slots, self.most, self.states = target, 0, 0, []

    def __getattr__(self, name):
        return getattr(self.target, name)

    def stream(self, steering, **sizes):
        self.inner = self.target.stream(steering, **sizes)
        return self

    def open(self, prompt, strength, state=None):
        self.inner.open(prompt, strength, state.kept if state else None)
        self.most = max(self.most, len(self.inner.state))

    def save(self, slot):
        assert 0 <= slot < len(self.inner.state)
        state = State(self.inner.save(slot))
        self.states.append(weakref.ref(state))
        return state

    def close(self, slots):
        return self.inner.close(slots)

    def push(self, tokens):
        return self.inner.push(tokens)


def test_no_more_slots_are_open_than_there_are_and_states_are_freed(tabular, unit, query):
    watched = Watched(tabular)
    wanted = requests(watched, query, Proposal(1.0, 4, 0.1), 100)
    draw(watched, wanted, SETTINGS, steering=unit, slots=5)
    assert watched.most == 5 and len(watched.states) > 10
    gc.collect()
    assert not any(state() for state in watched.states)


def test_a_claim_that_is_left_out_of_a_step_is_noticed(tabular, unit, query):
    tree = PrefixTree({"": tabular.stream(unit, slots=4, max_new_tokens=6)}, 4)
    root = tree.root("q", Part(tabular.encode(query)))
    tree.step([[root]])
    forgotten, other = root.then(1), root.then(2)
    tree.step([[other]])
    with pytest.raises(AssertionError, match="left out"):
        tree.step([[forgotten]])
