"""Every kind of stream is a law whose weights are proper for the target, by enumeration."""

import numpy as np
import pytest
import torch

from tailcast.errors import ConfigError, NumericsError, SteeringError
from tailcast.models import TabularTarget
from tailcast.proposals import Proposal, StreamKey
from tailcast.sampling import DrawRequest, Streams, draw, score
from tailcast.streams import Hit, Openings, Other, Prompted, Shifted, Tilted, Vector
from tailcast.types import Query, SamplingSettings, SteeringVector

STEPS = 4
SETTINGS = SamplingSettings(max_new_tokens=STEPS)


def world(seed: int) -> TabularTarget:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(STEPS, 5, 5))
    table[:, :, 3] -= 3.0
    shift = np.zeros_like(table)
    shift[:, :, 3] = 3.0
    return TabularTarget(table, shift)


TARGET, OTHER, QUERY = world(1), world(2), Query.user("q", "hello")
PROMPT = TARGET.encode(QUERY)
EMBEDDING = torch.from_numpy(np.random.default_rng(5).normal(size=(5, 3)).astype(np.float32))
LEARNED = np.random.default_rng(6).normal(size=(3, 3)).astype(np.float32)


def is_hit(text: str) -> bool:
    return "3" in text.split()


def kinds(unit):
    """One of every kind."""
    hits = [Hit(PROMPT, (3, 1), 0.7), Hit(PROMPT, (1, 3, 3), 0.3), Hit((4,), (2,), 1.0)]
    prompted = Prompted(TARGET, [QUERY], "Say {query} again")
    return {
        "openings": Openings(hits),
        "prefilled": Openings.prefilled([(3, 3), (1, 3)]),
        "prompted": prompted,
        "other": Other("other", OTHER),
        "vector": Vector("vector", TARGET, unit),
        "shifted": Shifted(LEARNED, EMBEDDING),
        "tilted": Tilted(1.5, Other("ahead", OTHER)),
        "between": Tilted(0.7, Vector("fore", TARGET, unit), prompted),
    }


UNIT = SteeringVector("add", 0, np.ones(1, np.float32))
NAMES = tuple(kinds(UNIT))


def drawn(proposal, count, unit, *, settings=SETTINGS, slots=4096, seed=0):
    wanted = [DrawRequest("q", PROMPT, proposal, i, f"{seed}/{i}") for i in range(count)]
    return draw(TARGET, wanted, settings, steering=unit, kinds=kinds(unit), slots=slots)[0]


def proposal_of(kind, *, mix=0.0, heat=1.0):
    return Proposal(0.5 if kind in ("vector", "between") else 0.0, 3, mix, heat, kind)


@pytest.mark.parametrize("kind", NAMES)
def test_weights_are_proper_and_the_risk_is_the_enumerated_one(kind, unit):
    truth = TARGET.exact_risk(QUERY, is_hit, STEPS)
    batch = drawn(proposal_of(kind, mix=0.2), 6000, unit)
    weights = np.exp(batch.log_weights)
    hits = np.array([is_hit(text) for text in batch.texts])
    for values, expected in ((weights, 1.0), (weights * hits, truth)):
        z = (values.mean() - expected) / (values.std() / np.sqrt(len(values)))
        assert abs(z) < 4
    unweighted = (hits.mean() - truth) / (hits.std() / np.sqrt(len(hits)))
    assert abs(unweighted) > 3, "the control: a law that is no other than the target tests nothing"


@pytest.mark.parametrize("kind", NAMES)
def test_draws_follow_the_law_that_is_recorded(kind, unit):
    """First tokens against exp(token_logs): chi-square over five tokens."""
    batch = drawn(proposal_of(kind), 5000, unit)
    counts = np.bincount(batch.tokens[:, 0], minlength=5)
    law = np.zeros(5)
    law[batch.tokens[:, 0]] = np.exp(batch.token_logs[:, 0])
    assert law.sum() == pytest.approx(1, abs=1e-5)
    assert ((counts - 5000 * law) ** 2 / (5000 * law)).sum() < 18.5  # 0.1% point of 4 degrees
    plain = np.exp(TARGET.table[0, PROMPT[-1]])
    plain /= plain.sum()
    assert ((counts - 5000 * plain) ** 2 / (5000 * plain)).sum() > 18.5


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("settings", [SETTINGS, SamplingSettings(max_new_tokens=STEPS, top_k=3)])
def test_scoring_repeats_what_drawing_recorded(kind, settings, unit):
    proposal = proposal_of(kind, heat=1.5)
    batch = drawn(proposal, 80, unit, settings=settings, slots=7)
    given = [row[:length].tolist() for row, length in zip(batch.tokens, batch.lengths, strict=True)]
    streams = (StreamKey(1.0), proposal.stream, StreamKey(0.0, 2.0))
    logp, logs, _ = score(
        Streams(TARGET, unit, kinds(unit)), [PROMPT] * len(given), given, streams, settings,
        tokens=3, slots=9,
    )  # fmt: skip
    inside = np.arange(3) < batch.lengths[:, None]
    np.testing.assert_allclose(logp[inside], batch.token_logp[:, :3][inside], atol=1e-5)
    np.testing.assert_allclose(logs[:, 1][inside], batch.token_logs[:, :3][inside], atol=1e-5)


