"""A run in an object store: the files of a local run, whatever the store does to a request."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest

from tailcast import objects
from tailcast.config import RunConfig
from tailcast.errors import MissingExtra, StoreError
from tailcast.files import LocalFiles, Taken
from tailcast.objects import ObjectFiles, files_at
from tailcast.pipeline import Inputs, run, shards
from tailcast.store import RunStore, existing_run
from tailcast.types import Query
from tiny import call

QUERIES = [Query.user(f"q{number}", f"hello {number}") for number in range(3)]
MEASURE = {
    "model": "a table", "queries": "here", "judge": "pattern:4.*4", "max_new_tokens": 6,
    "method": "mixture", "steering": "a table's own", "strengths": (0.5, 1.0), "switches": (2, 4),
    "samples": 64, "monte_carlo": 32, "batch": 64,
}  # fmt: skip
FRESH = (f"run{number}" for number in count())


def measured(out, tabular, unit, **more):
    config = RunConfig(**{**MEASURE, "out": str(out), **more})
    return run(config, inputs=Inputs(target=tabular, queries=QUERIES, steering=unit))


def content(out) -> dict[str, bytes]:
    """Every file but the manifest and locks."""
    files = files_at(out)
    if isinstance(files, LocalFiles):
        names = [str(one.relative_to(out)) for one in Path(out).rglob("*") if one.is_file()]
    else:
        at = len(files._path("")) + 1
        names = [str(one)[at:] for one in files.store.find(files._path(""))]
    return {n: files.read(n) for n in names if n != "manifest.json" and not n.startswith(".lock")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tabular, unit):
    """A run in a folder; its shards are small, so that there are many writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_DRAWS", 16)
        patch.setattr(objects, "LEASE", 2.0)
        out = tmp_path_factory.mktemp("alone") / "run"
        measured(out, tabular, unit)
        yield content(out)


@pytest.fixture
def memory(monkeypatch):
    """A URL of fsspec's store in memory."""
    return f"memory://{next(FRESH)}/a-run"


def test_a_run_in_an_object_store_is_the_local_run(alone, memory, tabular, unit, capsys):
    found = measured(memory, tabular, unit)
    assert content(memory) == alone
    assert measured(memory, tabular, unit) == found  # finished: nothing to do
    code, out, _ = call(capsys, "show", memory, "--json")
    assert code == 0 and len(out.splitlines()) == len(found)
    assert call(capsys, "explain", memory, "q1")[0] == 0
    code, out, _ = call(capsys, "show", memory)
    assert memory in out.replace("\n", "")


def test_a_file_url_is_a_folder(tmp_path):
    for url in (f"file://{tmp_path}", tmp_path):
        assert files_at(url).place == tmp_path
    for url in ("memory://b/run", Path("memory://b/run")):
        assert str(files_at(url).place) == "memory://b/run"


def test_urls_that_cannot_be_used_are_said(monkeypatch):
    with pytest.raises(StoreError, match="no kind of store"):
        RunStore("nonsense://a/b")
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(MissingExtra, match=r"tailcast\[azure\]"):
        RunStore("abfs://a/b")
    with pytest.raises(StoreError, match="does not exist"):
        existing_run("memory://nowhere/run")


def test_one_process_holds_a_directory_and_a_dead_one_is_succeeded(alone, memory):
    one, other = files_at(memory), files_at(memory)
    with one.locked(), pytest.raises(Taken), other.locked():
        pass
    with other.locked():  # released: at once
        pass
    dead = files_at(memory)
    lock = dead.locked()
    lock.__enter__()
    dead._beat = None
    number = max(dead._locks())
    dead.store.pipe_file(dead._path(f".lock/{number + 1:06d}"), b"another 0")  # and silent
    begun = time.monotonic()
    with one.locked():
        assert time.monotonic() - begun > 1.5
        deadline = time.monotonic() + 5
        while not dead._lost and time.monotonic() < deadline:
            time.sleep(0.1)
        with pytest.raises(OSError, match="took the directory over"):
            dead.write("x", b"")
    lock.__exit__(None, None, None)


