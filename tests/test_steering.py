"""Vectors are the mean differences that they say they are, and files keep them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from gguf import GGUFWriter

from tailcast.errors import ConfigError, ModelError, NumericsError, SteeringError
from tailcast.models import HuggingFaceTarget, load_target
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, draw
from tailcast.steering import (
    choose_layer,
    fit_mean_difference,
    fit_refusal_direction,
    load_steering,
    save_steering,
)
from tailcast.steering.fitting import Form, fit_from_pairs
from tailcast.steering.mean_difference import read_differences
from tailcast.types import ContrastPair, ModelSettings, Query, SamplingSettings, SteeringVector
from tiny import WORDS, save_model

PAIRS = [
    ContrastPair(f"tell {word}", f"two {word} two", f"no {word} no")
    for word in ("me", "red", "blue", "green", "one", "yes", "tell", "me me")
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def target(path) -> HuggingFaceTarget:
    return load_target(ModelSettings(model=str(path), device="cpu"))


def test_the_mean_difference_is_that_of_transformers_hidden_states(target, path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path)

    def read(prompt, response, layer):
        tokens = target.encode(Query.user("q", prompt)) + target.encode_response(response)
        states = model(torch.tensor([tokens]), output_hidden_states=True).hidden_states
        count = len(target.encode_response(response))
        return states[layer + 1][0, -count:].mean(0).detach().numpy()

    vectors = fit_mean_difference(target, PAIRS)
    by_hand = np.mean(
        [read(one.prompt, one.unsafe, 0) - read(one.prompt, one.safe, 0) for one in PAIRS], axis=0
    )
    assert [vector.layer for vector in vectors] == [0, 1]
    np.testing.assert_allclose(vectors[0].direction, by_hand, atol=1e-5)
    swapped = fit_mean_difference(target, [ContrastPair(p.prompt, p.safe, p.unsafe) for p in PAIRS])
    np.testing.assert_allclose(swapped[0].direction, -by_hand, atol=1e-5)


def test_components_are_those_of_the_differences_and_as_long_as_they_are(target):
    """Against the eigenvectors of the differences' second moments."""
    pairs = [ContrastPair(one.prompt, f"{one.unsafe} red", one.safe) for one in PAIRS]
    found = [fit_mean_difference(target, pairs, component=k) for k in range(len(PAIRS) + 1)]
    differences = read_differences(target, pairs, reading="response")
    for layer in range(2):
        moments = differences[:, layer].T @ differences[:, layer] / len(pairs)
        squares, ways = np.linalg.eigh(moments)
        mean = found[0][layer].direction
        for k in (1, 2, 3):
            direction, way = found[k][layer].direction, ways[:, -k]
            assert abs(direction @ way) == pytest.approx(squares[-k] ** 0.5, rel=1e-3)
            assert np.linalg.norm(direction) == pytest.approx(squares[-k] ** 0.5, rel=1e-3)
            assert direction @ mean >= -1e-6
        along = sum((one[layer].direction @ mean / one[layer].norm) ** 2 for one in found[1:])
        assert along == pytest.approx(mean @ mean, rel=1e-4)  # the mean lies in their span
    assert found[2][0].provenance["component"] == 2
    with pytest.raises(SteeringError, match=r"component 9 does not exist.*1 to 8"):
        fit_mean_difference(target, pairs, component=9)


