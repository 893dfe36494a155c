"""Rows planned from memory, halved when it runs out; weights in four bits."""

import json

import numpy as np
import pytest
import torch

import tailcast
from tailcast.errors import ModelError
from tailcast.models import TabularTarget, is_out_of_memory, load_target, planned_rows
from tailcast.types import ModelSettings
from tiny import exact_risk, save_model


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


def test_rows_follow_the_budget(path):
    target = load_target(ModelSettings(model=str(path)))
    one = target.slot_bytes(8) / 2**30
    assert [planned_rows(target, 8, one * rows) for rows in (1, 2, 5, 64, 1e9)] == [
        2,
        2,
        4,
        64,
        512,
    ]
    kept = 2 * 2 * 8 * 4  # layers, keys and values, width of the one head, bytes of a float32
    assert target.slot_bytes(9) - target.slot_bytes(8) == kept
    table = np.zeros((1, 2, 2))
    assert planned_rows(TabularTarget(table, table), 8) == 128


class Cramped:
    """A target whose device holds a few rows only."""

    def __init__(self, inner, most):
        self.inner, self.most, self.asked = inner, most, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def stream(self, steering, *, slots, max_new_tokens):
        self.asked.append(slots)
        if slots > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
        return self.inner.stream(steering, slots=slots, max_new_tokens=max_new_tokens)


def test_out_of_memory_halves_the_rows_and_is_recorded(path, tmp_path):
    target = Cramped(load_target(ModelSettings(model=str(path))), 20)
    [one] = tailcast.estimate(
        target, ["tell me"], "pattern:two.*two", samples=1500, max_new_tokens=4, batch=64,
        out=tmp_path / "run",
    )  # fmt: skip
    assert target.asked == [64, 32, 16, 16]  # two shards, the second with no new failure
    assert abs(one.p - exact_risk(path, "tell me", "two", 4)) < 4 * one.stderr
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    [note] = manifest["out_of_memory"]
    assert "draws 0 to 511: drawn with 16 rows" in note
    with pytest.raises(ModelError, match="memory ran out with 2 rows"):
        tailcast.estimate(
            Cramped(target.inner, 0), ["tell me"], "pattern:two", samples=10, max_new_tokens=4
        )


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(torch.OutOfMemoryError("x")) and is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_bits_that_define_no_law_or_cannot_be_loaded_are_refused(path):
    for settings, words in [
        ({"model": str(path), "bits": 8}, "no fixed law"),
        ({"model": "embedded", "bits": 4}, "without adapter"),
    ]:
        with pytest.raises(ModelError, match=words):
            load_target(ModelSettings(**settings))
