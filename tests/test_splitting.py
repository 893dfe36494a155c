"""Splitting is unbiased for any score, against enumeration; every shortcut is not."""

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest

from tailcast.sampling import OpeningOdds
from tailcast.sampling import swarm as swarms
from tailcast.sampling.splitting import SplitRequest, split
from tailcast.sampling.stops import Stops
from tailcast.types import SamplingSettings

STEPS = 6
SETTINGS = SamplingSettings(max_new_tokens=STEPS)
RUNS, SIZE = 2000, 16


def hits(text):
    return text.split().count("4") >= 2


class Scored:
    """A score that is a plain function of the response's tokens."""

    cap = math.inf

    def __init__(self, function):
        self.function = function

    def usual(self, query_id):
        return ()

    def stream(self, target, *, slots, max_new_tokens):
        return target.stream(None, slots=slots, max_new_tokens=max_new_tokens)

    def read(self, stream, prefixes, slots, logits):
        return [self.function(tokens) for _, tokens in prefixes]


def chance_of(target, prompt):
    """The log of the exact risk given a prefix: the best score there is."""
    table = target.table - np.logaddexp.reduce(target.table, axis=-1, keepdims=True)

    @cache
    def chance(length, previous, fours):
        if fours >= 2:
            return 1.0
        if length == STEPS or (length and previous == target.end):
            return 0.0
        return sum(
            math.exp(logp) * chance(length + 1, token, fours + (token == 4))
            for token, logp in enumerate(table[length, previous])
        )

    return lambda tokens: math.log(
        chance(len(tokens), tokens[-1] if tokens else prompt[-1], tokens.count(4)) or 1e-12
    )