@pytest.mark.parametrize(
    "kind",
    [Openings(), Shifted(0 * LEARNED, EMBEDDING), Tilted(0.0, Other("ahead", OTHER)),
     Other("same", TARGET)],
)  # fmt: skip
def test_a_stream_that_is_told_nothing_is_the_target(kind, unit):
    wanted = [
        DrawRequest("q", PROMPT, Proposal(0.0, 4, 0.0, 1.0, "k"), i, f"{i}") for i in range(99)
    ]
    [batch] = draw(TARGET, wanted, SETTINGS, kinds={"k": kind})
    np.testing.assert_allclose(batch.log_weights, 0, atol=1e-5)
    plain = [DrawRequest("q", PROMPT, Proposal.target(), i, f"{i}") for i in range(99)]
    assert draw(TARGET, plain, SETTINGS)[0].texts == batch.texts


def test_openings_by_hand():
    """Two hits of one query, effective number 1 / (0.75^2 + 0.25^2) = 1.6, and none of another."""
    law = torch.tensor([[0.5, 0.2, 0.3], [0.5, 0.2, 0.3], [0.5, 0.2, 0.3]]).log()
    from tailcast.sampling.kinds import Place

    hits = [Hit((7,), (1, 2), 0.75), Hit((7,), (2,), 0.25)]
    found = Openings(hits, reserves=(1.0, 2.0))
    places = [Place((7,), ()), Place((7,), (1,)), Place((8,), ())]
    here, after, there = found.law(law, [], places, SETTINGS).exp()
    pooled = (torch.tensor([0, 1.2, 0.4]) + torch.tensor([0.5, 0.2, 0.3])) / 2.6
    own = (torch.tensor([0, 1.2, 0.4]) + 2 * pooled) / 3.6
    torch.testing.assert_close(there, pooled)
    torch.testing.assert_close(here, own)
    once = (torch.tensor([0, 0, 1.2]) + torch.tensor([0.5, 0.2, 0.3])) / 2.2
    torch.testing.assert_close(after, (torch.tensor([0, 0, 1.2]) + 2 * once) / 3.2)


def test_prefilled_openings_keep_their_share_of_the_target_at_every_token():
    from tailcast.sampling.kinds import Place

    law = torch.full((2, 4), 0.25).log()
    found = Openings.prefilled([(1, 2, 3), (1, 3), (2, 2)], share=0.2)
    first, second = found.law(law, [], [Place((9,), ()), Place((9,), (1,))], SETTINGS).exp()
    torch.testing.assert_close(first, 0.05 + 0.8 * torch.tensor([0, 2 / 3, 1 / 3, 0]))
    torch.testing.assert_close(second, 0.05 + 0.8 * torch.tensor([0, 0, 0.5, 0.5]))
    with pytest.raises(ConfigError, match="one opening a line"):
        Openings.prefilled([(1,), ()])


def test_what_a_stream_cannot_be_is_said():
    wanted = [DrawRequest("q", PROMPT, Proposal(0.0, 2, 0.0, 1.0, "k"), 0, "0")]
    with pytest.raises(ConfigError, match="stream 'k' is unknown"):
        draw(TARGET, wanted, SETTINGS)
    both = Tilted(1.0, Other("a", OTHER), Other("b", world(3)))
    with pytest.raises(ConfigError, match="takes 3 rows"):
        draw(TARGET, wanted, SETTINGS, kinds={"k": both}, slots=2)
    small = TabularTarget(np.zeros((4, 5, 4)), np.zeros((4, 5, 4)))
    with pytest.raises(ConfigError, match="4 tokens, the target 5"):
        draw(TARGET, wanted, SETTINGS, kinds={"k": Other("k", small)})
    with pytest.raises(SteeringError, match="width 3, the model's hidden state 2"):
        Shifted(LEARNED, EMBEDDING[:, :2])
    broken = TabularTarget(np.full((4, 5, 5), np.nan), np.zeros((4, 5, 5)))
    with pytest.raises(NumericsError, match="non-finite"):
        draw(TARGET, wanted, SETTINGS, kinds={"k": Other("k", broken)})
