"""Random-weight models of nine families: our stepping against transformers' own forward."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as tf

from tailcast.errors import ModelError, SteeringError
from tailcast.models import HuggingFaceTarget
from tailcast.types import SteeringVector

BASE = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": 40, "n_embd": 16, "n_layer": 4, "n_head": 4, "n_positions": 128}
CONFIGS = {
    "llama": lambda: tf.LlamaConfig(**BASE),
    "qwen2": lambda: tf.Qwen2Config(**BASE),
    "qwen3": lambda: tf.Qwen3Config(**BASE, head_dim=8),
    "phi3": lambda: tf.Phi3Config(**BASE),
    "olmo2": lambda: tf.Olmo2Config(**BASE),
    "olmo3": lambda: tf.Olmo3Config(**BASE, sliding_window=4),
    "gemma3": lambda: tf.Gemma3TextConfig(
        **BASE, head_dim=8, sliding_window=4, query_pre_attn_scalar=8
    ),
    "mistral": lambda: tf.MistralConfig(**BASE, sliding_window=4),
    "gpt2": lambda: tf.GPT2Config(**GPT2, bos_token_id=1, eos_token_id=2),
}
LONG, SHORT = (3, 4, 5, 6, 7, 8, 9), (5, 6, 11)


def build(family: str) -> HuggingFaceTarget:
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(CONFIGS[family]()).float()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn_like(weight) * (weight.ndim > 1)
    return HuggingFaceTarget(model, tokenizer=None)


@pytest.fixture(scope="module", params=[*CONFIGS])
def target(request):
    return build(request.param)


def plain(target, tokens):
    """Next-token log-probabilities by one uncached forward outside our passes."""
    with torch.no_grad():
        return (
            target.model(input_ids=torch.tensor([tokens]), use_cache=False)
            .logits[0]
            .log_softmax(-1)
        )


def vector(target, operator, positions="response", layer=2, **more):
    direction = np.linspace(-1, 1, target.width).astype(np.float32)
    return SteeringVector(operator, layer, direction, positions, **more)


@pytest.mark.parametrize("block", [1024, 3])
def test_stepping_equals_an_uncached_forward_with_refilled_slots(target, monkeypatch, block):
    monkeypatch.setattr("tailcast.models.geometry._BLOCK", block)  # of a prompt's tokens
    stream = target.stream(None, slots=4, max_new_tokens=16)
    rows = []
    for prompt in (LONG, SHORT, LONG, (9,)):
        stream.open(prompt, 0.0)
        rows.append([*prompt[:-1]])
    first = [LONG[-1], SHORT[-1], LONG[-1], 9]
    tokens = np.random.default_rng(0).integers(3, 40, (12, 4)).tolist()
    for step, given in enumerate([first, *tokens]):
        if step == 5:
            kept, parted = stream.save(1), [*rows[1]]
            rows = [rows[old] for old in stream.close([0, 2])]
            stream.open(SHORT, 0.0)
            rows.append([*SHORT[:-1]])
        if step == 7:
            stream.open(SHORT, 0.0, kept)
            rows.append(parted)
        logits = stream.push(torch.tensor(given[: len(rows)]))
        rows = [[*row, token] for row, token in zip(rows, given)]
    for law, row in zip(logits.log_softmax(-1), rows, strict=True):
        torch.testing.assert_close(law, plain(target, row)[-1], atol=2e-5, rtol=0)


@pytest.mark.parametrize("operator", ["add", "ablate"])
@pytest.mark.parametrize("positions", ["response", "all"])
def test_steered_stepping_equals_a_forward_with_the_operator_written_out(
    target, operator, positions
):
    """Also the place of the first steered position: one off makes this fail."""
    steer = vector(target, operator, positions)
    stream = target.stream(steer, slots=4, max_new_tokens=8)
    stream.open(LONG, 0.0)
    stream.open(LONG, 0.7)
    row = [*LONG[:-1]]
    for token in (LONG[-1], 10, 11, 12):
        logits = stream.push(torch.tensor([token, token]))
        row.append(token)
    first = 0 if positions == "all" else len(LONG) - 1
    expected = by_hand(target, steer, row, 0.7, first)
    torch.testing.assert_close(logits[0].log_softmax(-1), plain(target, row)[-1], atol=2e-5, rtol=0)
    torch.testing.assert_close(logits[1].log_softmax(-1), expected, atol=2e-5, rtol=0)
    if positions == "response":  # negative control; a window may hide the first prompt token
        assert (expected - by_hand(target, steer, row, 0.7, first + 1)).abs().max() > 1e-3
    assert (expected - plain(target, row)[-1]).abs().max() > 1e-3


@pytest.mark.parametrize("operator", ["add", "ablate"])
@pytest.mark.parametrize("positions", ["response", "all"])
def test_several_layers_and_a_profile_of_strengths_equal_a_forward_with_both_written_out(
    target, operator, positions
):
    other = np.cos(np.arange(target.width)).astype(np.float32)
    steer = vector(target, operator, positions, also=((0, other),), profile=(1.0, 0.4, 0.0))
    stream = target.stream(steer, slots=2, max_new_tokens=8)
    stream.open(LONG, 0.7)
    row, laws = [*LONG[:-1]], []
    for token in (LONG[-1], 10, 11, 12):
        laws.append(stream.push(torch.tensor([token]))[0].log_softmax(-1))
        row.append(token)
    start = 0 if positions == "all" else len(LONG) - 1
    factors = torch.tensor([float(place >= start) for place in range(len(LONG))] + [0.4, 0, 0])
    for law, end in zip(laws, range(len(LONG), len(row) + 1), strict=True):
        found = by_hand(target, steer, row[:end], 0.7 * factors[:end], 0)
        torch.testing.assert_close(law, found, atol=2e-5, rtol=0)
    alone = replace(steer, also=())  # negative controls: one layer, one strength
    for less, factor in ((alone, factors), (steer, torch.ones(len(row)))):
        assert (laws[-1] - by_hand(target, less, row, 0.7 * factor, start)).abs().max() > 1e-3


def by_hand(target, steer, row, strength, first):
    """One forward with a position-masked operator, independent of the package's hooks."""
    mask = strength * (torch.arange(len(row)) >= first).float()
    mask = mask[None, :, None]

    def change(hidden, ways):
        for v in map(torch.from_numpy, ways):
            if steer.operator == "add":
                hidden = hidden + mask * v
            else:
                unit = v / v.norm()
                hidden = hidden - mask * (hidden @ unit)[..., None] * unit
        return hidden

    def on_output(*ways):
        def hook(module, args, output):
            if isinstance(output, tuple):
                return (change(output[0], ways), *output[1:])
            return change(output, ways)

        return hook

    every = [way for _, way in steer.places]

    def on_input(module, args):
        return (change(args[0], every), *args[1:])

    handles = []
    if steer.operator == "add":
        for at, way in steer.places:
            handles.append(target.layers.layers[at].register_forward_hook(on_output(way)))
    else:
        handles += [layer.register_forward_pre_hook(on_input) for layer in target.layers.layers]
        handles += [part.register_forward_hook(on_output(*every)) for part in target.layers.writers]
    try:
        return plain(target, row)[-1]
    finally:
        for handle in handles:
            handle.remove()