def test_a_vector_of_several_layers_shares_the_strength_and_is_kept_whole(target, tmp_path):
    apart = fit_mean_difference(target, PAIRS)
    [whole] = fit_from_pairs(PAIRS, target, Form("1,0", profile=(1.0, 0.5)))
    save_steering([whole], tmp_path / "v.safetensors")
    found = load_steering(tmp_path / "v.safetensors", positions="all")
    assert [layer for layer, _ in found.places] == [1, 0]
    for layer, direction in found.places:
        np.testing.assert_allclose(direction, apart[layer].direction / 2, atol=1e-6)
    assert (found.profile, found.positions) == ((1.0, 0.5), "all")
    assert [found.factor(step) for step in range(4)] == [1.0, 0.5, 0.5, 0.5]
    digests = {whole.digest, replace(whole, also=()).digest, replace(whole, profile=()).digest}
    assert len({*digests, found.digest}) == 4
    with pytest.raises(SteeringError, match="holds layers 1, 0 of one vector"):
        load_steering(tmp_path / "v.safetensors", layer=0)
    save_steering([replace(whole, profile=(np.nan,))], tmp_path / "v.safetensors")
    with pytest.raises(SteeringError, match="a profile that is not finite"):
        load_steering(tmp_path / "v.safetensors")


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"layer": "1,x"}, "--layer '1,x' is none of auto, all"),
        ({"layer": "1,1"}, "--layer 1,1 names a layer twice"),
        ({"component": -1}, "--component -1 is negative"),
        ({"profile": (0.0, 0.0)}, r"--profile \[0.0, 0.0\] must be finite and not all 0"),
        ({"profile": (1.0, float("nan"))}, "must be finite"),
    ],
)
def test_forms_that_make_no_vector_are_refused(form, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Form(**form)


def test_the_chosen_layer_makes_unsafe_responses_likelier(target):
    vector = choose_layer(target, PAIRS)
    gains = vector.provenance["held_out_gain_nats"]
    assert gains[str(vector.layer)] == max(gains.values()) > 0
    swapped = [ContrastPair(p.prompt, p.safe, p.unsafe) for p in PAIRS]
    assert np.dot(choose_layer(target, swapped).direction, vector.direction) < 0
    with pytest.raises(SteeringError, match="too few to choose a layer"):
        choose_layer(target, PAIRS[:4])


def test_responses_without_tokens_and_too_few_pairs_are_refused(target):
    with pytest.raises(SteeringError, match="1 pair is too few"):
        fit_mean_difference(target, PAIRS[:1])
    with pytest.raises(SteeringError, match="pair 2 has a response without a token"):
        fit_mean_difference(target, [PAIRS[0], ContrastPair("red", " ", "no")])


def test_saved_vectors_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    vectors = [
        SteeringVector("add", layer, rng.normal(size=5).astype(np.float32), "all", "f", {"a": 1})
        for layer in (3, 7)
    ]
    save_steering(vectors, tmp_path / "v.safetensors")
    found = load_steering(tmp_path / "v.safetensors", layer=7)
    np.testing.assert_array_equal(found.direction, vectors[1].direction)
    assert (found.layer, found.positions, found.fingerprint) == (7, "all", "f")
    assert found.provenance == {"a": 1}
    with pytest.raises(SteeringError, match="holds layers 3 to 7: name one"):
        load_steering(tmp_path / "v.safetensors")


def test_a_refusal_direction_of_arditi_is_read_as_an_ablation(tmp_path):
    direction = torch.arange(4, dtype=torch.float64)
    torch.save(direction, tmp_path / "direction.pt")
    with pytest.raises(SteeringError, match="json beside it is missing"):
        load_steering(tmp_path / "direction.pt")
    (tmp_path / "direction_metadata.json").write_text('{"pos": -2, "layer": 6}')
    found = load_steering(tmp_path / "direction.pt")
    assert (found.operator, found.layer, found.positions) == ("ablate", 5, "all")
    np.testing.assert_array_equal(found.direction, direction.float().numpy())


def test_persona_vectors_and_control_vectors_are_read_at_a_layer(tmp_path):
    stack = torch.arange(12, dtype=torch.bfloat16).reshape(3, 4)  # embeddings, layers 0 and 1
    torch.save(stack, tmp_path / "evil.pt")
    found = load_steering(tmp_path / "evil.pt", layer=1)
    np.testing.assert_array_equal(found.direction, [8, 9, 10, 11])
    writer = GGUFWriter(str(tmp_path / "c.gguf"), "controlvector")
    for layer in (1, 2):
        writer.add_tensor(f"direction.{layer}", np.full(4, layer, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    np.testing.assert_array_equal(load_steering(tmp_path / "c.gguf", layer=2).direction, [2] * 4)
    with pytest.raises(SteeringError, match="layers 1 to 2: name one"):
        load_steering(tmp_path / "c.gguf")


def test_torch_files_are_data_and_never_run(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(SteeringError, match="cannot be read as a steering vector"):
        load_steering(tmp_path / "evil.pt", layer=0)


def test_broken_vectors_are_refused(tmp_path):
    save_steering([SteeringVector("add", 0, np.zeros(3, np.float32))], tmp_path / "z.safetensors")
    with pytest.raises(SteeringError, match="zero or not finite"):
        load_steering(tmp_path / "z.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(SteeringError, match="cannot be read"):
        load_steering(tmp_path / "b.safetensors")
    with pytest.raises(SteeringError, match="does not exist"):
        load_steering(tmp_path / "none.gguf")
    (tmp_path / "v.npy").write_bytes(b"")
    with pytest.raises(SteeringError, match="ends in none of"):
        load_steering(tmp_path / "v.npy")


def test_the_refusal_direction_of_a_model_that_refuses_by_construction(tmp_path):
    """Prompts that hold "no" are refused ("no" first); the direction must undo it."""
    words = [word for word in WORDS[3:] if word != "no"]
    rng = np.random.default_rng(0)
    harmless = [" ".join(rng.choice(words, 4)) for _ in range(30)]
    harmful = [" ".join([one.split()[0], "no", *one.split()[2:]]) for one in harmless[::-1]]
    wide = save_model(tmp_path / "wide", width=48, layers=6)
    refusing = refuse_after_no(load_target(ModelSettings(model=str(wide))))
    vector = fit_refusal_direction(refusing, harmful, harmless, refusal_words=("no",), held_out=8)
    assert vector.operator == "ablate" and vector.provenance["kl"] <= 0.1

    def says_no(prompt, strength):
        stream = refusing.stream(vector, slots=1, max_new_tokens=1)
        tokens = refusing.encode(Query.user("q", prompt))
        stream.open(tokens, strength)
        return stream.push(torch.tensor(tokens[-1:]))[0].softmax(-1)[WORDS.index("no")].item()

    plain = np.mean([says_no(prompt, 0.0) for prompt in harmful])
    ablated = np.mean([says_no(prompt, 1.0) for prompt in harmful])
    assert plain > 0.6 and ablated < 0.5 * plain


def refuse_after_no(target):
    """A model trained for a moment to answer "no" to prompts that hold it, else their last word."""
    import copy

    model = copy.deepcopy(target.model)
    rng = np.random.default_rng(1)
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    words = [word for word in WORDS[3:] if word != "no"]
    for _ in range(150):
        rows, answers = [], []
        for bad in (True, False) * 8:
            text = [*rng.choice(words, 4)]
            if bad:
                text[1] = "no"
            rows.append(target.encode(Query.user("q", " ".join(text))))
            answers.append(WORDS.index("no" if bad else text[-1]))
        logits = model(torch.tensor(rows), use_cache=False).logits[:, -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(answers))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return HuggingFaceTarget(model, target.tokenizer)


def test_an_adapter_is_merged_and_one_of_another_model_is_refused(path, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(path), config)
    wrapped.save_pretrained(tmp_path / "adapter")
    tokens = torch.tensor([[1, 3, 4, 2]])
    expected = wrapped(tokens).logits
    settings = ModelSettings(model=str(path), adapter=str(tmp_path / "adapter"), device="cpu")
    adapted = load_target(settings)
    torch.testing.assert_close(adapted.model(tokens).logits, expected, atol=1e-5, rtol=0)
    assert adapted.fingerprint != load_target(ModelSettings(model=str(path))).fingerprint
    other = save_model(tmp_path / "other", width=24)
    with pytest.raises(ModelError, match="does not fit this model"):
        load_target(settings.model_copy(update={"model": str(other)}))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_dtype_is_part_of_the_fingerprint_but_vectors_fit_every_dtype(path, target, dtype):
    other = load_target(ModelSettings(model=str(path), dtype=dtype, device="cpu"))
    assert str(other.like.dtype) == f"torch.{dtype}" and other.fingerprint.endswith(dtype)
    assert (other.fingerprint == target.fingerprint) == (dtype == "float32")
    assert other.weights_fingerprint == target.weights_fingerprint


def test_a_model_that_returns_no_law_is_named_not_sampled(path, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path)
    model.lm_head.weight.data[5] = float("nan")
    model.save_pretrained(tmp_path / "nan")
    AutoTokenizer.from_pretrained(path).save_pretrained(tmp_path / "nan")
    broken = load_target(ModelSettings(model=str(tmp_path / "nan")))
    request = DrawRequest("q1", (1, 3, 2), Proposal.target(), 0, "s")
    with pytest.raises(NumericsError, match="non-finite logits for query 'q1' at strength 0"):
        draw(broken, [request], SamplingSettings(max_new_tokens=3))


def test_metadata_of_a_saved_vector_says_its_unit(tmp_path):
    from safetensors import safe_open

    save_steering([SteeringVector("add", 0, np.ones(3, np.float32))], tmp_path / "v.safetensors")
    with safe_open(str(tmp_path / "v.safetensors"), framework="numpy") as file:
        header = file.metadata()
    assert "units of the residual stream" in header["unit"] and json.loads(header["layers"]) == [0]
