"""Continuations by a server: a real socket, the tiny model behind it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from tailcast.errors import ModelError
from tailcast.models.engines import ServerEngine, build_engine
from tailcast.types import ModelSettings, SamplingSettings
from tiny import call, exact_risk, save_model


class Handler(BaseHTTPRequestHandler):
    """The two paths of an OpenAI-compatible server that the engine uses."""

    model = None
    lock = threading.Lock()
    busy = 0
    words = None  # a tokenizer: answer with texts alone

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.answer({"data": [{"id": "tiny"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            if type(self).busy > 0:
                type(self).busy -= 1
                return self.answer({}, 503)
            tokens = self.complete(body)
        ended = tokens[-1] in body["stop_token_ids"]
        if self.words:
            text = " " + self.words.decode(tokens, skip_special_tokens=True)
            choice = {"text": text, "finish_reason": "stop" if ended else "length"}
            usage = {"completion_tokens": len(tokens)}
            return self.answer({"choices": [choice], "usage": usage})
        choice = {"text": "", "token_ids": tokens, "finish_reason": "stop" if ended else "length"}
        return self.answer({"choices": [choice], "usage": {"completion_tokens": len(tokens)}})

    def complete(self, body):
        rng, tokens, new = np.random.default_rng(body["seed"]), list(body["prompt"]), []
        while len(new) < body["max_tokens"] and (not new or new[-1] not in body["stop_token_ids"]):
            with torch.no_grad():
                logits = self.model(input_ids=torch.tensor([tokens])).logits[0, -1].double()
            law = (logits / body["temperature"]).softmax(-1).numpy()
            new.append(int(rng.choice(len(law), p=law / law.sum())))
            tokens.append(new[-1])
        return new

    def answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def address(path):
    from transformers import AutoModelForCausalLM

    Handler.model = AutoModelForCausalLM.from_pretrained(path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def flags(tmp_path, path):
    from tailcast.steering import save_steering
    from tailcast.types import SteeringVector

    (tmp_path / "q.jsonl").write_text('{"prompt": "tell me"}\n')
    vector = SteeringVector("add", 1, np.linspace(-1, 1, 16).astype(np.float32))
    save_steering([vector], tmp_path / "v.safetensors")
    return [
        "estimate", "--model", path, "--queries", tmp_path / "q.jsonl", "--judge",
        "pattern:two.*two", "--max-new-tokens", 4, "--quiet", "--json", "--out", tmp_path / "out",
        "--temperature", 0.7, "--steering", tmp_path / "v.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("proposal", ["0.5,1,0.2", "1,2,0.1"])
def test_a_server_continues_steered_prefixes(capsys, path, address, flags, proposal):
    code, out, err = call(
        capsys, *flags, "--engine", address, "--proposal", proposal, "--samples", 1200,
        "--continuations", 2,
    )  # fmt: skip
    assert code == 0, err
    one = json.loads(out)
    truth = exact_risk(path, "tell me", "two", 4, temperature=0.7)
    assert abs(one["p"] - truth) < 4 * one["stderr"]
    assert one["n"] == 1200


def test_a_server_that_gives_texts_alone_serves_a_mixture(
    capsys, path, address, flags, monkeypatch
):
    from transformers import AutoTokenizer

    monkeypatch.setattr(Handler, "words", AutoTokenizer.from_pretrained(path))
    code, out, err = call(
        capsys, *flags, "--engine", address, "--samples", 600, "--switches", 1, "--switches", 2
    )
    assert code == 0, err
    one = json.loads(out)
    truth = exact_risk(path, "tell me", "two", 4, temperature=0.7)
    assert one["method"] == "mixture" and abs(one["p"] - truth) < 4 * one["stderr"]


@pytest.mark.parametrize("more", [["--roulette", 0.2], ["--no-settle"], ["--continuations", 3]])
def test_options_of_the_own_engine_agree_with_enumeration(capsys, path, flags, more):
    code, out, err = call(
        capsys, *flags, "--proposal", "0.5,2,0.2", "--samples", 3000, "--monte-carlo", 3000, *more
    )
    assert code == 0, err
    truth = exact_risk(path, "tell me", "two", 4, temperature=0.7)
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert abs(row["p"] - truth) < 4 * row["stderr"]


def test_a_busy_server_is_asked_again(address):
    Handler.busy = 2
    engine = ServerEngine(address, frozenset({0}))
    [one] = engine.sample([(1, 2)], SamplingSettings(), limits=[3], seeds=[5])
    assert Handler.busy == 0 and 1 <= one.length <= 3
    again = engine.sample([(1, 2)] * 8, SamplingSettings(), limits=[3] * 8, seeds=range(5, 13))
    assert again[0] == one and len({row.tokens for row in again}) > 1
    engine.server.client.close()


def test_servers_and_engines_that_cannot_be_used_are_named(capsys, address, flags):
    for engine, words in [
        ("http://127.0.0.1:9", "does not answer"),
        ("fast", "engine 'fast' is none of own, vllm"),
        ("vllm", "pip install 'tailcast[vllm]'"),
    ]:
        code, _, err = call(capsys, *flags, "--samples", 10, "--engine", engine)
        assert code == 2 and words in err and "Traceback" not in err
    code, _, err = call(
        capsys, *flags, "--samples", 10, "--engine", address, "--engine-model", "other"
    )
    assert code == 2 and "does not serve 'other'" in " ".join(err.split())
    code, _, err = call(capsys, *flags, "--samples", 10, "--continuations", 3)
    assert code == 2 and "no multiple of continuations" in " ".join(err.split())
    with pytest.raises(ModelError, match="does not answer"):
        build_engine(
            "http://127.0.0.1:9", ModelSettings(model="x"), frozenset(),
            served_name=None, seeded=True, workers=2,
        )  # fmt: skip
