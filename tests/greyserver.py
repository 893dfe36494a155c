"""An OpenAI-compatible server with enumerable models behind it, which fails when it is told to."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from tailcast.models import TabularTarget
from tailcast.models.served import Remote
from tailcast.types import Continuation
from tiny import WORDS

STEPS = 4
END, BOT = WORDS.index("<end>"), WORDS.index("<bot>")


def world(seed):
    """A law over the twelve words; "two" is rarer in later ones, and less so after a "two"."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(STEPS, 12, 12))
    table[:, :, WORDS.index("two")] -= 0.5 * seed
    table[:, WORDS.index("two"), WORDS.index("two")] += 1.5
    table[:, :, [1, 2]] -= 30
    return TabularTarget(table, np.zeros_like(table))


WORLDS = [world(seed) for seed in range(5)]


def prompt_of(*said):
    """Token ids of a chat; what is no word is "me"."""
    words = " ".join(f"<user> {one}" for one in said) + " <bot>"
    return tuple(WORDS.index(word if word in WORDS else "me") for word in words.split())


PROBE = list(prompt_of("Hello."))


def world_of(prompt):
    """Every prompt has a law of its own."""
    return WORLDS[sum(prompt) % len(WORLDS)]


def law_after(tokens):
    """Log-probabilities of the next token after a prompt and a response."""
    place = tokens.index(BOT) + 1
    row = world_of(tokens[:place]).table[len(tokens) - place, tokens[-1]]
    return row - np.logaddexp.reduce(row)


def sampled(tokens, limit, rng):
    new = []
    while len(new) < limit and (not new or new[-1] != END):
        law = np.exp(law_after([*tokens, *new]))
        new.append(int(rng.choice(12, p=law / law.sum())))
    return new


class Here(Remote):
    """The same as a served target without a server."""

    end_tokens = frozenset({END})
    fingerprint = "here"

    def __init__(self):
        super().__init__(1)

    def encode(self, query):
        return prompt_of(*(one["content"] for one in query.messages))

    def decode(self, tokens):
        return " ".join(WORDS[token] for token in tokens if token != END)

    def encode_response(self, text):
        return tuple(WORDS.index(word) for word in text.split())

    def continued(self, prompt, settings, limit, seed):
        tokens = sampled(list(prompt), limit, np.random.default_rng(seed))
        finish = "stop" if tokens[-1] == END else "length"
        return Continuation(tuple(tokens), None, finish, len(tokens))

    def given(self, asked):
        found = []
        for prompt, tokens, _ in asked:
            laws = [law_after([*prompt, *tokens[:number]]) for number in range(len(tokens))]
            found.append(np.array([law[token] for law, token in zip(laws, tokens, strict=True)]))
        return found, sum(len(prompt) + len(tokens) + 1 for prompt, tokens, _ in asked)


class Handler(BaseHTTPRequestHandler):
    """The paths of a server; ``quirks`` says what is wrong with it for good."""

    protocol_version = "HTTP/1.1"
    lock = threading.Lock()

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.answer({"data": [{"id": "tiny"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        site, path = self.server, self.path
        if path == "/tokenize":
            return self.tokenize(body)
        sampling = not body.get("echo") and body.get("prompt") != PROBE
        with self.lock:
            fault = site.faults.pop() if site.faults and sampling else ""
            if sampling and not fault:
                if site.lives == 0:
                    fault = "cut"
                else:
                    site.lives -= 1
                    site.answered[json.dumps(body, sort_keys=True)] += 1
        if fault == "slow":
            time.sleep(0.5)
        if fault in ("cut", "slow"):
            self.close_connection = True
            return self.connection.close()
        if fault:
            return self.answer({"error": fault}, int(fault))
        rng = site.rng if body.get("seed") is None else np.random.default_rng(body["seed"])
        if path == "/v1/chat/completions":
            return self.chat(body, rng)
        return self.complete(body, rng)

    def tokenize(self, body):
        if "no tokenize" in self.server.quirks:
            return self.answer({"detail": "Not Found"}, 404)
        tokens = list(prompt_of(*(one["content"] for one in body["messages"])))
        return self.answer({"tokens": tokens[1:] if "template" in self.server.quirks else tokens})

    def chat(self, body, rng):
        prompt = prompt_of(*(one["content"] for one in body["messages"]))
        tokens = sampled(list(prompt), body["max_tokens"], rng)
        finish = "stop" if tokens[-1] == END else "length"
        message = {"role": "assistant", "content": Here().decode(tokens)}
        usage = {"completion_tokens": len(tokens)}
        self.answer({"choices": [{"message": message, "finish_reason": finish}], "usage": usage})

    def complete(self, body, rng):
        prompt, quirks = body["prompt"], self.server.quirks
        tokens = sampled(prompt, body["max_tokens"], rng) if not body.get("echo") else [END]
        finish = "stop" if tokens[-1] in body.get("stop_token_ids", [END]) else "length"
        text = Here().decode(tokens)
        choice = {"text": text, "finish_reason": finish, "token_ids": tokens}
        choice["prompt_token_ids"] = [*prompt[1:], 3] if "others" in quirks else prompt
        if body.get("echo") and "no logprobs" not in quirks:
            start = prompt.index(BOT) + 1
            wrong = "wrong" in quirks and prompt[:start] == list(prompt_of("tell me"))
            read = [*prompt_of("red"), *prompt[start:]] if wrong else prompt
            at = len(read) - len(prompt)
            laws = [None] * start
            for number in range(start, len(prompt)):
                laws.append(float(law_after(read[: number + at])[prompt[number]]))
            choice["logprobs"] = {"token_logprobs": [*laws, -0.1]}
        if "stops" in quirks:
            choice["finish_reason"] = "abort"
        if "short" in quirks:
            choice |= {"finish_reason": "length", "token_ids": [5]}
            tokens = [5]
        if "no ids" in quirks:
            del choice["token_ids"], choice["prompt_token_ids"]
        usage = {"completion_tokens": len(tokens), "prompt_tokens": len(prompt)}
        usage["prompt_tokens"] -= "truncates" in quirks
        self.answer({"choices": [] if "shapeless" in quirks else [choice], "usage": usage})

    def answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After", "0.01")
        self.end_headers()
        self.wfile.write(data)


class GreyServer(ThreadingHTTPServer):
    """The server.

    Attributes:
        faults: What the next sampling requests get instead of an answer.
        quirks: What is wrong with it for good.
        lives: Sampling requests that it answers before it answers none; below 0 for all.
        answered: Sampling requests that it answered, by their text.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reset()

    def reset(self):
        self.faults, self.quirks, self.lives = [], set(), -1
        self.answered, self.rng = Counter(), np.random.default_rng(0)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"
