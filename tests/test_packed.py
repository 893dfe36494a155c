"""Products by packed weights are torch's own, and follow what becomes of the weights."""

import copy
import pickle

import pytest
import torch
from torch import nn

from tailcast.models import packed
from tailcast.models.head import widen_head
from tailcast.models.packed import PackedLinear, pack_products

ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2.0**-6}


def pair(dtype, *, bias=True, seed=0):
    """A linear module and its packed twin."""
    torch.manual_seed(seed)
    plain = nn.Linear(48, 20, bias=bias).to(dtype)
    twin = copy.deepcopy(plain)
    pack_products(twin)
    assert type(twin) is PackedLinear
    return plain, twin


def gap(one, other, shape=(5, 1, 48), seed=1):
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    numbers = numbers.to(one.weight.dtype)
    with torch.no_grad():
        return (one(numbers) - other(numbers)).abs().max().item()


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(48,), (1, 48), (7, 48), (3, 1, 48), (1, 600, 48)])
def test_a_packed_product_is_the_plain_one(dtype, bias, shape):
    plain, twin = pair(dtype, bias=bias)
    assert gap(plain, twin, shape) <= ROUNDING[dtype]
    with torch.no_grad():
        plain.weight[0, 0] += 0.5
    assert gap(plain, twin, shape) > 10 * ROUNDING[dtype]  # another weight shows


@pytest.mark.parametrize("dtype", ROUNDING)
def test_it_follows_its_weight(dtype):
    plain, twin = pair(dtype)
    gap(plain, twin)
    with torch.no_grad():
        for one in (plain, twin):
            one.weight.mul_(3)  # in place, as an optimizer does
    assert gap(plain, twin) <= 3 * ROUNDING[dtype]
    other, _ = pair(dtype, seed=2)
    twin.load_state_dict(other.state_dict())
    assert gap(other, twin) <= ROUNDING[dtype]
    for one in (plain, twin):
        one.weight.data = torch.ones_like(one.weight)
    twin.bias.data = plain.bias.data
    assert gap(plain, twin) <= 10 * ROUNDING[dtype]
    assert gap(plain.double(), twin.double()) == 0.0  # oneDNN has no such product


def test_copies_have_weights_of_their_own_and_can_be_sent():
    plain, twin = pair(torch.float32)
    gap(plain, twin)
    copied = copy.deepcopy(twin)
    with torch.no_grad():
        copied.weight.zero_()
    assert gap(plain, twin) <= 1e-5 and gap(plain, copied) > 0.1
    assert gap(plain, pickle.loads(pickle.dumps(twin))) <= 1e-5


def test_gradients_flow_as_ever():
    plain, twin = pair(torch.float32)
    numbers = torch.randn(4, 48)
    for one in (plain, twin):
        one(numbers).square().sum().backward()
    assert torch.equal(plain.weight.grad, twin.weight.grad)


def test_what_is_large_replaced_or_of_another_kind_is_left_alone():
    class Own(nn.Linear):
        """Somebody's subclass."""

    def model():
        return nn.Sequential(nn.Linear(8, 8), Own(8, 8), nn.Linear(8, 8).half())

    large, small = model(), model()
    pack_products(large, most=8 * 8 * 4 - 1)
    assert [type(one) for one in large] == [nn.Linear, Own, nn.Linear]
    small.append(nn.Linear(8, 8))
    small[3].forward = small[3].forward
    pack_products(small, most=8 * 8 * 4)
    assert [type(one) for one in small] == [PackedLinear, Own, nn.Linear, nn.Linear]


