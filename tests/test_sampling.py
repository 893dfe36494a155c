import numpy as np
import pytest
import torch

from tailcast.errors import ConfigError, NumericsError
from tailcast.models import TabularTarget
from tailcast.proposals import Proposal, StreamKey
from tailcast.sampling import DrawRequest, Streams, draw, inverse_cdf, score, target_law
from tailcast.stats import monte_carlo
from tailcast.types import Query, SamplingSettings

STEPS = 4
SETTINGS = SamplingSettings(max_new_tokens=STEPS)


def requests(target, query, proposal, count, seed=0):
    prompt = target.encode(query)
    return [DrawRequest(query.id, prompt, proposal, i, f"{seed}/{i}") for i in range(count)]


def rare_target(level: float) -> TabularTarget:
    """Token 3 twice is the event; ``level`` makes it rare, steering brings it back."""
    rng = np.random.default_rng(7)
    table = 0.5 * rng.normal(size=(STEPS, 4, 4))
    table[:, :, 3] -= level
    shift = np.zeros_like(table)
    shift[:, :, 3] = level
    return TabularTarget(table, shift)


def is_hit(text: str) -> bool:
    return text.split().count("3") >= 2


def z_scores(level, proposal, *, draws, seeds, unit, drop_weight=False):
    """(estimate - truth) / standard error over seeds, the error from the exact second moment."""
    target, query = rare_target(level), Query.user("q", "hello")
    truth = target.exact_risk(query, is_hit, STEPS)
    batch = draw(
        target,
        requests(target, query, proposal, draws * seeds),
        SETTINGS,
        steering=unit,
        slots=4096,
    )[0]
    weights = np.zeros(len(batch)) if drop_weight else batch.log_weights
    hits = np.array([is_hit(text) for text in batch.texts])
    values = np.where(hits, np.exp(weights), 0.0)
    second = truth if proposal.is_target else (values**2).mean()
    spread = np.sqrt(second - truth**2)
    groups = values.reshape(seeds, draws).mean(1)
    return truth, (groups - truth) / (spread / np.sqrt(draws))


@pytest.mark.parametrize(
    ("level", "risk", "draws"), [(1.9, 1e-2, 400), (4.25, 1e-4, 400), (6.55, 1e-6, 400)]
)
def test_importance_sampling_against_enumeration(level, risk, draws, unit):
    truth, z = z_scores(level, Proposal(1.0, STEPS, 0.1), draws=draws, seeds=200, unit=unit)
    assert risk / 2 < truth < risk * 2
    assert abs(z.mean()) < 0.2 and abs(z.std() - 1) < 0.15


def test_monte_carlo_against_enumeration(unit):
    _truth, z = z_scores(1.9, Proposal.target(), draws=400, seeds=200, unit=unit)
    assert abs(z.mean()) < 0.2 and abs(z.std() - 1) < 0.15


@pytest.mark.parametrize(("risk", "draws"), [(1e-4, 10_000), (1e-6, 1_000_000)])
def test_monte_carlo_of_a_rare_token_against_its_probability(risk, draws):
    """200 runs of one hit each, by the sampler's own inverse CDF.

    The rare token has the end of the unit interval, so that a uniform number below 1 - c draws
    another one (checked); a run's numbers above it are binomial in number and uniform.
    """
    close = 1000 * risk
    law = torch.tensor([[0.7, 0.3 - risk, risk]], dtype=torch.float64)
    rng = np.random.default_rng(9)

    def tokens(uniforms):
        rows = torch.zeros(len(uniforms), dtype=torch.int64)
        return inverse_cdf(law, rows, torch.from_numpy(uniforms)).numpy()

    assert tokens(np.array([1 - close])) == 1
    found = []
    for near in rng.binomial(draws, close, size=200):
        hits = np.zeros(draws, dtype=bool)
        hits[:near] = tokens(1 - close * (1 - rng.random(near))) == 2
        found.append(monte_carlo(hits).p or 0.0)
    z = (np.array(found) - risk) / np.sqrt(risk / draws)
    assert abs(z.mean()) < 0.2 and abs(z.std() - 1) < 0.15
    wrong = (np.array(found) - 2 * risk) / np.sqrt(2 * risk / draws)
    assert abs(wrong.mean()) > 0.5  # negative control: another truth is noticed


def test_without_the_weight_the_same_check_fails(unit):
    """Negative control."""
    _, z = z_scores(
        4.25, Proposal(1.0, STEPS, 0.1), draws=400, seeds=50, unit=unit, drop_weight=True
    )
    assert abs(z.mean()) > 5


