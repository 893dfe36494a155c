"""Steps that Llama's layers make by themselves are those of transformers' layers."""

import copy
import pickle

import pytest
import torch
from tests.tiny import save_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from tailcast.models import HuggingFaceTarget, lean
from tailcast.models.lean import LeanLayer
from tailcast.models.packed import PackedLinear
from tailcast.types import SteeringVector

PROMPTS = ((3, 1, 4, 1, 5), (9, 2, 6))
TOKENS = (5, 3, 5), (8, 9, 7), (9, 3, 2), (3, 8, 4)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    place = save_model(tmp_path_factory.mktemp("tiny"))
    return PreTrainedTokenizerFast.from_pretrained(place)


@pytest.fixture
def target(tokenizer, request):
    dtype, bias = getattr(request, "param", (torch.float32, False))
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=12, hidden_size=48, intermediate_size=40, num_hidden_layers=3,
        num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=64,
        attention_bias=bias, mlp_bias=bias, eos_token_id=0, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(dtype)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn_like(weight)
    return HuggingFaceTarget(model, tokenizer)


@pytest.fixture
def made(monkeypatch):
    """The steps that layers make by themselves."""
    steps, step = [], lean._Step.made
    monkeypatch.setattr(
        lean._Step, "made", lambda self, *args: steps.append(self) or step(self, *args)
    )
    return steps


def logits(target, steering=None, strength=0.0):
    """Three rows of two prompts, the third one opened a step later; [rows in all, V]."""
    stream = target.stream(steering, slots=3, max_new_tokens=8)
    stream.open(PROMPTS[0], strength)
    stream.open(PROMPTS[1], 0.0)
    found = [stream.push(torch.tensor(TOKENS[0][:2]))]
    stream.open(PROMPTS[0], strength)
    found += [stream.push(torch.tensor(tokens)) for tokens in TOKENS[1:]]
    return torch.cat(found)


def as_transformers(target, *args):
    """The same by transformers' layers."""
    for layer in target.layers.layers:
        layer.__class__ = LlamaDecoderLayer
    try:
        return logits(target, *args)
    finally:
        lean.make_lean(target.layers.layers)


def gap(target, *args):
    return (logits(target, *args) - as_transformers(target, *args)).abs().max().item()


@pytest.mark.parametrize("target", [(torch.float32, bias) for bias in (False, True)], indirect=True)
def test_a_step_is_that_of_transformers_layers(target, made):
    plain = as_transformers(target)
    assert not made
    assert (logits(target) - plain).abs().max() < 1e-4
    assert len(made) == 4 * 3  # every layer of every step
    for name, weight in target.model.get_decoder().layers[1].named_parameters():
        before = weight.detach().clone()
        with torch.no_grad():
            weight += 0.5
        found = logits(target)
        assert (found - plain).abs().max() > 1e-3, name  # that it changed is seen
        assert (found - as_transformers(target)).abs().max() < 1e-4, name
        with torch.no_grad():
            weight.copy_(before)


@pytest.mark.parametrize("target", [(torch.bfloat16, True)], indirect=True)
def test_rounding_is_no_worse_than_transformers(target, tokenizer, made):
    exact = logits(HuggingFaceTarget(copy.deepcopy(target.model).float(), tokenizer))
    made.clear()
    errors = [
        (one - exact).square().mean().sqrt() for one in (logits(target), as_transformers(target))
    ]
    assert made and 0.001 < errors[0] < 1.5 * errors[1]


@pytest.mark.parametrize("operator", ["add", "ablate"])
def test_a_steered_layer_is_steered(target, made, operator):
    direction = 3 * torch.randn(48, generator=torch.Generator().manual_seed(1)).numpy()
    steering = SteeringVector(operator, 1, direction)
    assert gap(target, steering, 1.0) < 1e-4
    assert bool(made) == (operator == "add")  # ablation hooks into attention and MLP
    assert (logits(target, steering, 1.0) - logits(target)).abs().max() > 0.1


INNER = [
    "self_attn", "self_attn.q_proj", "self_attn.o_proj", "mlp", "mlp.gate_proj", "mlp.act_fn",
    "mlp.down_proj", "input_layernorm", "post_attention_layernorm",
]  # fmt: skip


@pytest.mark.parametrize("name", INNER)
def test_who_hooks_into_a_module_is_heard(target, made, name):
    def louder(module, args, output):
        return (output[0] + 1.0, *output[1:]) if isinstance(output, tuple) else output + 1.0

    before = logits(target)
    module = target.layers.layers[1].get_submodule(name)
    made.clear()
    handle = module.register_forward_hook(louder)
    assert gap(target) < 1e-4 and len(made) == 4 * 2  # the other two layers make theirs
    assert (logits(target) - before).abs().max() > 1e-3
    handle.remove()
    assert torch.equal(logits(target), before)
    module.forward = lambda *args, kept=module.forward, **kwargs: louder(
        module, args, kept(*args, **kwargs)
    )
    assert (logits(target) - before).abs().max() > 1e-3


class Adapter(nn.Module):
    """What an adapter's library puts in a product's place."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, input):
        return self.base(input) + input.sum(-1, keepdim=True)


@pytest.mark.parametrize("name", ["q_proj", "o_proj"])
def test_a_module_that_took_anothers_place_is_used(target, name):
    before = logits(target)
    attention = target.layers.layers[1].self_attn
    attention._modules[name] = Adapter(attention._modules[name])
    assert (logits(target) - before).abs().max() > 1e-3
    assert gap(target) < 1e-4


def test_products_that_are_no_longer_packed_are_plain(target):
    before = logits(target)
    for one in target.model.modules():
        if type(one) is PackedLinear:
            one.__class__ = nn.Linear
    assert (logits(target) - before).abs().max() < 1e-4


def test_weights_merged_unseen_are_seen_by_a_new_target(target, tokenizer):
    before = logits(target)
    target.layers.layers[1].self_attn.q_proj.weight.data += 0.5
    anew = HuggingFaceTarget(target.model, tokenizer)
    assert (logits(anew) - before).abs().max() > 1e-3
    assert gap(anew) < 1e-4


def test_copies_have_modules_of_their_own(target, tokenizer):
    before = logits(target)
    for copied in (copy.deepcopy(target.model), pickle.loads(pickle.dumps(target.model))):
        twin = HuggingFaceTarget(copied, tokenizer)
        assert (logits(twin) - before).abs().max() < 1e-5
        with torch.no_grad():
            copied.get_decoder().layers[0].mlp.up_proj.weight.zero_()
        assert (logits(twin) - before).abs().max() > 1e-3
        assert torch.equal(logits(target), before)


def test_the_model_outside_of_steps_is_transformers_own(target, made):
    row = torch.tensor([PROMPTS[0]])
    assert type(target.layers.layers[0]) is LeanLayer
    found = target.model(row).logits
    found.square().sum().backward()
    slope = target.layers.layers[0].mlp.up_proj.weight.grad.clone()
    target.model.zero_grad()
    for layer in target.layers.layers:
        layer.__class__ = LlamaDecoderLayer
    again = target.model(row).logits
    again.square().sum().backward()
    assert torch.equal(found, again) and not made
    assert torch.equal(slope, target.layers.layers[0].mlp.up_proj.weight.grad)


def test_another_activation_takes_transformers_way(tokenizer, made):
    config = LlamaConfig(
        vocab_size=12, hidden_size=48, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=6, hidden_act="gelu", max_position_embeddings=64,
    )  # fmt: skip
    target = HuggingFaceTarget(LlamaForCausalLM(config), tokenizer)
    assert gap(target) == 0.0 and not made
