"""Traps of method.md section 9 at the model's side: end tokens, padding, precision.

The others: zero-width tokens and truncation in test_sampling, the end token's ratio in
test_proposals, steered and unsteered rows in test_huggingface, graded scores in test_inputs,
intervals in test_stats.
"""

import numpy as np
import pytest
import torch

from tailcast.models import HuggingFaceTarget, load_target
from tailcast.proposals import Proposal, StreamKey
from tailcast.sampling import DrawRequest, Streams, draw, score, target_law
from tailcast.types import ModelSettings, Query, SamplingSettings, SteeringVector
from tiny import save_model

SETTINGS = SamplingSettings(max_new_tokens=6)
VECTOR = SteeringVector("add", 1, np.linspace(-1, 1, 16).astype(np.float32))
STEERED = Proposal(1.0, 6, 0.2)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


def drawn(target, proposal, count=200, prompt="tell me"):
    tokens = target.encode(Query.user("q", prompt))
    requests = [DrawRequest("q", tokens, proposal, i, f"t/{i}") for i in range(count)]
    [batch] = draw(target, requests, SETTINGS, steering=VECTOR)
    return tokens, batch


def test_every_end_token_of_the_generation_config_ends_a_response(path):
    target = load_target(ModelSettings(model=str(path)))
    target.model.generation_config.eos_token_id = [0, 7]
    target = HuggingFaceTarget(target.model, target.tokenizer)
    _, batch = drawn(target, STEERED)
    last = batch.tokens[np.arange(len(batch)), batch.lengths - 1]
    stopped = np.array(batch.finish) == "stop"
    assert set(last[stopped].tolist()) == {0, 7}
    for row, length in zip(batch.tokens.tolist(), batch.lengths.tolist()):
        assert not {0, 7} & set(row[: length - 1]) and set(row[length:]) <= {-1}
    assert (batch.token_logs[np.arange(len(batch)), batch.lengths - 1] < 0).all()


def test_end_tokens_inside_the_prompt_are_not_taken_for_padding(path):
    """Pad = eos = 0 here, and the prompt holds it, as chat templates do."""
    target = load_target(ModelSettings(model=str(path)))
    tokens, batch = drawn(target, Proposal.target(), 20, prompt="red <end> two")
    assert 0 in tokens
    for row, length, logp in zip(batch.tokens, batch.lengths, batch.token_logp):
        sequence = torch.tensor([[*tokens, *row[:length].tolist()]])
        with torch.no_grad():
            law = target.model(sequence, use_cache=False).logits[0].log_softmax(-1)
        expected = law[len(tokens) - 1 : -1].gather(1, sequence[0, len(tokens) :, None])[:, 0]
        np.testing.assert_allclose(logp[:length], expected.numpy(), atol=1e-5)


def test_scoring_in_bfloat16_steps_as_drawing_does(path):
    """A one-pass scoring of the same tokens differs; ours gives what was recorded."""
    target = load_target(ModelSettings(model=str(path), dtype="bfloat16"))
    tokens, batch = drawn(target, STEERED)
    completions = [row[:n].tolist() for row, n in zip(batch.tokens, batch.lengths)]
    logp, logs, _ = score(
        Streams(target, VECTOR),
        [tokens] * len(batch),
        completions,
        [StreamKey(1.0)],
        SETTINGS,
        tokens=6,
    )
    assert np.abs(logp - batch.token_logp).max() < 1e-4
    assert np.abs(logs[:, 0] - batch.token_logs).max() < 1e-4
    one_pass = []
    for known in completions:
        sequence = torch.tensor([[*tokens, *known]])
        with torch.no_grad():
            law = target.model(sequence, use_cache=False).logits[0].float().log_softmax(-1)
        one_pass += law[len(tokens) - 1 : -1].gather(1, torch.tensor(known)[:, None])[:, 0].tolist()
    recorded = batch.token_logp[np.arange(6) < batch.lengths[:, None]]
    assert np.abs(recorded - one_pass).max() > 1e-3  # negative control


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_laws_are_float32_whatever_the_weights_are(path, dtype):
    target = load_target(ModelSettings(model=str(path), dtype=dtype))
    stream = target.stream(None, slots=2, max_new_tokens=4)
    stream.open((1, 3, 2), 0.0)
    assert target_law(stream.push(torch.tensor([2])), SETTINGS).dtype == torch.float32
    _, batch = drawn(target, Proposal(1.0, 6, 0.0))
    assert batch.log_weights.dtype == np.float64
    assert (drawn(target, Proposal(0.0, 6, 0.0))[1].log_weights == 0).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_logits_of_16_bit_models_are_not_rounded_again(path, dtype):
    """The head's product is exact in the hidden state, and no parameter is touched by it."""
    target = load_target(ModelSettings(model=str(path), dtype=dtype))
    head = target.model.get_output_embeddings()
    hidden = 40 * torch.randn((5, target.width), generator=torch.manual_seed(0)).to(head.weight)
    exact = hidden.double() @ head.weight.double().T
    bound = 1e-6 * hidden.double().abs() @ head.weight.double().abs().T
    with torch.no_grad():
        found = head(hidden)
        rounded = torch.nn.functional.linear(hidden, head.weight)
    assert found.dtype == torch.float32
    assert ((found - exact).abs() <= bound).all()
    assert ((rounded - exact).abs() > bound).any()  # negative control
    assert head.weight.dtype == getattr(torch, dtype)
    assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"
    assert len(list(target.model.parameters())) == len(set(dict(target.model.named_parameters())))
