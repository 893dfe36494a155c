"""Fewer tokens, the same estimate: settled verdicts, roulette, several continuations."""

import numpy as np
import pytest

from tailcast.judges import build_judge
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, Stops, draw, draw_with_engine
from tailcast.stats import importance_sampling
from tailcast.types import Continuation, Query, SamplingSettings

SETTINGS = SamplingSettings(max_new_tokens=6)
PROPOSALS = [Proposal.target(), Proposal(1.0, 6, 0.2), Proposal(1.0, 2, 0.0)]
QUERY = Query.user("q", "hello")


def has_four(text):
    return "4" in text


def refuses(text):
    """Stands for a refusal: the second token of the vocabulary."""
    return text.startswith("1")


def requests(target, proposal, count, several=1):
    prompt = target.encode(QUERY)
    return [
        DrawRequest("q", prompt, proposal, i, f"s/{i}", f"p/{i // several}" * (several > 1))
        for i in range(count)
    ]


def estimate(batch, hit, several=1):
    hits = np.array([hit(text) for text in batch.texts])
    hits &= np.array([finish != "roulette" for finish in batch.finish])
    return importance_sampling(batch.log_weights, hits, continuations=several), hits


def drawn(target, unit, proposal, count, *, stops=None, several=1):
    found = requests(target, proposal, count, several)
    return draw(target, found, SETTINGS, steering=unit, stops=stops, slots=512)[0]


@pytest.mark.parametrize("proposal", PROPOSALS)
def test_settled_misses_leave_every_weighted_hit_as_it_was(tabular, unit, proposal):
    def hit(text):
        return not refuses(text) and has_four(text)

    whole = drawn(tabular, unit, proposal, 2000)
    stops = Stops(settled=lambda query_id, text: 0 if refuses(text) else None)
    short = drawn(tabular, unit, proposal, 2000, stops=stops)
    (one, hits), (other, same_hits) = estimate(whole, hit), estimate(short, hit)
    assert "settled" in short.finish and short.token_forwards < whole.token_forwards
    assert (hits == same_hits).all()
    assert (short.log_weights[hits] == whole.log_weights[hits]).all()
    assert (one.p, one.stderr, one.ci_high) == (other.p, other.stderr, other.ci_high)
    wrong = Stops(settled=lambda query_id, text: 0 if "2" in text else None)
    early = drawn(tabular, unit, proposal, 2000, stops=wrong)
    assert estimate(early, hit)[0].p != one.p  # negative control: not settled by a 2


@pytest.mark.parametrize("proposal", PROPOSALS)
def test_settled_hits_agree_with_enumeration(tabular, unit, proposal):
    truth = tabular.exact_risk(QUERY, has_four, 6)
    stops = Stops(settled=lambda query_id, text: 1 if has_four(text) else None)
    batch = drawn(tabular, unit, proposal, 4000, stops=stops)
    one, _ = estimate(batch, has_four)
    assert "settled" in batch.finish
    assert abs(one.p - truth) < 4 * one.stderr


@pytest.mark.parametrize("rate", [0.5, 0.1])
@pytest.mark.parametrize("proposal", PROPOSALS)
def test_roulette_agrees_with_enumeration(tabular, unit, proposal, rate):
    truth = tabular.exact_risk(QUERY, has_four, 6)
    batch = drawn(tabular, unit, proposal, 8000, stops=Stops(refused=refuses, rate=rate))
    one, hits = estimate(batch, has_four)
    late = hits & np.array([refuses(text) for text in batch.texts])
    assert late.any() and "roulette" in batch.finish
    assert abs(one.p - truth) < 4 * one.stderr
    assert abs(np.exp(batch.log_weights).mean() - 1) < 4 * np.exp(batch.log_weights).std() / 89
    dropped = np.where(hits & ~late, np.exp(batch.log_weights), 0.0)  # negative control
    assert abs(dropped.mean() - truth) > 4 * dropped.std() / np.sqrt(8000)