@pytest.mark.parametrize("proposal", [Proposal(1, 2, 0.0), Proposal(0.5, 6, 0.3)])
def test_weights_have_mean_one_under_the_proposal(tabular, unit, query, proposal):
    [batch] = draw(
        tabular, requests(tabular, query, proposal, 4000), SamplingSettings(max_new_tokens=6),
        steering=unit, slots=1024,
    )  # fmt: skip
    weights = np.exp(batch.log_weights)
    assert abs(weights.mean() - 1) < 4 * weights.std() / np.sqrt(4000)


def test_every_proposal_that_is_the_target_draws_the_same_tokens_with_weight_one(
    tabular, unit, query
):
    settings = SamplingSettings(max_new_tokens=6)
    same = [Proposal.target(), Proposal(0.0, 6, 0.0), Proposal(1.0, 0, 0.0), Proposal(1.0, 6, 1.0)]
    batches = [
        draw(tabular, requests(tabular, query, one, 200), settings, steering=unit)[0]
        for one in same
    ]
    for batch in batches:
        assert (batch.tokens == batches[0].tokens).all()
        assert (batch.log_weights == 0.0).all()


def test_draws_do_not_depend_on_batch_or_company(tabular, unit, query):
    settings = SamplingSettings(max_new_tokens=6)
    wanted = requests(tabular, query, Proposal(1.0, 3, 0.1), 100)
    alone = draw(tabular, wanted, settings, steering=unit, slots=2)[0]
    other = Query.user("other", "x")
    crowd = [*requests(tabular, other, Proposal.target(), 50), *wanted]
    together = draw(tabular, crowd, settings, steering=unit, slots=64)[1]
    assert (alone.tokens == together.tokens).all()
    np.testing.assert_array_equal(alone.token_logs, together.token_logs)


def test_scoring_at_the_drawn_strength_equals_what_was_recorded(tabular, unit, query):
    settings = SamplingSettings(max_new_tokens=6, temperature=0.7, top_k=4)
    [batch] = draw(tabular, requests(tabular, query, Proposal(1.0, 6, 0.2), 60), settings,
                   steering=unit)  # fmt: skip
    completions = [row[:n].tolist() for row, n in zip(batch.tokens, batch.lengths)]
    prompts = [tabular.encode(query)] * len(completions)
    streams = [StreamKey(1.0), StreamKey(0.0), StreamKey(0.0, 2.0)]
    logp, logs, _ = score(Streams(tabular, unit), prompts, completions, streams, settings,
                          tokens=6, slots=9)  # fmt: skip
    np.testing.assert_allclose(logp, batch.token_logp, atol=1e-6)
    np.testing.assert_allclose(logs[:, 0], batch.token_logs, atol=1e-6)
    np.testing.assert_allclose(logs[:, 1], logp, atol=1e-12)  # strength 0 is the target
    assert np.abs(logs[:, 2] - logp).max() > 0.1


def test_a_heated_target_costs_no_second_stream_and_has_the_heated_law(tabular, unit, query):
    settings = SamplingSettings(max_new_tokens=6, temperature=0.7, top_k=4)
    [batch] = draw(tabular, requests(tabular, query, Proposal(0.0, 6, 0.2, 1.5), 400), settings)
    completions = [row[:n].tolist() for row, n in zip(batch.tokens, batch.lengths)]
    assert batch.token_forwards == len({tuple(c[:i]) for c in completions for i in range(len(c))})
    [hot] = draw(tabular, requests(tabular, query, Proposal.target(), 400),
                 settings.model_copy(update={"temperature": 0.7 * 1.5, "top_k": 0}))  # fmt: skip
    law = {tokens[0]: np.exp(logp) for tokens, logp in zip(hot.tokens, hot.token_logp[:, 0])}
    kept = set(batch.tokens[:, 0].tolist()) & set(law)
    for token in kept:
        row = np.flatnonzero(batch.tokens[:, 0] == token)[0]
        other = np.flatnonzero(batch.tokens[:, 0] != token)[0]
        seen = batch.token_logs[row, 0] - batch.token_logs[other, 0]
        wanted = np.log(law[token]) - np.log(law[batch.tokens[other, 0]])
        assert seen == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("cut", [{"top_k": 2}, {"top_p": 0.6}, {"temperature": 0.5, "top_p": 0.9}])
def test_truncated_targets_stay_unbiased(tabular, unit, query, cut):
    settings = SamplingSettings(max_new_tokens=3, **cut)
    exact = exact_truncated_risk(tabular, query, settings)
    [batch] = draw(tabular, requests(tabular, query, Proposal(0.5, 3, 0.0), 6000), settings,
                   steering=unit, slots=1024)  # fmt: skip
    values = np.exp(batch.log_weights) * np.array(["4" in text for text in batch.texts])
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(6000) + 1e-12


