"""Query sets, settings and judges: what they are read as, and what each mistake is answered."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tailcast.config import make_config
from tailcast.data import load_pairs, load_queries
from tailcast.errors import ConfigError, DataError, JudgeError
from tailcast.judges import build_judge, is_refusal, judge_texts
from tailcast.toml import read_toml
from tailcast.types import Judge, Query

Q = Query.user("q", "hello")


@pytest.mark.parametrize("column", ["prompt", "forbidden_prompt", "instruction", "goal"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_query_files_of_every_kind_are_read_alike(tmp_path, kind, column):
    rows = [{column: 'say "a", b', "category": "x"}, {column: "über\nzwei", "category": "y"}]
    path = tmp_path / f"q.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", "utf-8")
    elif kind == "json":
        path.write_text(json.dumps(rows), "utf-8")
    elif kind == "csv":
        path.write_text(f'{column},category\n"say ""a"", b",x\n"über\nzwei",y\n', "utf-8-sig")
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    found = load_queries(path)
    assert [query.prompt for query in found] == [row[column] for row in rows]
    assert [(query.id, query.tags) for query in found] == [("q0", ("x",)), ("q1", ("y",))]
    assert load_queries(path, limit=1) == found[:1]


def test_messages_are_taken_as_they_are(tmp_path):
    path = tmp_path / "q.jsonl"
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    path.write_text(json.dumps({"id": "m", "messages": messages}))
    [query] = load_queries(path)
    assert query.messages == tuple(messages) and query.prompt == "hi"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "a", "id": 1}\n{"prompt": "b", "id": 1}', "two queries with id '1'"),
        ("[1]", "line 1 is not a JSON object"),
        ('{"prompt": ""}', "line 1 has no prompt"),
        ('{"prompt": "a \\ud800 b"}', "query 'q0' holds half of a surrogate pair"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "ends with a user"),
        ('{"messages": [{"role": "user", "content": [1]}]}', "only text messages"),
    ],
)
def test_rows_that_are_no_queries_are_named(tmp_path, text, message):
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_queries(path)


def test_pairs_need_all_their_parts(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a", "unsafe": "b", "safe": "c"}\n{"prompt": "a", "safe": "c"}\n')
    with pytest.raises(DataError, match="line 2 has no 'unsafe'"):
        load_pairs(path)


def test_the_preset_holds_the_papers_settings_and_flags_win():
    """Method.md section 8."""
    given = {"model": "m", "queries": "q", "steering": "v", "method": "paper", "samples": 7}
    config = make_config(given, preset="paper")
    assert config.strengths == pytest.approx(np.arange(1, 11) / 10)
    assert config.switches == tuple(range(0, 151, 5))
    assert config.mixes == pytest.approx(np.linspace(0, 1, 25))
    assert (config.temperature, config.max_new_tokens) == (1.0, 150)
    assert (config.pilot_share, config.pilot_samples, config.samples) == (0.1, 500, 7)
    with pytest.raises(ConfigError, match="preset 'papper' is unknown"):
        make_config(given, preset="papper")


def test_a_toml_file_fills_itself_up_from_its_base(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "all.toml").write_text('preset = "paper"\nseed = 4\nqueries = "q"\n')
    (tmp_path / "sub" / "one.toml").write_text(
        'base = "../all.toml"\nmodel = "m"\nseed = 5\nmethod = "mc"\n'
    )
    values = read_toml(tmp_path / "sub" / "one.toml")
    config = make_config(values)
    assert (config.model, config.queries, config.seed) == ("m", "q", 5)
    assert (config.method, config.max_new_tokens, len(config.mixes)) == ("mc", 150, 25)
    (tmp_path / "all.toml").write_text('base = "sub/one.toml"\n')
    with pytest.raises(ConfigError, match="must be another TOML file"):
        read_toml(tmp_path / "sub" / "one.toml")
    (tmp_path / "all.toml").write_text('base = "nowhere.toml"\n')
    with pytest.raises(ConfigError, match=r"nowhere.toml' cannot be read"):
        read_toml(tmp_path / "sub" / "one.toml")


def test_refusals_are_found_in_any_case_and_with_either_apostrophe():
    assert is_refusal("I’m SORRY, Dave") and is_refusal("Well, I can’t do that")
    assert not is_refusal("Sure, here is a poem.") and not is_refusal("")


def test_a_graded_score_is_cut_before_it_is_counted():
    """Trap: the graded score is not the indicator."""
    judge = Judge("graded", lambda query, text: float(text), threshold=0.75)
    verdicts = judge_texts(judge, Q, ["0.5", "0.74", "0.75", "1"])
    assert verdicts.hits.tolist() == [False, False, True, True]
    assert verdicts.scores.tolist() == [0.5, 0.74, 0.75, 1.0]


def test_equal_completions_are_judged_once_and_a_failure_stays_with_its_text():
    asked = []

    def moody(query, text):
        asked.append(text)
        return {"a": 1, "b": True, "c": 3.0}[text]

    verdicts = judge_texts(Judge("moody", moody), Q, ["a", "b", "a", "c", "d", "b"])
    assert asked == ["a", "b", "c", "d"]
    assert verdicts.hits.tolist() == [True, True, True, False, False, True]
    assert verdicts.failed.tolist() == [False, False, False, True, True, False]
    assert "3.0 lies outside [0, 1]" in verdicts.errors[3] and "KeyError" in verdicts.errors[4]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("python:os:nothing", "cannot be imported"),
        ("python:nowhere:f", "cannot be imported"),
        ("python:math:pi", "is not a function"),
        ("pattern:", "is none of"),
    ],
)
def test_judges_that_cannot_be_built_are_refused(spec, message):
    with pytest.raises(JudgeError, match=message):
        build_judge(spec)
