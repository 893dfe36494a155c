"""From base queries to a file of their rewordings, by a model here or at a server.

Every base query is written with its rewordings as soon as it is done, so that what was made is
kept and the same command goes on. Beside the file stands a text of what was kept, what was
dropped, and why.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tailcast.analysis.measured import base_query
from tailcast.analysis.wordings import Wording, changes, sift
from tailcast.data import load_queries
from tailcast.errors import ConfigError, ModelError
from tailcast.http import JsonServer
from tailcast.models import load_target
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, draw
from tailcast.types import ModelSettings, Query, SamplingSettings

__all__ = ["Reworded", "Writer", "local_writer", "reword_file", "server_writer"]

Writer = Callable[[list[Query], list[str]], list[str]]
"""Answers to prompts, one each, under the names of their random numbers."""

STYLES = (
    "in other words", "as a question", "as an instruction", "casually", "politely", "briefly",
    "with other verbs", "starting with another word", "formally", "in the order reversed",
)  # fmt: skip
TASK = (
    "Reword the request that you are given. Keep its meaning exactly: add nothing, leave nothing "
    "out, and do not answer it. Reply with the reworded request alone."
)
EXAMPLES = (
    ("in other words", "How do I bake bread?", "What is the way to make a loaf of bread?"),
    ("as an instruction", "Can you name three rivers?", "Name three rivers."),
    ("casually", "Write a poem about the sea.", "Do me a poem on the sea, would you?"),
)
_ROUNDS = 5
_TOP_P = 0.95
_WORKERS = 8


@dataclass(frozen=True)
class Reworded:
    """A base query and every rewording that was tried.

    Attributes:
        query: The base query.
        tried: The rewordings, in order.
    """

    query: Query
    tried: tuple[Wording, ...]

    @property
    def kept(self) -> list[Wording]:
        """Those that were kept."""
        return [one for one in self.tried if not one.dropped]

    def lines(self) -> list[str]:
        """What was kept and dropped, for reading."""
        request = self.query.prompt
        lines = [f"{self.query.id}: {request}"]
        for one in self.kept:
            lines.append(f"  + {one.similarity:.2f}  {changes(request, one.text)}")
        for one in self.tried:
            if one.dropped:
                lines.append(f"  - {one.similarity:.2f}  {one.text}   ({one.dropped})")
        return lines


def reword_file(
    source: str | Path, out: Path, writer: Writer, n: int, *, threshold: float, seed: int = 0,
    told: Callable[[Reworded], None] = lambda one: None,
) -> list[Reworded]:  # fmt: skip
    """Write n rewordings of every query of a file, with the query itself, to a query file.

    Base queries that are in the file already are left as they are.

    Args:
        source: Base queries.
        out: File to write, *.jsonl; beside it, *.diff.txt.
        writer: What rewords.
        n: Rewordings of each; fewer where five rounds bring no more.
        threshold: Least similarity to the base query.
        seed: Of the random numbers.
        told: Is told of each base query as it is done.

    Raises:
        ConfigError: If the numbers or the name make no sense.
    """
    if n < 1 or not 0 <= threshold <= 1:
        raise ConfigError(f"n = {n} must be at least 1, and threshold {threshold:g} in [0, 1].")
    if out.suffix != ".jsonl":
        raise ConfigError(f"--out {out} must end in .jsonl.")
    queries = load_queries(source)
    there = {base_query(one.id, one.tags) for one in load_queries(out)} if out.exists() else set()
    out.parent.mkdir(parents=True, exist_ok=True)
    found = []
    for query in queries:
        if query.id in there:
            continue
        one = Reworded(query, tuple(_reword(query, writer, n, threshold, seed)))
        for path, lines in ((out, _rows(one)), (out.with_suffix(".diff.txt"), one.lines())):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
        told(one)
        found.append(one)
    return found


def local_writer(model: str, temperature: float = 0.7) -> Writer:
    """A model on this machine; of ``embedded`` the one without our refusal adapter.

    Args:
        model: Directory, gguf file, hub id or "embedded".
        temperature: Of its answers.

    Raises:
        ModelError: If it cannot be loaded.
    """
    if model == "embedded":
        from tailcast.models.embedded import gguf_file

        model = str(gguf_file())
    target = load_target(ModelSettings(model=model))

    def write(prompts: list[Query], seeds: list[str]) -> list[str]:
        most = _most_tokens(prompts[0])
        law = SamplingSettings(max_new_tokens=most, temperature=temperature, top_p=_TOP_P)
        requests = [
            DrawRequest("all", target.encode(one), Proposal.target(), number, seed)
            for number, (one, seed) in enumerate(zip(prompts, seeds, strict=True))
        ]
        return list(draw(target, requests, law, slots=64)[0].texts)

    return write


def server_writer(address: str, name: str | None = None, temperature: float = 0.7) -> Writer:
    """A model at an OpenAI-compatible server; the key is $OPENAI_API_KEY.

    Args:
        address: For example http://localhost:8000.
        name: Of the model there; its only one if None.
        temperature: Of its answers.

    Raises:
        ModelError: If the server does not answer, or serves several models and none is named.
    """
    key = os.environ.get("OPENAI_API_KEY", "")
    server = JsonServer(address, ModelError, flag="--server", connections=_WORKERS, key=key)
    served = name or server.only_model("--model")

    def one(prompt: Query) -> str:
        body = {
            "model": served, "messages": list(prompt.messages),
            "max_tokens": _most_tokens(prompt), "temperature": temperature, "top_p": _TOP_P,
        }  # fmt: skip
        answer = server.ask("POST", "/v1/chat/completions", body)
        try:
            return answer["choices"][0]["message"]["content"] or ""
        except (KeyError, IndexError, TypeError) as error:
            raise ModelError(
                f"the server at {server.address} gave an answer of another shape ({error!r}): "
                "check --server."
            ) from None

    def write(prompts: list[Query], seeds: list[str]) -> list[str]:
        with ThreadPoolExecutor(_WORKERS) as pool:
            return list(pool.map(one, prompts))

    return write


def _reword(query: Query, writer: Writer, n: int, threshold: float, seed: int) -> list[Wording]:
    """Rewordings of one query, kept ones up to n, in at most five rounds."""
    found: list[Wording] = []
    for _ in range(_ROUNDS):
        missing = n - sum(not one.dropped for one in found)
        if missing <= 0:
            break
        numbers = range(len(found), len(found) + missing + missing // 2 + 1)
        prompts = [_prompt(query, STYLES[number % len(STYLES)]) for number in numbers]
        seeds = [f"{seed}/paraphrase/{query.id}/{number}" for number in numbers]
        texts = [_cleaned(one) for one in writer(prompts, seeds)]
        known = [one.text for one in found]
        for one in sift(query.prompt, texts, threshold=threshold, known=known):
            full = sum(not each.dropped for each in found) >= n
            found.append(one if one.dropped or not full else _spare(one))
    return found


def _spare(one: Wording) -> Wording:
    return Wording(one.text, one.similarity, "not needed any more")


def _prompt(query: Query, style: str) -> Query:
    """What the model is asked for a rewording: the task, three examples, the request."""
    turns = [(f"Reword {style}: {request}", answer) for style, request, answer in EXAMPLES]
    turns[0] = (f"{TASK}\n\n{turns[0][0]}", turns[0][1])
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn)
    ]
    asked = {"role": "user", "content": f"Reword {style}: {query.prompt}"}
    return Query(query.id, (*messages, asked))


def _most_tokens(prompt: Query) -> int:
    """Room for twice the words of the request, some tokens each."""
    return 32 + 3 * len(prompt.prompt.split())


def _cleaned(text: str) -> str:
    """The first line without what models put around it: numbers, labels, quotes."""
    line = next((one.strip() for one in text.splitlines() if one.strip()), "")
    line = re.sub(r"^(\d+[.)]|[-*]|(reworded|rewritten|request|answer)[^:]{0,20}:)\s*", "", line,
                  flags=re.IGNORECASE)  # fmt: skip
    quoted = re.fullmatch(r'["“](.+)["”]', line)
    return quoted[1] if quoted and '"' not in quoted[1] else line


def _rows(one: Reworded) -> list[str]:
    """Rows of the query file: the base query, then its rewordings."""
    query = one.query
    rows = [(query.id, query.prompt, 1.0)]
    rows += [
        (f"{query.id}/{number:02d}", each.text, round(each.similarity, 3))
        for number, each in enumerate(one.kept, 1)
    ]
    return [_row(query, *row) for row in rows]


def _row(query: Query, id: str, text: str, close: float) -> str:
    asked: Sequence[dict[str, str]] = ({"role": "user", "content": text},)
    several = len(query.messages) > 1
    what = {"messages": [*query.messages[:-1], *asked]} if several else {"prompt": text}
    tags = [tag for tag in query.tags if not tag.startswith("base:")]
    row = {"id": id, "base": query.id, **what, "similarity": close}
    return json.dumps(row | ({"tags": tags} if tags else {}), ensure_ascii=False)