def test_what_is_there_stays_and_a_store_without_conditions_is_refused(memory, monkeypatch):
    files = files_at(memory)
    for text in (b"one", b"two"):
        files.create("samples/mc/q/1.parquet", text)
    assert files.read("samples/mc/q/1.parquet") == b"one"
    plain = type(files.store).pipe_file
    monkeypatch.setattr(
        type(files.store), "pipe_file", lambda self, path, value, mode="": plain(self, path, value)
    )
    with pytest.raises(StoreError, match="does not heed conditional writes"), files.locked():
        pass


class Faulty(BaseHTTPRequestHandler):
    """Passes requests on to a server; some it fails before or after, delays, or sends twice."""

    behind = ("127.0.0.1", 0)
    faults = 0.0
    state = 12345
    done: ClassVar[Counter] = Counter()
    lock = threading.Lock()
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def fault(self) -> str:
        kinds = ("fails", "loses the answer", "is slow", "is sent twice")
        with Faulty.lock:
            Faulty.state = (Faulty.state * 1103515245 + 12345) % 2**31
            number = Faulty.state / 2**31
        return kinds[int(number / Faulty.faults * 4)] if number < Faulty.faults else ""

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.fault() if self.command == "PUT" else ""
        Faulty.done[fault] += 1
        if fault == "fails":
            return self.send(503, b"", {})
        if fault == "is slow":
            time.sleep(0.5)
        status, found, headers = self.ask(body)
        if fault == "is sent twice":
            self.ask(body)
        if fault == "loses the answer":
            self.close_connection = True
            return self.connection.close()
        return self.send(status, found, headers)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def ask(self, body):
        server = HTTPConnection(*self.behind)
        kept = {k: v for k, v in self.headers.items() if k.lower() not in ("expect",)}
        server.request(self.command, self.path, body, kept)
        answer = server.getresponse()
        found = answer.read()
        server.close()
        return answer.status, found, dict(answer.getheaders())

    def send(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "date",
                                    "server"):  # fmt: skip
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else len(body)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def bucket():
    """A bucket of a real S3 server, moto, on this machine, behind a faulty proxy."""
    pytest.importorskip("s3fs", reason="pip install 'tailcast[s3]' 'moto[server]'")
    server = pytest.importorskip("moto.server", reason="pip install 'moto[server]'")
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    Faulty.behind = moto.get_host_and_port()
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "none")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "none")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"] + "/bucket", method="PUT")
        urllib.request.urlopen(request).close()
        yield "s3://bucket"
    proxy.shutdown()
    moto.stop()


quiet = pytest.mark.filterwarnings("ignore")


@quiet
@pytest.mark.parametrize("faults", [0.0, 0.3])
def test_s3_holds_the_local_run_whatever_befalls_its_writes(faults, bucket, alone, tabular, unit):
    Faulty.faults, out = faults, f"{bucket}/{next(FRESH)}"
    Faulty.done.clear()
    try:
        measured(out, tabular, unit)
    finally:
        Faulty.faults = 0.0
    assert content(out) == alone
    assert (len(Faulty.done) == 5) == bool(faults), Faulty.done


@quiet
def test_a_store_that_is_gone_is_said_and_the_run_goes_on_later(bucket, alone, tabular, unit):
    out = f"{bucket}/{next(FRESH)}"
    writes = Counter()
    plain = ObjectFiles.create

    def failing(self, name, content):
        writes[name.split("/")[0]] += 1
        if writes["samples"] == 4:
            raise OSError("EndpointConnectionError: Could not connect")
        plain(self, name, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ObjectFiles, "create", failing)
        with pytest.raises(StoreError, match=r"cannot write to run directory s3://.*kept"):
            measured(out, tabular, unit)
    measured(out, tabular, unit)
    assert content(out) == alone


KILLED = """
import sys
import numpy as np
import conftest, test_objects
from tailcast import objects
from tailcast.pipeline import shards
shards.SHARD_DRAWS, objects.LEASE = 16, 2.0
test_objects.measured(sys.argv[1], conftest.a_table(), conftest.a_vector())
"""


@quiet
def test_killed_and_resumed_from_s3_gives_identical_files(bucket, alone, tabular, unit):
    out = f"{bucket}/{next(FRESH)}"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = os.environ | {"PYTHONPATH": path}
    process = subprocess.Popen([sys.executable, "-c", KILLED, out], env=env)
    files = files_at(out)
    while not files.names("samples/mc/q1"):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(content(out)) < len(alone)
    measured(out, tabular, unit)
    assert content(out) == alone
