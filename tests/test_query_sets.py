"""Query sets that people use, by their columns and by name; conversations and what is refused."""

import csv
import json
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pyarrow import parquet

from tailcast.data import load_queries
from tailcast.errors import DataError, MissingExtra, ModelError
from tailcast.models import load_target
from tailcast.query_sets import QUERY_SETS
from tailcast.types import ModelSettings, Query
from tiny import call, exact_risk, save_model

FILES = {
    "strongreject": [
        {"category": "Pranks", "source": "custom", "forbidden_prompt": "hide a hat"},
        {"category": "Rules", "source": "DAN", "forbidden_prompt": "skip a queue"},
    ],
    "harmbench": [
        {"Behavior": "Write a rude poem", "FunctionalCategory": "standard",
         "SemanticCategory": "harassment", "Tags": "", "ContextString": "",
         "BehaviorID": "rude_poem"},
        {"Behavior": "Sum it up", "FunctionalCategory": "contextual", "SemanticCategory": "other",
         "Tags": "context", "ContextString": "A hat was hidden.", "BehaviorID": "hat_sum"},
    ],
    "advbench": [
        {"goal": "Write a rude poem", "target": "Sure, here is a rude poem"},
        {"goal": "Hide a hat", "target": "Sure, here is how to hide a hat"},
    ],
    "jailbreakbench": [
        {"Index": "0", "Goal": "Write a rude poem", "Target": "Here is", "Behavior": "Rude poem",
         "Category": "Harassment", "Source": "Original"},
        {"Index": "1", "Goal": "Hide a hat", "Target": "Here is", "Behavior": "Hat",
         "Category": "Fraud", "Source": "AdvBench"},
    ],
    "sorry-bench": [
        {"question_id": 1, "category": "1", "turns": ["Write a rude poem"],
         "prompt_style": "base"},
        {"question_id": 1, "category": "1", "turns": ["Wrte a rood poem"],
         "prompt_style": "misspellings"},
        {"question_id": 2, "category": "7", "turns": ["Hide a hat"], "prompt_style": "base"},
    ],
}  # fmt: skip
EXPECTED = {
    "strongreject": [("q0", "hide a hat", ("Pranks",)), ("q1", "skip a queue", ("Rules",))],
    "harmbench": [
        ("rude_poem", "Write a rude poem", ("harassment", "standard")),
        ("hat_sum", "A hat was hidden.\n\n---\n\nSum it up", ("other", "contextual")),
    ],
    "advbench": [("q0", "Write a rude poem", ()), ("q1", "Hide a hat", ())],
    "jailbreakbench": [
        ("0", "Write a rude poem", ("Harassment",)),
        ("1", "Hide a hat", ("Fraud",)),
    ],
    "sorry-bench": [("1", "Write a rude poem", ("1",)), ("2", "Hide a hat", ("7",))],
}


def write(path, rows):
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, fieldnames=list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def found(source):
    return [(query.id, query.prompt, query.tags) for query in load_queries(source)]


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
@pytest.mark.parametrize("name", FILES)
def test_a_known_set_is_recognised_by_its_columns(tmp_path, name, kind):
    path = write(tmp_path / f"data.{kind}", FILES[name])
    assert found(path) == found(f"{name}={path}") == EXPECTED[name]


def test_a_file_of_another_set_is_refused_by_name(tmp_path):
    path = write(tmp_path / "data.csv", FILES["advbench"])
    with pytest.raises(DataError, match="is not of harmbench: it has no column 'Behavior'"):
        load_queries(f"harmbench={path}")
    mirror = write(tmp_path / "mirror.csv", [{"prompt": "hide a hat", "category": "Pranks"}])
    assert found(f"strongreject={mirror}") == [("q0", "hide a hat", ("Pranks",))]


def test_several_turns_without_answers_are_refused(tmp_path):
    rows = [{"question_id": 1, "category": "1", "turns": ["a", "b"], "prompt_style": "base"}]
    with pytest.raises(DataError, match="has 2 user turns and no answers between them"):
        load_queries(write(tmp_path / "data.json", rows))


@pytest.mark.parametrize("name", FILES)
def test_a_name_alone_asks_the_hub(monkeypatch, name):
    asked = []

    def load_dataset(*words):
        asked.append(words)
        return {QUERY_SETS[name].hub[2]: FILES[name]}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert found(name) == EXPECTED[name]
    hub, subset, _ = QUERY_SETS[name].hub
    assert asked == [(hub, subset) if subset else (hub,)]


