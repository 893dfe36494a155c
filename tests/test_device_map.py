"""A model spread over devices is the model on one; no machine with two GPUs is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tailcast.config import make_config
from tailcast.errors import ConfigError, ModelError
from tailcast.models import load_target
from tailcast.models.loading import _check_spread
from tailcast.types import ModelSettings
from tiny import save_model


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "m", layers=4)


def tied(path, to):
    """The model with its input embeddings as output embeddings."""
    to.mkdir()
    for file in path.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    weights = load_file(to / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, to / "model.safetensors", {"format": "pt"})
    return to


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_on_two_devices_is_the_model_on_one(path, tmp_path, dtype):
    """In bfloat16 with tied embeddings: then head and last layer are on different devices."""
    model = path if dtype == "float32" else tied(path, tmp_path / "tied")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("two_devices.py")), str(model), dtype],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    close = 1e-4 if dtype == "float32" else 0.3
    assert found["devices"] == found["cache"] == ["far:0", "far:1"]
    assert max(found["gaps"].values()) < close and len(found["gaps"]) == 4
    assert found["projections"][0] == pytest.approx(found["projections"][1], abs=close)
    assert found["states"] < 3 * close and found["same fingerprint"]
    assert found["rows"] == 1024  # as on a GPU
    if dtype == "float32":  # else a token that falls another way moves all that follow
        assert found["same tokens"] and found["weights"] < close


def test_auto_is_the_same_model_where_there_is_one_device(path):
    if torch.cuda.is_available():
        pytest.skip("the map of a GPU rounds otherwise")
    plain, spread = (
        load_target(ModelSettings(model=str(path), device_map=one)) for one in (None, "auto")
    )
    assert spread.devices == plain.devices and spread.fingerprint == plain.fingerprint
    logits = [one.forward([[1, 2, 3]], [[0, 1, 2]]) for one in (plain, spread)]
    assert torch.equal(*logits)


def test_a_model_that_lies_partly_in_main_memory_is_refused():
    placed = SimpleNamespace(hf_device_map={"a": 0, "b": 1, "c": "cpu", "d": "disk"})
    with pytest.raises(ModelError, match="2 of its 4 parts would lie in main memory"):
        _check_spread(placed)
    placed.hf_device_map = {"a": 0, "b": 1}
    _check_spread(placed)


def test_what_device_map_excludes_is_said(path):
    for more, says in [
        ({"device_map": "all"}, "device_map must be 'auto'"),
        ({"device_map": "auto", "device": "cpu"}, "drop device cpu"),
        ({"gpus_per_worker": 2, "device_map": "auto"}, "give ray too"),
        ({"gpus_per_worker": 2, "ray": "local"}, "give device_map auto"),
        ({"device_map": "auto", "target_server": "http://here"}, "needs the model here"),
    ]:
        with pytest.raises(ConfigError, match=says):
            make_config({"model": "m", "queries": "q.jsonl", **more})
    with pytest.raises(ModelError, match="without adapter: merge"):
        load_target(ModelSettings(model=str(path), adapter="a", device_map="auto"))