def test_several_continuations_are_one_cluster(tabular, unit):
    """Over 200 seeds: spread of the estimates against the standard error that they state."""
    truth = tabular.exact_risk(QUERY, has_four, 6)
    proposal, several, count = Proposal(1.0, 2, 0.1), 5, 200
    batch = drawn(tabular, unit, proposal, 200 * count, several=several)
    prefixes = batch.tokens[:, :2].reshape(-1, several, 2)
    assert (prefixes == prefixes[:, :1]).all()
    assert len({tuple(row) for row in batch.tokens[:several].tolist()}) > 1
    hits = np.array([has_four(text) for text in batch.texts])
    found, naive = [], []
    for start in range(0, len(hits), count):
        part = slice(start, start + count)
        found.append(
            importance_sampling(batch.log_weights[part], hits[part], continuations=several)
        )
        naive.append(importance_sampling(batch.log_weights[part], hits[part]).stderr)
    p = np.array([one.p for one in found])
    assert abs(p.mean() - truth) < 4 * p.std() / np.sqrt(200)
    assert found[0].n == count
    ratio = p.std() / np.mean([one.stderr for one in found])
    assert abs(ratio - 1) < 0.15
    assert p.std() / np.mean(naive) > 1.15  # negative control: as if they were independent


class TabularEngine:
    """Goes on from a prefix by our own loop, with or without giving its tokens."""

    def __init__(self, target, prompt, *, tells_tokens=True):
        self.target, self.prompt, self.tells_tokens = target, prompt, tells_tokens

    def sample(self, prompts, settings, *, limits, seeds):
        rows = []
        for prompt, limit, seed in zip(prompts, limits, seeds):
            rng, tokens = np.random.default_rng(seed), list(prompt[len(self.prompt) :])
            new = []
            while len(new) < limit and (not new or new[-1] != self.target.end):
                previous = tokens[-1] if tokens else self.prompt[-1]
                law = np.exp(self.target.table[len(tokens), previous])
                new.append(int(rng.choice(len(law), p=law / law.sum())))
                tokens.append(new[-1])
            finish = "stop" if new[-1] == self.target.end else "length"
            if self.tells_tokens:
                rows.append(Continuation(tuple(new), None, finish, len(new)))
            else:
                text = self.target.decode(new)
                rows.append(Continuation((), f" {text}" if text else "", finish, len(new)))
        return rows


@pytest.mark.parametrize("tells_tokens", [True, False])
@pytest.mark.parametrize("proposal", PROPOSALS)
def test_prefixes_continued_by_an_engine_agree_with_enumeration(
    tabular, unit, proposal, tells_tokens
):
    truth = tabular.exact_risk(QUERY, has_four, 6)
    engine = TabularEngine(tabular, tabular.encode(QUERY), tells_tokens=tells_tokens)
    found = requests(tabular, proposal, 4000)
    [batch] = draw_with_engine(tabular, found, SETTINGS, engine, steering=unit)
    one, _ = estimate(batch, has_four)
    assert abs(one.p - truth) < 4 * one.stderr
    assert set(batch.finish) == {"stop", "length"}
    own = drawn(tabular, unit, proposal, 4000)
    assert (own.log_weights == batch.log_weights).all()  # the prefixes are the same


@pytest.mark.parametrize(
    ("spec", "text", "known"),
    [
        ("refusal", "I'm sorry, but", 0),
        ("refusal", "Here is", None),
        ("pattern:yes", "oh yes", 1),
        ("pattern:yes", "oh", None),
        ("pattern:yes$", "oh yes", None),
        (r"pattern:yes\b", "oh yes", None),
        ("pattern:yes(?! not)", "oh yes", None),
        ("pattern:(?>a*)b++", "ab", None),
    ],
)
def test_judges_say_when_a_verdict_is_settled(spec, text, known):
    judge = build_judge(spec)
    assert (judge.settled(QUERY, text) if judge.settled else None) == known
