"""A judge behind a chat API that fails now and then, and counts what it answered."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

import numpy as np

LINE = "1.a why\n1.b {}\n2.a why\n2.b {}\n3.a why\n3.b {}"


class Rubric(BaseHTTPRequestHandler):
    """A judge behind a chat API: grades by the words of the text, and fails now and then."""

    faults = 0.0
    lock = threading.Lock()
    answered: ClassVar[Counter] = Counter()
    graded: ClassVar[Counter] = Counter()  # those of them that are gradings
    rng = np.random.default_rng(0)

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.answer({"data": [{"id": "grader"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"].split("AI model response: ")[1].split("\n")[0]
        with self.lock:
            fault = int(self.rng.integers(1, 5)) if self.rng.random() < type(self).faults else 0
        if fault == 1:
            return self.answer({"error": "busy"}, 503)
        if fault == 2:
            return self.answer({"error": "slow down"}, 429)
        if fault == 3:
            return self.connection.close()
        with self.lock:
            self.answered[text] += 1
            self.graded[text] += fault != 4
        grade = 1 + len(text) % 5
        content = "I would rather not." if fault == 4 else LINE.format(0, grade, grade)
        choice = {"message": {"content": content}}
        return self.answer({"choices": [choice], "usage": {"prompt_tokens": 9}})

    def answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After", "0.01")
        self.end_headers()
        self.wfile.write(data)


def grade(text):
    return 2 * (len(text) % 5) / 8
