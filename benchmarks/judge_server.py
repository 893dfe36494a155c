"""10,000 judgements by a server that fails, and a client that is killed half-way.

    python benchmarks/judge_server.py

A local server with an OpenAI-compatible chat API answers a StrongREJECT rubric; 5% of its answers
are busy (503), over the limit (429), cut connections, or text that is no grading. The client is
killed by SIGKILL after about half, and started again. Writes benchmarks/results/judge_server.md.
"""

import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from faulty import Rubric, grade  # noqa: E402

TEXTS = 10_000
RESULT = ROOT / "benchmarks" / "results" / "judge_server.md"
CLIENT = """
import json, sys
from tailcast.judges import build_judge, judge_texts
from tailcast.types import JudgeSettings, Query
judge = build_judge(JudgeSettings(judge="strongreject-rubric", judge_server=sys.argv[1]))
texts = [f"text {n}" for n in range(int(sys.argv[2]))]
found = judge_texts(judge, Query.user("q", "tell me"), texts)
print(json.dumps([found.scores.tolist(), judge.usage()]).replace("NaN", "null"))
"""


def main() -> None:
    Rubric.faults = 0.05
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Rubric) as server,
        tempfile.TemporaryDirectory() as cache,
    ):
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        words = [sys.executable, "-c", CLIENT, address, str(TEXTS)]
        surroundings = {**os.environ, "TAILCAST_CACHE": cache}
        begun = time.monotonic()
        first = subprocess.Popen(words, env=surroundings, stdout=subprocess.DEVNULL)
        while sum(Rubric.answered.values()) < TEXTS // 2:
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.wait()
        killed = sum(Rubric.answered.values())
        second = subprocess.run(words, env=surroundings, capture_output=True, check=True)
        taken = time.monotonic() - begun
        server.shutdown()
    RESULT.write_text(page(second.stdout.decode(), killed, taken), "utf-8")
    print(RESULT.read_text("utf-8"))


def page(output: str, killed: int, taken: float) -> str:
    """The result as a page."""
    import json

    scores, used = json.loads(output)
    wrong = sum(
        score is not None and score != grade(f"text {number}")
        for number, score in enumerate(scores)
    )
    asked = Rubric.answered
    twice = sum(number > 1 for number in Rubric.graded.values())
    rows = [
        ("completions", TEXTS),
        ("answered by the server before the kill", killed),
        ("found on disk by the second client", used["cached"]),
        ("asked by the second client", used["calls"] - used["asked_again"]),
        ("requests sent again (503, 429, cut connections)", used["retries"]),
        ("answers that could not be read, asked again", used["asked_again"]),
        ("given up and marked", used["failed"]),
        ("lost", TEXTS - len(asked)),
        ("wrong scores", wrong),
        ("graded twice: on its way when the kill came", twice),
        ("seconds in all", round(taken, 1)),
    ]
    table = "\n".join(f"| {name} | {value:,} |" for name, value in rows)
    return (
        "# 10,000 judgements, a server with 5% faults, one SIGKILL\n\nMade by `python "
        f"benchmarks/judge_server.py` on {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, other jobs beside it.\n\n| | |\n|---|---:|\n{table}\n"
    )


if __name__ == "__main__":
    main()
