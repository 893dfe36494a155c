"""Inspect AI: tasks as queries and judge, scorers on both sides, logs that its readers open."""

import json
import math
import subprocess
import sys
import zipfile

import pytest

pytest.importorskip("inspect_ai")

from tailcast.config import make_config
from tailcast.data import load_queries
from tailcast.errors import ConfigError, DataError, JudgeAway, JudgeError
from tailcast.integrations import export_eval, inspect_scorer
from tailcast.judges import build_judge, judge_texts
from tailcast.judges import inspect_door as door
from tailcast.judges.inspect_scores import parse_hit
from tailcast.pipeline import Inputs, run
from tailcast.store import RunStore
from tailcast.types import JudgeSettings, Query

pytestmark = pytest.mark.filterwarnings("default")  # Inspect and its dependencies warn at times

TASKS = '''
import itertools
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessageAssistant, ChatMessageUser, ContentImage, ContentText, GenerateConfig, get_model,
)
from inspect_ai.scorer import Score, includes, match, model_graded_qa, scorer, mean, choice
from inspect_ai.solver import (
    chain_of_thought, generate, multiple_choice, self_critique, solver, system_message, use_tools,
)
from inspect_ai.tool import tool

@scorer(metrics=[mean()])
def length():
    async def score(state, target):
        return Score(value=len(state.output.completion))
    return score

@scorer(metrics=[mean()])
def parts():
    async def score(state, target):
        return Score(value={"long": len(state.output.completion), "kind": "harmful"})
    return score

@scorer(metrics=[mean()])
def broken():
    async def score(state, target):
        raise ZeroDivisionError("oh no")
    return score

@scorer(metrics=[mean()])
def moody():
    async def score(state, target):
        if "x" in state.output.completion:
            raise ZeroDivisionError("an x")
        return Score(value=float("nan") if "?" in state.output.completion else "C")
    return score

@task
def plain(n: int = 2):
    samples = [Sample(input=f"Question {i}", target="Paris", metadata={"category": "towns"})
               for i in range(n)]
    return Task(dataset=samples, solver=[system_message("Be brief."), generate()],
                scorer=includes(), config=GenerateConfig(temperature=0.5))

@task
def choices():
    sample = Sample(id="c", input="Which?", choices=["red", "blue"], target="B")
    return Task(dataset=[sample], solver=multiple_choice(), scorer=choice())

@task
def conversation():
    turns = [ChatMessageUser(content="Hello"), ChatMessageAssistant(content="Hi"),
             ChatMessageUser(content=[ContentText(text="Which town?")])]
    return Task(dataset=[Sample(id=7, input=turns, target="Paris")], scorer=match())

@task
def twice():
    return Task(dataset=[Sample(input="a")], solver=[generate(), generate()], scorer=match())

@task
def picture():
    part = ContentImage(image="data:image/png;base64,aaaa")
    sample = Sample(id="p", input=[ChatMessageUser(content=[part, ContentText(text="What?")])])
    return Task(dataset=[sample], scorer=match())

@task
def boxed():
    return Task(dataset=[Sample(input="a", files={"f.txt": "x"})], scorer=match())

@tool
def add():
    async def execute(x: int):
        """Add.

        Args:
            x: Number.
        """
        return x
    return execute

@task
def tools():
    return Task(dataset=[Sample(input="a")], solver=[use_tools(add()), generate()], scorer=match())

@solver
def own_way():
    async def solve(state, generate):
        state.output = await get_model().generate(state.messages)
        return state
    return solve

@task
def agent():
    return Task(dataset=[Sample(input="a")], solver=own_way(), scorer=match())

_count = itertools.count()

@solver
def restless():
    async def solve(state, generate):
        state.user_prompt.text = f"Number {next(_count)}"
        return await generate(state)
    return solve

@task
def shuffled():
    return Task(dataset=[Sample(input="a")], solver=restless(), scorer=match())

@task
def bare():
    return Task(solver=generate(), scorer=match())

@task
def unscored():
    return Task(dataset=[Sample(input="a")])

@task
def failing():
    return Task(dataset=[Sample(input="a")], scorer=broken())

@task
def graded():
    return Task(dataset=[Sample(input="Capital?", target="Paris")], scorer=model_graded_qa())

@task
def choosy(n: int = 1, grader_model: str = "x/y"):
    return Task(dataset=[Sample(input="a")], scorer=broken())

@scorer(metrics=[mean()])
def wordy():
    async def score(state, target):
        raise ValueError("Request: " + "very long, " * 900 + "and the cause comes last")
    return score

@task
def verbose():
    return Task(dataset=[Sample(input="a")], scorer=wordy())

@task
def several():
    return Task(dataset=[Sample(input="a", target="Paris")], scorer=[includes(), parts()])

@task
def raising():
    raise RuntimeError("no data on disk")
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tasks") / "mine.py"
    path.write_text(TASKS)
    return path


def judged(settings, query, *texts):
    found = judge_texts(build_judge(JudgeSettings(**settings)), query, texts)
    return found.scores.tolist()


def test_a_task_gives_the_prompts_that_inspect_itself_sends(file):
    """The oracle is Inspect: a model of its own writes down what eval() sends it."""
    from inspect_ai import eval as inspect_eval
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    sent = []

    def hear(input, tools, tool_choice, config):
        sent.append([(one.role, one.text) for one in input])
        output = ModelOutput.from_content("mockllm/model", "ANSWER: B")
        output.usage = ModelUsage()
        return output

    for name in ("plain", "choices", "conversation"):
        queries = load_queries(f"inspect:{file}@{name}")
        sent.clear()
        inspect_eval(
            f"{file}@{name}", model=get_model("mockllm/model", custom_outputs=hear),
            log_dir=str(file.parent / "logs"), display="none", max_samples=1,
        )  # fmt: skip
        ours = [[(one["role"], one["content"]) for one in query.messages] for query in queries]
        assert ours == sent


def test_ids_tags_targets_and_arguments_of_a_task(file):
    queries = load_queries(f"inspect:{file}@plain?n=3")
    assert [one.id for one in queries] == ["1", "2", "3"]
    assert queries[0].tags == ("towns",) and queries[0].target == ("Paris",)
    assert load_queries(f"inspect:{file}@conversation")[0].id == "7"


@pytest.mark.parametrize(
    ("name", "hit", "texts", "scores"),
    [
        ("plain", None, ("It is Paris", "Rome"), [0.0, 1.0]),
        ("plain", "correct", ("It is Paris", "Rome"), [1.0, 0.0]),
        ("plain", "C", ("It is Paris", "Rome"), [1.0, 0.0]),
        ("choices", None, ("ANSWER: B", "ANSWER: A", "none"), [0.0, 1.0, 1.0]),
        ("several", "includes: incorrect", ("Paris", "Rome"), [0.0, 1.0]),
        ("several", "parts.long: >= 5", ("Paris", "Rome"), [1.0, 0.0]),
        ("several", "parts.kind: harmful", ("Paris", "Rome"), [1.0, 1.0]),
        ("several", "parts.kind: mild", ("Paris", "Rome"), [0.0, 0.0]),
    ],
)
def test_a_tasks_scorer_judges(file, name, hit, texts, scores):
    spec = f"inspect:{file}@{name}"
    query = load_queries(spec)[0]
    assert judged({"judge": spec, "judge_hit": hit}, query, *texts) == scores


def test_scorers_judge_other_queries(file):
    query = Query.user("q", "Capital?")
    spec = f"inspect:{file}@length"
    assert judged({"judge": spec, "judge_hit": "> 3"}, query, "abc", "abcd") == [0.0, 1.0]
    with_target = Query("q", query.messages, target=("Paris", "Lutetia"))
    assert judged({"judge": "inspect:includes"}, with_target, "Lutetia", "Rome") == [0.0, 1.0]
    with pytest.raises(DataError, match="has no target, which scorer includes compares with"):
        build_judge("inspect:includes").check(query)
    build_judge("inspect:includes").check(with_target)
    own = build_judge(f"inspect:{file}@plain")
    own.check(load_queries(f"inspect:{file}@plain")[0])
    with pytest.raises(DataError, match=r"is none of task .*: take the queries from the task"):
        own.check(query)


def test_a_grader_is_asked_and_what_it_does_not_say_is_no_verdict(file, monkeypatch):
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    def grade(input, tools, tool_choice, config):
        text = input[-1].text
        answer = "GRADE: C" if "It is Paris" in text else "GRADE: I" if "Rome" in text else "?"
        output = ModelOutput.from_content("mockllm/model", answer)
        output.usage = ModelUsage()
        return output

    grader = get_model("mockllm/model", custom_outputs=grade, memoize=False)
    monkeypatch.setattr("inspect_ai.model.get_model", lambda *_, **__: grader)
    spec = f"inspect:{file}@graded"
    query = load_queries(spec)[0]
    scores = judged({"judge": spec, "judge_model": "a/b"}, query, "It is Paris", "Rome", "hm")
    assert scores[:2] == [0.0, 1.0] and math.isnan(scores[2])


def test_a_grader_that_dies_stops_the_run(file, monkeypatch):
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    dead = set()

    def grade(input, tools, tool_choice, config):
        if dead or "secret" in input[-1].text:
            raise ConnectionError("nobody there")
        output = ModelOutput.from_content("mockllm/model", "GRADE: C")
        output.usage = ModelUsage()
        return output

    grader = get_model("mockllm/model", custom_outputs=grade, memoize=False)
    monkeypatch.setattr("inspect_ai.model.get_model", lambda *_, **__: grader)
    spec = f"inspect:{file}@graded"
    query = load_queries(spec)[0]
    judge = build_judge(JudgeSettings(judge=spec, judge_model="a/b"))
    found = judge_texts(judge, query, ["It is Paris", "a secret"])
    assert found.failed.tolist() == [False, True]  # the grader is there: that text's own fault
    dead.add(1)
    with pytest.raises(JudgeAway, match=r"grader a/b does not answer \(ConnectionError: nobody"):
        judge_texts(judge, query, ["It is Paris", "Rome"])


def test_what_a_failing_scorer_says_is_short_and_its_remedy_fits(file, monkeypatch):
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    output = ModelOutput.from_content("mockllm/model", "Hello.")
    output.usage = ModelUsage()
    there = get_model("mockllm/model", custom_outputs=lambda *_: output, memoize=False)
    monkeypatch.setattr("tailcast.judges.inspect_judge.named_model", lambda *_, **__: there)

    def said(task, **more):
        with pytest.raises(JudgeError) as error:
            build_judge(JudgeSettings(judge=f"inspect:{file}@{task}", **more))
        return str(error.value)

    assert said("failing").endswith("or name the model that grades with --judge-model.")
    found = said("choosy", judge_model="mockllm/model")
    assert "have another model than mockllm/model grade" in found
    assert found.endswith("TASK?grader_model=MODEL.")
    long = said("verbose")
    assert "Request: very" in long and "the cause comes last" in long and len(long) < 700


def test_a_scorer_that_fails_on_some_answers_loses_only_those(file, caplog):
    query = Query.user("q", "hello")
    found = judge_texts(build_judge(f"inspect:{file}@moody"), query, ["a", "x", "?"])
    assert found.failed.tolist() == [False, True, True]
    assert found.errors == ("", "ZeroDivisionError: an x", "the scorer gave no score.")


def test_the_fingerprint_knows_the_rule_the_samples_and_a_users_code(file, tmp_path):
    def fingerprint(path, hit=None, arguments=""):
        settings = JudgeSettings(judge=f"inspect:{path}@plain{arguments}", judge_hit=hit)
        return build_judge(settings).fingerprint

    assert fingerprint(file) == fingerprint(file)
    assert len({fingerprint(file), fingerprint(file, "C"), fingerprint(file, None, "?n=3")}) == 3
    other = tmp_path / "other.py"
    codes = []
    for comment in ("# one\n", "# two\n"):
        other.write_text(comment + TASKS)
        settings = JudgeSettings(judge=f"inspect:{other}@length", judge_hit="> 3")
        codes.append(build_judge(settings).fingerprint)
    assert codes[0] != codes[1]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nowhere.py@plain", "'nowhere.py' does not exist"),
        ("no_such_task", "is no task that Inspect knows"),
        ("{file}@nothing", "holds no task called 'nothing'"),
        ("{file}", "name one, as in"),
        ("{file}@plain?n", "is no argument"),
        ("{file}@raising", "cannot be made: RuntimeError: no data on disk"),
        ("{empty}", "holds no task with that decorator"),
        ("{faulty}", "cannot be loaded: NameError"),
        ("{file}@bare", "has no data set"),
        ("{file}@twice", "asks the model more than once"),
        ("{file}@tools", "gives the model tools"),
        ("{file}@agent", "does not ask through generate()"),
        ("{file}@picture", "sample 'p' of task .* holds image content: only text"),
        ("{file}@boxed", "needs a sandbox or files"),
    ],
)
def test_what_cannot_be_measured_is_said(file, tmp_path, spec, words):
    for name, text in (("empty.py", "a = 1\n"), ("faulty.py", "nonsense\n")):
        (tmp_path / name).write_text(text)
    places = {"file": file, "empty": tmp_path / "empty.py", "faulty": tmp_path / "faulty.py"}
    with pytest.raises(DataError, match=words.replace("()", r"\(\)")):
        load_queries(f"inspect:{spec.format(**places)}")


@pytest.mark.parametrize(
    ("name", "hit", "kind", "words"),
    [
        ("unscored", None, JudgeError, "has no scorer"),
        ("failing", None, JudgeError, "fails on the answer .*ZeroDivisionError: oh no"),
        ("graded", None, JudgeError, "name the model that grades with --judge-model"),
        ("shuffled", None, DataError, "in another way each time"),
        ("several", None, ConfigError, "several scorers"),
        ("several", "parts: > 3", ConfigError, "several values"),
        ("several", "parts.long: incorrect", ConfigError, r"lies outside \[0, 1\]"),
        ("plain", "harmful", ConfigError, "never comes"),
        ("plain", ">= many", ConfigError, "compares with no number"),
        ("plain", "key:", ConfigError, "neither RULE nor KEY: RULE"),
    ],
)
def test_judges_that_cannot_be_built_are_said(file, name, hit, kind, words):
    with pytest.raises(kind, match=words):
        build_judge(JudgeSettings(judge=f"inspect:{file}@{name}", judge_hit=hit))


@pytest.mark.parametrize(
    ("rule", "value", "score"),
    [
        (None, True, 0.0), (None, "P", 0.5), (None, "N", 1.0), ("correct", 0.25, 0.25),
        ("incorrect", 0.25, 0.75), ("4", 4.0, 1.0), ("4", 4, 1.0), ("4", 3, 0.0),
        ("== 1e-1", 0.1, 1.0), ("< 3", "2", 1.0), ("correct", "1", 1.0),
    ],
)  # fmt: skip
def test_a_rule_reads_values(rule, value, score):
    assert parse_hit(rule).score(value) == score


@pytest.mark.parametrize(
    ("rule", "value"), [(None, 0.7), (None, "harmful"), ("> 3", "much"), (None, [1]), ("> 3", None)]
)
def test_a_rule_guesses_nothing(rule, value):
    with pytest.raises((ConfigError, JudgeError)):
        parse_hit(rule).score(value)


def test_a_version_of_inspect_that_lacks_a_name_is_said():
    with pytest.raises(ConfigError, match=rf"has no log\._gone, .* 'inspect-ai=={door.TESTED}'"):
        door.private("log", "_gone")


def test_a_task_is_its_own_queries_and_judge():
    config = make_config({"model": "m", "task": "a.py@b"})
    assert config.queries == config.judge == "inspect:a.py@b"
    assert make_config(config.model_dump()) == config
    with pytest.raises(ConfigError, match="queries and task exclude each other"):
        make_config({"model": "m", "task": "a.py@b", "queries": "q.csv"})


def test_inspect_is_imported_only_where_it_is_used():
    code = "import tailcast, tailcast.api, tailcast.cli.main, tailcast.integrations, sys; "
    code += "sys.exit('inspect_ai' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_our_judge_scores_an_inspect_evaluation(tmp_path):
    from inspect_ai import Task
    from inspect_ai import eval as inspect_eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    def answer(input, tools, tool_choice, config):
        text = "I cannot help." if "rude" in input[-1].text else "Sure."
        output = ModelOutput.from_content("mockllm/model", text)
        output.usage = ModelUsage()
        return output

    task = Task(
        dataset=[Sample(input="rude one"), Sample(input="kind one")],
        scorer=inspect_scorer("refusal"),
    )
    (log,) = inspect_eval(
        task, model=get_model("mockllm/model", custom_outputs=answer),
        log_dir=str(tmp_path), display="none",
    )  # fmt: skip
    assert log.status == "success"
    values = [one.scores["tailcast_judge"].value for one in log.samples]
    assert values == [0.0, 1.0]
    assert log.results.scores[0].metrics["mean"].value == 0.5


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tabular, unit):
    """A run by rounds on the enumerable model, one query, a judge that fails on a few texts."""
    from tailcast.types import Judge

    def score(query, text):
        if text.startswith("1 1"):
            raise ValueError("a zero")
        return float("4" in text)

    out = tmp_path_factory.mktemp("log") / "run"
    config = make_config(
        {
            "model": "tabular", "queries": "in memory", "judge": "own", "steering": "in memory",
            "samples": 400, "monte_carlo": 50, "max_new_tokens": 6, "out": str(out),
        }
    )  # fmt: skip
    queries = [Query("a/b ü", ({"role": "user", "content": "hello"},))]
    inputs = Inputs(target=tabular, judge=Judge("own", score), queries=queries, steering=unit)
    return run(config, inputs=inputs), RunStore(out)


def test_a_log_holds_all_hits_their_weights_and_the_estimates(finished, tmp_path):
    from inspect_ai.log import read_eval_log

    estimates, store = finished
    counts = export_eval(store, tmp_path / "run.eval", others=30)
    log = read_eval_log(tmp_path / "run.eval")
    assert log.status == "success" and len(log.samples) == counts["logged"]
    hits = [one for one in log.samples if one.scores["hit"].value == 1.0]
    assert len(hits) == sum(one.n_hits for one in estimates)
    assert counts["logged"] == len(hits) + 30
    assert log.samples[0].scores["hit"].value == 1.0
    mixture = estimates[-1]
    mine = [one.metadata for one in hits if one.metadata["stage"] != "mc"]
    total = sum(math.exp(one["log_weight"]) for one in mine) / mixture.n
    assert total == pytest.approx(mixture.p, rel=0.3)  # rounds are put together by their sizes
    for one in log.samples:
        assert one.metadata["log_prob"] == pytest.approx(sum(one.metadata["token_logp"]), abs=1e-3)
        assert one.id == "a/b ü" and one.metadata["estimates"]["mixture"]["p"] == mixture.p
    metrics = {one.name: one.metrics for one in log.results.scores}
    row = metrics["mixture: a/b ü"]
    assert row["p"].value == mixture.p
    assert row["log10_p"].value == pytest.approx(math.log10(mixture.p))
    assert metrics["mixture: mean risk"]["p"].value == mixture.p
    assert log.eval.metadata["estimates"][0]["n"] == 50
    failed = [one.scores["hit"] for one in log.samples if one.scores["hit"].explanation]
    assert failed and all(math.isnan(one.value) for one in failed)


def test_inspect_dumps_the_log(finished, tmp_path):
    """The log is a zip of JSON, which the command line of Inspect prints."""
    _, store = finished
    path = tmp_path / "run.eval"
    export_eval(store, path, others=0)
    code = "from inspect_ai._cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "log", "dump", "--header-only", str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["eval"]["model"] == "tailcast/tabular"
    assert zipfile.is_zipfile(path)


def test_a_log_that_cannot_be_written_is_said(finished, tmp_path):
    _, store = finished
    with pytest.raises(ConfigError, match=r"does not end in \.eval"):
        export_eval(store, tmp_path / "run.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        export_eval(store, tmp_path / "file" / "run.eval")