def scores_of(target, query):
    return {
        "constant": lambda tokens: 0.0,
        "useless": lambda tokens: math.sin(1000.0 * sum((k + 1) * t for k, t in enumerate(tokens))),
        "tied": lambda tokens: float(tokens.count(4)),
        "few values": lambda tokens: float(sum(tokens) // 4),
        "misled": lambda tokens: float(len(tokens) - 3 * tokens.count(4)),
        "good": chance_of(target, target.encode(query)),
    }


def run(target, query, score, *, runs=RUNS, size=SIZE, floor=0.05, stops=None, seed="s"):
    requests = [
        SplitRequest("q", target.encode(query), number, size, floor, seed) for number in range(runs)
    ]
    score = score if isinstance(score, OpeningOdds) else Scored(score)
    return split(target, requests, SETTINGS, score, slots=4096, stops=stops)


def estimate(target, one, *, of=None):
    """Sum of mass times h of a swarm."""
    size = len(one.alive)
    return sum(
        math.exp(particle.log_mass) / size
        for particle in (one.particles if of is None else of(one))
        if hits(target.decode(particle.tokens))
    )


def z_of(values, truth):
    return (np.mean(values) - truth) / (np.std(values, ddof=1) / math.sqrt(len(values)))


NAMES = ["constant", "useless", "tied", "few values", "misled", "good"]


def unusual(tokens=(0, 1, 2, 3), cap=math.inf):
    """Log-odds that the next token is 4, within tokens too."""
    return OpeningOdds({"q": list(tokens)}, SETTINGS, cap)


@pytest.fixture(scope="module")
def truth(tabular, query):
    return tabular.exact_risk(query, hits, STEPS)


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_over_many_runs_is_the_enumerated_risk(tabular, query, truth, name):
    found = run(tabular, query, scores_of(tabular, query)[name]).swarms
    values = [estimate(tabular, one) for one in found]
    assert abs(z_of(values, truth)) < 3.5, (name, np.mean(values), truth)
    ends = Counter(one.ended for one in found)
    assert (ends == {"extinction": RUNS}) if name == "constant" else len(ends) >= 1
    for one in found[:50]:
        masses = [math.exp(particle.log_mass) for particle in one.particles]
        assert sum(masses) / SIZE == pytest.approx(1.0)


@pytest.mark.parametrize("cap", [4.0, math.inf])
@pytest.mark.parametrize("usual", [(0, 1, 2, 3), (0, 1, 3, 4)])
def test_swarms_that_are_split_within_tokens_are_unbiased(tabular, query, truth, usual, cap):
    found = run(tabular, query, unusual(usual, cap)).swarms
    assert abs(z_of([estimate(tabular, one) for one in found], truth)) < 3.5
    assert max(len(one.levels) for one in found) > 2


def whole_tokens(self, level):
    """A copy forgets what was known of the token's random number."""
    return swarms_crossing(self, level)[0], 1.0


swarms_crossing = swarms.Particle.crossing


def test_to_forget_what_is_known_of_a_token_is_biased(monkeypatch, tabular, query, truth):
    monkeypatch.setattr(swarms.Particle, "crossing", whole_tokens)
    found = run(tabular, query, unusual()).swarms
    assert abs(z_of([estimate(tabular, one) for one in found], truth)) > 5


def test_a_good_score_has_less_variance_than_as_many_plain_draws(tabular, query, truth):
    spread = {}
    for name in ("constant", "good"):
        found = run(tabular, query, scores_of(tabular, query)[name], seed="v").swarms
        draws = np.mean([len(one.particles) for one in found])
        spread[name] = np.var([estimate(tabular, one) for one in found]) * draws
    assert spread["constant"] == pytest.approx(truth * (1 - truth), rel=0.15)  # plain sampling
    assert spread["good"] < spread["constant"]


def test_settled_completions_end_and_the_mean_stays(tabular, query, truth):
    stops = Stops(settled=lambda query_id, text: 1 if hits(text) else None)
    found = run(tabular, query, scores_of(tabular, query)["tied"], stops=stops).swarms
    assert any(p.finish == "settled" for one in found for p in one.particles)
    assert abs(z_of([estimate(tabular, one) for one in found], truth)) < 3.5


def without_ties(self):
    """As many die as were meant to, whoever else has the same score."""
    size = len(self.alive)
    order = sorted(range(size), key=lambda place: self.alive[place].top)
    count = max(1, int(swarms.KILLED * size))
    level = self.alive[order[count - 1]].top
    if self.alive[0].log_mass <= math.log(self.floor) or self.alive[order[-1]].top <= level:
        self.ended = "end"
        return ()
    log_mass = self.alive[0].log_mass + math.log(1 - count / size)
    survivors = [one for one in self.alive if one.top > level]
    self.levels.append(level)
    born = []
    for place in order[:count]:
        self.dead.append(self.alive[place])
        self.alive[place] = self._copy(survivors, level, place)
        born.append(self.alive[place])
    for one in self.alive:
        one.log_mass = log_mass
    return born


def whole_copy(self, level):
    """A survivor is copied up to its end but for one token."""
    return len(self.scores) - 1, 1.0


def late_copy(self, level):
    """A survivor is copied up to its best prefix, not to its first above the level."""
    return int(np.argmax(self.scores)), 1.0


def early_copy(self, level):
    """A survivor is copied up to the prefix before the level."""
    return max(0, next(k for k, score in enumerate(self.scores) if score > level) - 1), 1.0


def until_a_hit(target):
    step = swarms.Swarm.next_generation

    def next_generation(self):
        if any(hits(target.decode(one.tokens)) for one in self.alive):
            self.ended = "hits"
            return ()
        return step(self)

    return next_generation


CONTROLS = {
    "ties live": ("few values", swarms.Swarm, "next_generation", without_ties),
    "whole copies": ("good", swarms.Particle, "crossing", whole_copy),
    "late copies": ("good", swarms.Particle, "crossing", late_copy),
    "early copies": ("tied", swarms.Particle, "crossing", early_copy),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_negative_controls_are_biased(monkeypatch, tabular, query, truth, name):
    score, place, method, wrong = CONTROLS[name]
    monkeypatch.setattr(place, method, wrong)
    found = run(tabular, query, scores_of(tabular, query)[score]).swarms
    z = z_of([estimate(tabular, one) for one in found], truth)
    assert abs(z) > 5, z


def test_to_end_at_the_hits_among_the_living_is_biased(monkeypatch, tabular, query, truth):
    monkeypatch.setattr(swarms.Swarm, "next_generation", until_a_hit(tabular))
    found = run(tabular, query, scores_of(tabular, query)["tied"]).swarms
    assert abs(z_of([estimate(tabular, one) for one in found], truth)) > 5


def test_hits_among_the_dead_count_and_an_extinct_swarm_is_no_zero(tabular, query, truth):
    scores = scores_of(tabular, query)
    found = run(tabular, query, scores["misled"]).swarms
    alive = [estimate(tabular, one, of=lambda one: one.alive) for one in found]
    assert z_of(alive, truth) < -5
    found = run(tabular, query, scores["constant"]).swarms
    zero = [0.0 if one.ended == "extinction" else estimate(tabular, one) for one in found]
    assert not any(zero) and np.mean([estimate(tabular, one) for one in found]) > truth / 2