def test_the_hub_without_its_package_or_without_access_is_answered(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"tailcast\[datasets\]"):
        load_queries("strongreject")

    def load_dataset(*words):
        raise OSError("401: gated repository\nmore")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError, match=r"401: gated repository \(accept its terms"):
        load_queries("sorry-bench")


def test_every_set_names_its_licence(capsys):
    assert all(one.licence and one.reference for one in QUERY_SETS.values())
    code, out, _ = call(capsys, "query-sets", "--json")
    assert code == 0 and [json.loads(line)["name"] for line in out.splitlines()] == [*QUERY_SETS]
    assert "SORRY-Bench licence" in call(capsys, "query-sets")[1]


def say(*roles, content="hi"):
    return [{"role": role, "content": content} for role in roles]


@pytest.mark.parametrize(
    "roles",
    [("user",), ("system", "user"), ("user", "assistant", "user"),
     ("system", "user", "assistant", "user", "assistant", "user")],
)  # fmt: skip
def test_conversations_are_taken_whole(tmp_path, roles):
    [query] = load_queries(write(tmp_path / "q.json", [{"messages": say(*roles)}]))
    assert [message["role"] for message in query.messages] == list(roles)
    assert load_queries([query]) == [query]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "must be a list"),
        ("hello", "must be a list"),
        ([{"role": "user"}], "must be a list"),
        (say("user", "assistant"), "last message is of role 'assistant'"),
        (say("user", "user"), "message 2 is of role 'user' where 'assistant' was expected"),
        (say("assistant", "user"), "message 1 is of role 'assistant' where 'user'"),
        (say("user", "system", "user"), "message 2 is of role 'system'"),
        (say("system", "user", "tool", "user"), "message 3 is of role 'tool'"),
        (say("user", content=[{"type": "image_url", "image_url": {}}]), "type 'image_url'"),
        (say("user", content=[{"type": "text", "text": "a"}, {"type": "image"}]), "type 'image'"),
        (say("user", content=3), "only text messages"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, messages, message):
    rows = [{"id": "ok", "messages": say("user")}, {"id": "bad", "messages": messages}]
    with pytest.raises(DataError, match=f"item 2.*{message}"):
        load_queries(write(tmp_path / "q.json", rows))
    if isinstance(messages, list):
        with pytest.raises(DataError, match=f"query 'bad'.*{message}"):
            load_queries([Query("bad", tuple(messages))])


def test_text_parts_are_put_together(tmp_path):
    parts = [{"type": "text", "text": "tell "}, {"type": "text", "text": "me"}]
    [query] = load_queries(write(tmp_path / "q.json", [{"messages": say("user", content=parts)}]))
    assert query.prompt == "tell me"


def test_the_last_answer_of_a_conversation_is_measured(capsys, tmp_path):
    """The tiny model's template marks every message with <user>."""
    model = save_model(tmp_path / "model")
    turns = zip(("system", "user", "assistant", "user"), ("red", "tell me", "two no", "blue"))
    messages = [{"role": role, "content": text} for role, text in turns]
    path = write(tmp_path / "q.jsonl", [{"id": "talk", "messages": messages}])
    words = ["estimate", "--model", model, "--queries", path, "--judge", "pattern:two.*two"]
    words += ["--max-new-tokens", 4, "--samples", 1000, "--quiet", "--json", "--out"]
    code, out, err = call(capsys, *words, tmp_path / "run")
    assert code == 0, err
    row, truth = json.loads(out), exact_risk(
        model, "red <user> tell me <user> two no <user> blue", "two", 4
    )  # fmt: skip
    assert row["prompt"] == "blue" and abs(row["p"] - truth) < 4 * row["stderr"]
    assert abs(row["p"] - exact_risk(model, "blue", "two", 4)) > 4 * row["stderr"]
    code, _, err = call(capsys, *words, tmp_path / "other", "--system-prompt", "no")
    assert code == 2 and "'talk' has a system message of its own" in err
    target = load_target(ModelSettings(model=str(model), device="cpu", system_prompt="no"))
    with pytest.raises(ModelError, match="drop system_prompt"):
        target.encode(Query("talk", tuple(messages)))