class Model(nn.Module):
    """Output embeddings in 16 bits, and nothing else."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(3)
        self.head = nn.Linear(48, 20).to(dtype)

    def get_output_embeddings(self):
        return self.head


def exactly(head, hidden):
    return hidden.double() @ head.weight.double().T + head.bias.double()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_widened_head_follows_its_weight_and_copies_have_their_own(dtype):
    model, hidden = Model(dtype), torch.randn(5, 1, 48).to(dtype)
    widen_head(model)
    before = exactly(model.head, hidden)
    with torch.no_grad():
        assert (model.head(hidden) - before).abs().max() < 1e-4
        copied = copy.deepcopy(model)
        model.head.weight.mul_(2)
        after = exactly(model.head, hidden)
        assert (model.head(hidden) - after).abs().max() < 1e-4 < (after - before).abs().max()
        for other in (copied, pickle.loads(pickle.dumps(copied))):
            assert (other.head(hidden) - before).abs().max() < 1e-4
        assert model.head(hidden[:0]).shape == (0, 1, 20)


def test_a_widened_head_learns():
    models = Model(torch.bfloat16), Model(torch.bfloat16)
    hidden = torch.randn(5, 48).bfloat16()
    widen_head(models[0])
    for one in models:
        one.head(hidden).float().square().sum().backward()
    ours, plain = (one.head.weight.grad for one in models)
    assert ours.dtype == plain.dtype and ours.abs().max() > 0.1
    assert (ours - plain).abs().max() < 2.0**-6 * plain.abs().max()


def test_what_torch_does_not_count_is_seen_when_packed_anew():
    """PEFT merges adapters so; a new target of the model packs it again."""
    model, hidden = Model(torch.bfloat16), torch.randn(5, 48).bfloat16()
    widen_head(model)
    with torch.no_grad():
        model.head(hidden)
        model.head.weight.data += 0.5
        truth = exactly(model.head, hidden)
        assert (model.head(hidden) - truth).abs().max() > 0.1  # else this test shows nothing
        widen_head(model)
        pack_products(model)
        assert (model.head(hidden) - truth).abs().max() < 1e-4


class Layer(nn.Module):
    """Modules of the names under which transformers' attention reads its input."""

    def __init__(self, dtype, *, bias):
        super().__init__()
        torch.manual_seed(4)
        self.q_proj = nn.Linear(48, 32, bias=bias).to(dtype)
        self.k_proj = nn.Linear(48, 8, bias=bias).to(dtype)
        self.v_proj = nn.Linear(48, 8, bias=bias).to(dtype)

    def forward(self, query, rest):
        return torch.cat([self.q_proj(query), self.k_proj(rest), self.v_proj(rest)], -1)


def layers(dtype, *, bias=False):
    """A layer, and its twin whose products are joined."""
    plain = Layer(dtype, bias=bias)
    twin = copy.deepcopy(plain)
    pack_products(twin)
    return plain, twin


@pytest.fixture
def made(monkeypatch):
    """The products that are made."""
    products, product = [], packed._product
    monkeypatch.setattr(packed, "_product", lambda *args: products.append(args) or product(*args))
    return products


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("bias", [True, False])
def test_modules_of_one_input_multiply_it_once(dtype, bias, made):
    plain, twin = layers(dtype, bias=bias)
    some, others = torch.randn(2, 5, 1, 48).to(dtype)
    bound = 3 * ROUNDING[dtype]

    def apart(*inputs):
        with torch.no_grad():
            return (plain(*inputs) - twin(*inputs)).abs().max()

    assert apart(some, some) <= bound and len(made) == 1
    assert apart(some, others) <= bound and apart(others, some) <= bound  # inputs that differ
    assert apart(others, others) <= bound
    with torch.no_grad():
        plain.k_proj.weight.mul_(3)
        assert apart(some, some) > 10 * bound  # another weight shows
        twin.k_proj.weight.mul_(3)
    assert apart(some, some) <= 3 * bound
    with torch.no_grad():
        assert twin(some[:0], some[:0]).shape == (0, 1, 48)


def test_joined_modules_are_copied_sent_and_packed_anew(made):
    plain, twin = layers(torch.float32)
    numbers = torch.randn(5, 48)
    with torch.no_grad():
        twin(numbers, numbers)
        copied = copy.deepcopy(twin)
        copied.v_proj.weight.zero_()
        for one in (twin, pickle.loads(pickle.dumps(twin))):
            assert (one(numbers, numbers) - plain(numbers, numbers)).abs().max() < 1e-5
        assert not copied(numbers, numbers)[:, 40:].any()
        twin.v_proj.weight.data += 1.0  # which torch does not count
        pack_products(twin)
        plain.v_proj.weight += 1.0
        made.clear()
        assert (twin(numbers, numbers) - plain(numbers, numbers)).abs().max() < 1e-5
    assert len(made) == 1
    for one in (plain, twin):
        one(numbers, numbers).square().sum().backward()
    assert torch.allclose(plain.q_proj.weight.grad, twin.q_proj.weight.grad)


def test_modules_that_differ_in_kind_are_not_joined(made):
    plain = Layer(torch.float32, bias=False)
    plain.v_proj = nn.Linear(48, 8)  # with a bias
    twin = copy.deepcopy(plain)
    pack_products(twin)
    numbers = torch.randn(5, 48)
    with torch.no_grad():
        assert (twin(numbers, numbers) - plain(numbers, numbers)).abs().max() < 1e-5
    assert len(made) == 3