def exact_truncated_risk(target, query, settings):
    """P(token 4 appears) by listing every sequence with transformers' own warpers."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers = [TemperatureLogitsWarper(settings.temperature)]
    warpers += [TopKLogitsWarper(settings.top_k)] if settings.top_k else []
    warpers += [TopPLogitsWarper(settings.top_p)] if settings.top_p < 1 else []

    def total(position, previous, mass, seen):
        if position == settings.max_new_tokens or (position and previous == target.end):
            return mass * seen
        scores = torch.from_numpy(target.table[position, previous])[None]
        for warper in warpers:
            scores = warper(None, scores)
        law = scores.softmax(-1)[0].tolist()
        return sum(
            total(position + 1, token, mass * p, seen or token == 4)
            for token, p in enumerate(law)
            if p
        )

    return total(0, target.encode(query)[-1], 1.0, False)


@pytest.mark.parametrize("settings", [
    SamplingSettings(temperature=0.7), SamplingSettings(top_k=7), SamplingSettings(top_p=0.8),
    SamplingSettings(temperature=1.4, top_k=20, top_p=0.5),
])  # fmt: skip
def test_target_law_equals_transformers_warpers(settings):
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    logits[:, 10:14] = logits[:, 9:10]  # ties
    scores = TemperatureLogitsWarper(settings.temperature)(None, logits)
    if settings.top_k:
        scores = TopKLogitsWarper(settings.top_k)(None, scores)
    if settings.top_p < 1:
        scores = TopPLogitsWarper(settings.top_p)(None, scores)
    torch.testing.assert_close(target_law(logits, settings), scores.log_softmax(-1))


def first_point(mass, tokens):
    """Smallest uniform number that draws each token or a later one, by bisection."""
    low, high = torch.zeros(len(tokens)).double(), torch.ones(len(tokens)).double()
    for _ in range(60):
        middle = (low + high) / 2
        past = inverse_cdf(mass, torch.zeros_like(tokens), middle) >= tokens
        low, high = torch.where(past, low, middle), torch.where(past, middle, high)
    return high


def test_every_token_of_a_large_vocabulary_is_drawn_with_its_probability():
    """Trap: in float32 one token in six has zero width."""
    logits = 3 * torch.randn(1, 49_152, generator=torch.Generator().manual_seed(0))
    mass = logits.softmax(-1)
    exact = logits[0].double().softmax(-1)
    tokens = torch.arange(49_151)[::47]
    widths = first_point(mass, tokens + 1) - first_point(mass, tokens)
    error = (widths / exact[tokens] - 1).abs()
    assert error.max() < 1e-5
    naive = mass.cumsum(-1)[0].diff()[(tokens[1:] - 1)].double()  # negative control
    assert ((naive / exact[tokens[1:]] - 1).abs() > 0.5).float().mean() > 0.05


def test_tokens_without_mass_are_never_drawn():
    forbidden = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    ends = torch.tensor([0.0, 0.25, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(forbidden, torch.zeros(4, dtype=torch.int64), ends).tolist() == [1, 1, 3, 3]


def test_a_proposal_that_cannot_be_drawn_is_refused(tabular, query, unit):
    with pytest.raises(ConfigError, match="needs a steering vector"):
        draw(tabular, requests(tabular, query, Proposal(1, 2, 0.1), 1), SETTINGS)
    with pytest.raises(ConfigError, match="beyond the length limit"):
        draw(tabular, requests(tabular, query, Proposal(1, 9, 0.1), 1), SETTINGS, steering=unit)
    with pytest.raises(ConfigError, match="too small"):
        draw(tabular, [], SETTINGS, slots=1)


def test_non_finite_logits_name_the_query(query):
    table = np.zeros((2, 3, 3))
    table[1, 1, 2] = np.nan
    broken = TabularTarget(table, np.zeros_like(table))
    with pytest.raises(NumericsError, match="non-finite logits for query 'q'"):
        draw(broken, requests(broken, query, Proposal.target(), 50), SETTINGS)


def test_refilled_slots_lose_no_draw(tabular, query):
    [batch] = draw(tabular, requests(tabular, query, Proposal.target(), 333),
                   SamplingSettings(max_new_tokens=6), slots=7)  # fmt: skip
    assert batch.draws.tolist() == list(range(333))
    ended = batch.tokens[np.arange(333), batch.lengths - 1] == 0
    assert ((np.array(batch.finish) == "stop") == ended).all()
    assert {1, 6} <= set(batch.lengths.tolist())