def test_activations_before_the_layer_are_untouched_and_after_it_moved_by_the_vector(target):
    before = target.activations(LONG, ())
    assert before.shape == (target.depth, len(LONG), target.width)
    steer = vector(target, "add")
    seen = {}

    def keep(name):
        def hook(module, args, output):
            seen[name] = (output[0] if isinstance(output, tuple) else output)[0, -1].numpy()

        return hook

    handles = [layer.register_forward_hook(keep(i)) for i, layer in enumerate(target.layers.layers)]
    steered = target.stream(steer, slots=1, max_new_tokens=2)
    steered.open(LONG, 1.5)
    steered.push(torch.tensor([LONG[-1]]))
    [handle.remove() for handle in handles]
    np.testing.assert_allclose(seen[1], before[1, -1], atol=2e-5)
    np.testing.assert_allclose(seen[2], before[2, -1], atol=2e-5)  # seen ahead of our hook
    assert abs(seen[3] - before[3, -1]).max() > 1e-3


def test_the_model_is_unchanged_after_use_and_after_an_exception(target):
    before = plain(target, [*LONG])
    stream = target.stream(vector(target, "ablate"), slots=2, max_new_tokens=4)
    stream.open(LONG, 1.0)
    with pytest.raises(Exception):  # noqa: B017 - whatever the embedding raises
        stream.push(torch.tensor([10_000]))
    assert (plain(target, [*LONG]) == before).all()
    assert not any(module._forward_hooks for module in target.model.modules())


def test_vectors_that_do_not_fit_are_refused(target):
    wide = SteeringVector("add", 1, np.ones(17, np.float32))
    with pytest.raises(SteeringError, match="width 17"):
        target.stream(wide, slots=2, max_new_tokens=2)
    deep = SteeringVector("add", 9, np.ones(16, np.float32))
    with pytest.raises(SteeringError, match="layer 9 does not exist"):
        target.stream(deep, slots=2, max_new_tokens=2)


def test_a_prompt_beyond_the_context_is_refused():
    target = build("llama")
    with pytest.raises(ModelError, match="context of 128"):
        target.stream(None, slots=2, max_new_tokens=127).open((3, 4), 0.0)


def test_models_without_decoder_attention_are_refused():
    torch.manual_seed(0)
    mamba = tf.AutoModelForCausalLM.from_config(
        tf.MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, state_size=4)
    )
    with pytest.raises(ModelError, match="cannot be steered"):
        HuggingFaceTarget(mamba, tokenizer=None)
