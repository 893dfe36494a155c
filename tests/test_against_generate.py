"""Our draws have the law of transformers' own generate, on a tiny and on the embedded model."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency

from tailcast.models import load_target
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, draw
from tailcast.types import ModelSettings, Query, SamplingSettings
from tiny import save_model

SMALLEST = 10  # rarer outcomes are pooled


def ours(target, count, settings):
    tokens = target.encode(Query.user("q", "tell me"))
    requests = [DrawRequest("q", tokens, Proposal.target(), i, f"g/{i}") for i in range(count)]
    [batch] = draw(target, requests, settings)
    return [tuple(row[:n].tolist()) for row, n in zip(batch.tokens, batch.lengths)]


def theirs(target, count, settings):
    """Draws of transformers' generate, each up to its end token."""
    tokens = target.encode(Query.user("q", "tell me"))
    torch.manual_seed(0)
    rows = target.model.generate(
        torch.tensor([tokens]), do_sample=True, num_return_sequences=count,
        max_new_tokens=settings.max_new_tokens, temperature=settings.temperature,
        top_k=settings.top_k, top_p=settings.top_p, pad_token_id=0,
        attention_mask=torch.ones(1, len(tokens), dtype=torch.int64),
        eos_token_id=sorted(target.end_tokens),
    )[:, len(tokens) :].tolist()  # fmt: skip
    ends = ([i + 1 for i, token in enumerate(row) if token in target.end_tokens] for row in rows)
    return [tuple(row[: min(end, default=len(row))]) for row, end in zip(rows, ends)]


def agreement(one, other):
    """P value of the chi-square test that two lists of outcomes have one law."""
    outcomes = {key: i for i, key in enumerate(sorted({*one, *other}))}
    table = np.array(
        [np.bincount([outcomes[x] for x in xs], minlength=len(outcomes)) for xs in (one, other)]
    )
    rare = table.sum(0) < SMALLEST
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(1)])
    return chi2_contingency(table[:, table.sum(0) > 0]).pvalue


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return load_target(ModelSettings(model=str(save_model(tmp_path_factory.mktemp("model")))))


@pytest.mark.parametrize(
    "cut", [{}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.7, "temperature": 1.3}]
)
def test_short_sequences_of_a_tiny_model_have_the_law_of_generate(tiny, cut):
    settings = SamplingSettings(max_new_tokens=3, **cut)
    found, expected = ours(tiny, 4000, settings), theirs(tiny, 4000, settings)
    assert agreement(found, expected) > 1e-3
    other = settings.model_copy(update={"temperature": settings.temperature * 1.4})
    assert agreement(found, theirs(tiny, 4000, other)) < 1e-6  # negative control


def test_first_tokens_of_the_embedded_model_have_the_law_of_generate():
    target = load_target(ModelSettings(model="embedded", dtype="float32"))
    settings = SamplingSettings(max_new_tokens=2, temperature=1.0, top_k=50)
    found, expected = ours(target, 150, settings), theirs(target, 150, settings)
    assert agreement(found, expected) > 1e-3
    hotter = settings.model_copy(update={"temperature": 3.0})
    assert agreement(found, theirs(target, 150, hotter)) < 1e-6  # negative control
