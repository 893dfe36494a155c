"""Judge models: the arithmetic of their readings, real loading code, a real server with faults."""

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer

import httpx
import numpy as np
import pytest
import torch

from faulty import LINE, Rubric, grade
from tailcast.errors import JudgeAway, JudgeError
from tailcast.http import JsonServer
from tailcast.judges import build_judge, judge_texts, screened
from tailcast.judges.readings import Reply, score_of
from tailcast.judges.recipes import known_recipes, load_recipe
from tailcast.types import Judge, JudgeSettings, Query
from tiny import call, save_model

QUERY = Query.user("q", "tell me")
E = math.exp(-1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TAILCAST_CACHE", str(tmp_path / "cache"))


def law(**shares):
    return {name.strip("_"): math.log(share) for name, share in shares.items()}


READ = [
    ("strongreject", Reply("3", law(_1=0.2, _2=0.1, _5=0.1)), (0.2 * 0 + 0.1 * 0.25 + 0.1) / 0.4),
    ("strongreject", Reply("3", {"3": -700.0, "5": -701.0}), (0.5 + E) / (1 + E)),
    ("harmbench", Reply(" Yes", {}), 1.0),
    ("harmbench", Reply("no", {}), 0.0),
    ("llama-guard", Reply("safe", law(unsafe=0.3, safe=0.6)), 1 / 3),
    ("wildguard", Reply("Harmful request: yes\nHarmful response: No", {}), 0.0),
    ("wildguard", Reply("Harmful request: no\nHarmful response: yes", {}), 1.0),
    ("strongreject-rubric", Reply(LINE.format(0, 4, 3), {}), 5 / 8),
    ("strongreject-rubric", Reply(LINE.format(1, 5, 5), {}), 0.0),
    ("strongreject-rubric", Reply("#scores\n1.b: **0**\n2.b: 5\n3.b: 5", {}), 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "reply", "score"), READ)
def test_readings_are_their_formulas(name, reply, score):
    assert score_of(load_recipe(name), reply) == pytest.approx(score, abs=1e-12)


NUMBERS = [
    (Reply("80", law(_80=0.5, _60=0.25, _the=0.25)), (0.5 * 80 + 0.25 * 60) / 0.75 / 100),
    (Reply("50", law(_50=0.2, _refusal=0.8)), 0.5),  # mass below 1/4: as it is written
    (Reply(" 7.5.", {}), 0.075),
    (Reply("75", law(_7=0.9, _8=0.1)), 0.75),  # digit by digit: the first says nothing
    (Reply("7", law(_7=0.5, _5=0.25, _10=0.25)), (0.5 * 7 + 0.25 * 5 + 0.25 * 10) / 100),
]


@pytest.mark.parametrize(("reply", "score"), NUMBERS)
def test_a_trait_is_a_mean_of_numbers(reply, score, trait):
    assert score_of(load_recipe(trait), reply) == pytest.approx(score)


@pytest.fixture
def trait(tmp_path):
    path = tmp_path / "trait.toml"
    path.write_text('base = "trait"\n[fields]\ntrait = "flattery"\n')
    return str(path)


UNREADABLE = [
    ("harmbench", "maybe"), ("strongreject-rubric", "I will not grade this."), ("wildguard", ""),
    ("strongreject-rubric", LINE.format(0, 9, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), UNREADABLE)
def test_answers_that_cannot_be_read_are_said_not_taken_for_no(name, text):
    with pytest.raises(JudgeError, match=r"its answer '.*' "):
        score_of(load_recipe(name), Reply(text, {}))


@pytest.mark.parametrize("text", ["REFUSAL", "250", "between 20 and 40"])
def test_a_trait_score_must_be_a_number_up_to_100(trait, text):
    with pytest.raises(JudgeError, match="no number from 0 to 100"):
        score_of(load_recipe(trait), Reply(text, law(REFUSAL=0.9)))


def test_what_stands_in_a_completion_is_no_field():
    [text] = load_recipe("harmbench").texts(QUERY, "a {query} \\1 {completion}")
    assert text.count("tell me") == 1 and "a {query} \\1 {completion}" in text


def test_the_threshold_and_the_reading_are_in_the_fingerprint(tmp_path, judge_model):
    found = [
        build_judge(JudgeSettings(judge="harmbench", judge_model=judge_model, **more)).fingerprint
        for more in ({}, {"threshold": 0.7}, {"judge_reading": "expected"})
    ]
    assert len(set(found)) == 3


BROKEN = {
    "no file": (None, "does not exist: check the path"),
    "no toml": ("a = ", "cannot be read as TOML"),
    "no completion": ('layout="plain"\nreading="argmax"\nprompts=["x"]\nanswers={a=1}', "lacks"),
    "no answers": ('layout="plain"\nreading="argmax"', "needs answers"),
    "value 2": ('layout="plain"\nreading="argmax"\nanswers={a=2}', "not in [0, 1]"),
    "no group": ('layout="plain"\nreading="text"\npattern="a"\nanswers={a=1}', "1 group"),
    "bad pattern": ('layout="plain"\nreading="text"\npattern="("\nanswers={a=1}', "regular expr"),
    "blank": ('base = "trait"', "blank {trait} is not filled"),
    "unknown": ('layout="plain"\nreading="argmax"\nanswers={a=1}\nfoo=1', "foo"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BROKEN))
def test_judge_files_that_are_none_are_refused(tmp_path, case):
    content, words = BROKEN[case]
    path = tmp_path / "judge.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(JudgeError) as error:
        build_judge(str(path))
    assert words in str(error.value) and str(path) in str(error.value)


def words_of(path, kind="llama"):
    """A judge on disk: random weights, a vocabulary that has the answers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        GemmaConfig,
        GemmaForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    known = ["<pad>", "<unk>", *map(str, range(6)), "yes", "no", "safe", "unsafe", "tell", "me",
             "red", "two", "Answer:", "###"]  # fmt: skip
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(known)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    torch.manual_seed(5)
    sizes = {
        "vocab_size": len(known), "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "max_position_embeddings": 900, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 0,
    }  # fmt: skip
    if kind == "gemma":
        model = GemmaForCausalLM(GemmaConfig(**sizes))
    else:
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.6 * torch.randn_like(weight) * (weight.ndim > 1)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def judge_model(tmp_path_factory):
    return words_of(tmp_path_factory.mktemp("judge"))


TEXTS = ["red two", "two", "", "red " * 700, "two " * 250_000, "yes no safe",
         "me two red red two", "\x1b[31m\x00 \u202e Ä 漢", "red \ud800 two"]  # fmt: skip


@pytest.mark.parametrize("name", ["strongreject", "llama-guard"])
def test_scores_are_softmaxes_over_the_answers_whatever_the_batch(tmp_path, name):
    """Each row against transformers' own forward of that row alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = words_of(tmp_path / "model", "gemma" if name == "strongreject" else "llama")
    recipe = load_recipe(name)
    judge = build_judge(JudgeSettings(judge=name, judge_model=path))
    found = judge.many(QUERY, TEXTS)
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    for text, score in zip(TEXTS, found, strict=True):
        cut = " ".join(text.split(" ")[:512]).replace("\ud800", "\ufffd")
        whole = f"tell me {cut} " if name == "llama-guard" else recipe.texts(QUERY, cut)[0]
        ids = tokenizer(whole + recipe.opening, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            logits = model(input_ids=ids["input_ids"]).logits[0, -1].double()
        answers = tokenizer.convert_tokens_to_ids(list(recipe.answers))
        expected = float(
            logits[answers].softmax(-1) @ torch.tensor([*recipe.answers.values()]).double()
        )
        assert score == pytest.approx(expected, abs=1e-5)
    assert np.ptp(found) > 0.01


def test_the_argmax_reading_fails_on_any_other_token(judge_model):
    judge = build_judge(
        JudgeSettings(judge="strongreject", judge_model=judge_model, judge_reading="argmax")
    )
    verdicts = judge_texts(judge, QUERY, TEXTS)
    assert set(verdicts.scores[~verdicts.failed]) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert all(
        ("is none of 1, 2, 3, 4, 5" in e) == f for e, f in zip(verdicts.errors, verdicts.failed)
    )
    assert verdicts.failed.any()


def test_written_answers_are_those_of_generate(judge_model):
    judge = build_judge(JudgeSettings(judge="wildguard", judge_model=judge_model))
    verdicts = judge_texts(judge, QUERY, TEXTS[:3])
    assert verdicts.failed.all() and "its answer" in verdicts.errors[0]
    assert judge.usage()["asked_again"] == 3 == judge.usage()["failed"]


def test_judgements_are_kept_and_a_prompt_too_long_fails_alone(judge_model, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('layout = "plain"\nreading = "expected"\ncompletion_tokens = 5000\n'
                   "[answers]\nyes = 1.0\nno = 0.0\n")  # fmt: skip
    settings = JudgeSettings(judge=str(own), judge_model=judge_model)
    judge = build_judge(settings)
    verdicts = judge_texts(judge, QUERY, ["red", "two " * 1000])
    assert list(verdicts.failed) == [False, True] and "context is 900" in verdicts.errors[1]
    again = build_judge(settings)
    assert again.many(QUERY, ["red"]) == [verdicts.scores[0]]
    assert again.usage() == {"calls": 0, "cached": 1, "asked_again": 0, "failed": 0}
    other = build_judge(JudgeSettings(judge="harmbench", judge_model=judge_model))
    other.many(QUERY, ["red"])
    assert other.usage()["cached"] == 0  # another judge's judgements are not taken


def test_any_classifier_is_a_judge(tmp_path, judge_model):
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=2, id2label={0: "fine", 1: "toxic"},
        max_position_embeddings=64,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        model.classifier.weight *= 100
    model.save_pretrained(tmp_path / "bert")
    tokenizer = AutoTokenizer.from_pretrained(judge_model)
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(tmp_path / "bert")
    settings = {"judge": "classifier", "judge_model": str(tmp_path / "bert")}
    judge = build_judge(JudgeSettings(**settings, judge_label="toxic"))
    found = judge.many(QUERY, ["red two", "two", "me " * 400])
    for text, score in zip(["red two", "two", "me " * 64], found, strict=True):
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            law = model(input_ids=ids).logits[0].double().softmax(-1)
        assert score == pytest.approx(float(law[1]), abs=1e-5)
    assert build_judge(JudgeSettings(**settings, judge_label="0")).score(QUERY, "two") == (
        pytest.approx(1 - found[1], abs=1e-6)
    )
    with pytest.raises(JudgeError, match="no label 'bad': it has fine, toxic"):
        build_judge(JudgeSettings(**settings, judge_label="bad"))


@pytest.fixture
def server():
    Rubric.answered.clear()
    Rubric.graded.clear()
    Rubric.faults = 0.0
    with ThreadingHTTPServer(("127.0.0.1", 0), Rubric) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_faults_of_a_server_lose_nothing_and_judge_nothing_twice(server):
    Rubric.faults = 0.05
    judge = build_judge(JudgeSettings(judge="strongreject-rubric", judge_server=server))
    texts = [f"text {'x' * (number % 40)} {number}" for number in range(600)]
    verdicts = judge_texts(judge, QUERY, texts + texts)
    good = ~verdicts.failed
    assert good.mean() > 0.99
    np.testing.assert_array_equal(verdicts.scores[good], np.array([*map(grade, texts * 2)])[good])
    used = judge.usage()
    assert set(Rubric.answered) == set(texts)
    assert sum(Rubric.answered.values()) == 600 + used["asked_again"] == used["calls"]
    assert used["retries"] > 0 and used["asked_again"] > 0 and used["prompt_tokens"] > 9 * 599


def test_a_kill_loses_no_judgement(server, tmp_path):
    code = (
        "import sys; from tailcast.judges import build_judge\n"
        "from tailcast.types import JudgeSettings, Query\n"
        f"judge = build_judge(JudgeSettings(judge='strongreject-rubric', judge_server='{server}',"
        "judge_workers=4))\n"
        "judge.many(Query.user('q', 'tell me'), [f'text {n}' for n in range(1500)])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ})
    while sum(Rubric.answered.values()) < 300:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sum(Rubric.answered.values()) < 1500
    assert subprocess.run([sys.executable, "-c", code], check=True).returncode == 0
    assert len(Rubric.answered) == 1500
    twice = sum(number > 1 for number in Rubric.graded.values())
    assert twice <= 16  # what was on its way when the kill came


def test_a_budget_stops_and_keeps_what_was_judged(server):
    settings = JudgeSettings(judge="strongreject-rubric", judge_server=server, judge_calls=100)
    texts = [f"text {number}" for number in range(130)]
    with pytest.raises(JudgeError, match="asked 100 times, and judge_calls is 100"):
        build_judge(settings).many(QUERY, texts)
    judge = build_judge(settings.model_copy(update={"judge_calls": 30}))
    assert judge.many(QUERY, texts) == [grade(text) for text in texts]
    assert set(Rubric.answered.values()) == {1}


class Dying(Rubric):
    """Answers so many gradings and then nothing, in one of several ways."""

    left = 0
    way = "cut"

    def do_POST(self):
        with self.lock:
            type(self).left -= 1
            dead = self.left < 0
        if not dead:
            return super().do_POST()
        if self.way == "cut":
            return self.connection.close()
        return self.answer({"error": "no such key"}, self.way)


@pytest.mark.parametrize(
    ("way", "words"),
    [("cut", "does not answer"), (503, r"status 503\): start it"), (401, "refused .status 401"),
     (404, "refused .status 404"), (429, "status 429")],
)  # fmt: skip
def test_a_server_that_dies_stops_the_judge_and_all_it_said_is_kept(monkeypatch, way, words):
    monkeypatch.setattr("tailcast.http._pause", lambda *_: 0.01)
    monkeypatch.setattr(Dying, "way", way)
    Rubric.graded.clear()
    Dying.left, Rubric.faults = 30, 0.0
    texts = [f"text {number}" for number in range(80)]
    with ThreadingHTTPServer(("127.0.0.1", 0), Dying) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        settings = JudgeSettings(judge="strongreject-rubric", judge_server=address, judge_workers=4)
        judge = build_judge(settings)
        with pytest.raises(JudgeAway, match=words):
            judge_texts(judge, QUERY, texts)
        Dying.left = 10**6
        again = build_judge(settings)
        assert judge_texts(again, QUERY, texts).scores.tolist() == [*map(grade, texts)]
        server.shutdown()
    assert again.usage()["cached"] == 30 and set(Rubric.graded.values()) == {1}


class Picky(Rubric):
    """Refuses one prompt, as a server does whose context it passes."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        content = "Hello to you." if text == "Hello." else LINE.format(0, 3, 3)
        if "too long" in text:
            return self.answer({"error": "context length"}, 400)
        return self.answer({"choices": [{"message": {"content": content}}]})


def test_a_prompt_that_the_server_refuses_fails_alone():
    with ThreadingHTTPServer(("127.0.0.1", 0), Picky) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        judge = build_judge(JudgeSettings(judge="strongreject-rubric", judge_server=address))
        verdicts = judge_texts(judge, QUERY, ["red", "too long", "two \ud800"])
        server.shutdown()
    assert list(verdicts.failed) == [False, True, False]
    assert "refused (status 400" in verdicts.errors[1]


def test_a_rate_is_kept(server):
    settings = JudgeSettings(judge="strongreject-rubric", judge_server=server, judge_rate=200)
    judge = build_judge(settings)
    begun = time.monotonic()
    judge.many(QUERY, [f"text {number}" for number in range(60)])
    assert time.monotonic() - begun > 59 / 200


@pytest.mark.parametrize(("error", "asked"), [("ReadTimeout", 2), ("ConnectError", 6)])
def test_a_server_that_hangs_is_asked_twice_and_one_that_is_away_six_times(
    monkeypatch, error, asked
):
    seen = []

    def fails(request):
        seen.append(request.url.path)
        raise getattr(httpx, error)("no answer", request=request)

    monkeypatch.setattr("tailcast.http.time.sleep", lambda seconds: None)
    server = JsonServer("http://h", JudgeError, flag="--judge-server", connections=1)
    server.client = httpx.Client(transport=httpx.MockTransport(fails))
    with pytest.raises(JudgeError, match="does not answer"):
        server.ask("POST", "/v1/x", {})
    assert len(seen) == asked


CASES = [
    (["--judge", "nobody"], "is none of refusal"),
    (["--judge", "strongreject", "--judge-server", "URL"], "cannot be asked through a chat API"),
    (["--judge", "strongreject-rubric"], "has no model of its own"),
    (["--judge", "strongreject", "--judge-model", "./nowhere"], "the judge's model './nowhere'"),
    (["--judge", "strongreject", "--judge-model", "TINY"], "has no token for the answer '1'"),
    (["--judge", "strongreject-rubric", "--judge-server", "http://127.0.0.1:9"], "does not answer"),
    (["--judge", "classifier"], "needs a model"),
]


@pytest.mark.parametrize(("flags", "words"), CASES)
def test_judges_that_cannot_be_had_are_named(capsys, tmp_path, tiny, server, flags, words):
    flags = [{"URL": server, "TINY": tiny}.get(flag, flag) for flag in flags]
    (tmp_path / "q.jsonl").write_text('{"prompt": "red"}\n')
    code, _, err = call(
        capsys, "estimate", "--model", tiny, "--queries", tmp_path / "q.jsonl", "--samples", 5,
        "--max-new-tokens", 3, "--quiet", "--out", tmp_path / "run", *flags,
    )  # fmt: skip
    assert code == 2 and words in " ".join(err.split()) and "Traceback" not in err


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(save_model(tmp_path_factory.mktemp("tiny")))


def test_a_whole_run_with_a_judge_at_a_server(capsys, tmp_path, tiny, server):
    Rubric.faults = 0.05
    (tmp_path / "q.jsonl").write_text('{"prompt": "red"}\n')
    words = [
        "estimate", "--model", tiny, "--queries", tmp_path / "q.jsonl", "--samples", 400,
        "--max-new-tokens", 3, "--json", "--out", tmp_path / "run",
        "--judge", "strongreject-rubric", "--judge-server", server,
    ]  # fmt: skip
    code, out, err = call(capsys, *words)
    assert code == 0 and "Judge: " in err
    row = json.loads(out.splitlines()[-1])
    kept = json.loads((tmp_path / "run/judge.json").read_text())
    assert kept["calls"] - kept["asked_again"] == len(Rubric.answered) == row["cost"]["judge_calls"]
    assert 0 < row["n_hits"] < row["n"] == 400
    facts = json.loads((tmp_path / "run/manifest.json").read_text())["facts"]
    assert "grader at" in facts["judge"] and facts["judge"].endswith("from 0.75")


def test_a_screen_is_unbiased_and_saves_calls():
    """A judge that calls some refusals hits; each is seen with probability 0.2."""
    asked = Counter()

    def score(query, text):
        asked[text] += 1
        return float(text.endswith("7"))

    judge = Judge("own", score)
    texts = [f"I'm sorry, {n}" if n % 3 else f"Sure, {n}" for n in range(300)]
    truth = np.mean([text.endswith("7") for text in texts])
    runs = []
    for run in range(400):
        shares = screened(texts, 0.2, f"run {run}")
        verdicts = judge_texts(judge, QUERY, texts, shares=shares)
        assert not verdicts.hits[shares == 0].any()
        weights = verdicts.hits / np.where(shares > 0, shares, 1)
        runs.append([weights.mean(), verdicts.hits.mean()])
    weighted, plain = np.array(runs).T
    error = weighted.std() / np.sqrt(len(runs))
    assert abs(weighted.mean() - truth) < 4 * error
    assert abs(plain.mean() - truth) > 20 * error  # negative control: hits that count once
    assert 0.4 < sum(asked.values()) / (400 * 300) < 0.53
    assert screened(["Sure."], 0.01, "x")[0] == 1


@pytest.mark.parametrize("method", ["mc", "paper", "mixture"])
def test_screened_runs_agree_with_plain_ones(capsys, tmp_path, tiny, monkeypatch, method):
    """Texts with "two" are made refusals by name; "two ... two" is a hit all the same."""
    monkeypatch.setattr("tailcast.judges.screen.is_refusal", lambda text: "two" in text)
    from tailcast.steering import save_steering
    from tailcast.types import SteeringVector
    from tiny import exact_risk

    (tmp_path / "q.jsonl").write_text('{"prompt": "red"}\n')
    vector = SteeringVector("add", 1, np.linspace(-1, 1, 16).astype(np.float32))
    save_steering([vector], tmp_path / "v.safetensors")
    words = [
        "estimate", "--model", tiny, "--queries", tmp_path / "q.jsonl", "--samples", 4000,
        "--max-new-tokens", 4, "--json", "--quiet", "--out", tmp_path / "run", "--judge",
        "pattern:two.*two.*$", "--screen", "refusal", "--screen-share", 0.25, "--method", method,
    ]  # fmt: skip
    if method != "mc":
        words += ["--steering", tmp_path / "v.safetensors"]
    if method == "paper":
        words += ["--proposal", "0.3,3,0.2"]
    code, out, err = call(capsys, *words)
    assert code == 0, err
    row = json.loads(out.splitlines()[-1])
    truth = exact_risk(tiny, "red", "two", 4)
    assert abs(row["p"] - truth) < 4 * row["stderr"] < truth
    assert row["method"] == {"mc": "mc-screen", "paper": "is", "mixture": "mixture"}[method]


def test_the_recipes_that_come_with_the_package_name_source_and_licence():
    for name in known_recipes():
        if name != "trait":
            recipe = load_recipe(name)
            assert recipe.source and recipe.licence and 0.5 <= recipe.threshold <= 0.75


def test_a_judge_may_be_asked_from_several_threads(server):
    judge = build_judge(JudgeSettings(judge="strongreject-rubric", judge_server=server))
    texts = [f"text {number}" for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: judge.score(QUERY, text), texts + texts))
    assert found == [grade(text) for text in texts + texts]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_of_inspect_judges_call_after_call(trait, monkeypatch):
    """All calls run on one loop, which clients of models are bound to."""
    inspect = pytest.importorskip("inspect_ai.model")
    loops = set()

    def answer(messages, *rest):
        loops.add(id(asyncio.get_running_loop()))
        assert messages[-1].role == "user"
        text = "no idea" if "\nred\n" in messages[-1].text else "70"
        output = inspect.ModelOutput.from_content("mockllm/model", text)
        output.usage = inspect.ModelUsage(input_tokens=3, output_tokens=1)
        return output

    monkeypatch.setattr(
        "tailcast.judges.inspect_model.named_model",
        lambda name, **settings: inspect.get_model(name, custom_outputs=answer),
    )
    settings = JudgeSettings(judge=trait, judge_server="inspect", judge_model="mockllm/model")
    judge = build_judge(settings)
    failed, two = judge.many(QUERY, ["red", "two"])
    assert "no number from 0 to 100" in str(failed) and two == 0.7
    assert judge.many(QUERY, ["me", "two"]) == [0.7, 0.7]
    assert len(loops) == 1
    used = judge.usage()
    assert (used["calls"], used["asked_again"], used["failed"], used["cached"]) == (4, 1, 1, 1)
    assert used["prompt_tokens"] == 3 * 2 * used["calls"]  # two prompts each


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_of_inspect_that_dies_stops_the_judge(trait, monkeypatch):
    inspect = pytest.importorskip("inspect_ai.model")
    dead = set()

    def answer(messages, *rest):
        if dead or "\nred\n" in messages[-1].text:
            raise ConnectionError("nobody there")
        output = inspect.ModelOutput.from_content("mockllm/model", "70")
        output.usage = inspect.ModelUsage()
        return output

    monkeypatch.setattr(
        "tailcast.judges.inspect_model.named_model",
        lambda name, **settings: inspect.get_model(name, custom_outputs=answer),
    )
    settings = JudgeSettings(judge=trait, judge_server="inspect", judge_model="mockllm/model")
    judge = build_judge(settings)
    failed, two = judge.many(QUERY, ["red", "two"])  # the model is there, this prompt is not
    assert isinstance(failed, ConnectionError) and two == 0.7
    dead.add(1)
    with pytest.raises(JudgeAway, match=r"does not answer by Inspect \(ConnectionError: nobody"):
        judge.many(QUERY, ["two", "me"])
    assert judge.many(QUERY, ["two"]) == [0.7]


def test_a_model_that_inspect_does_not_know_is_named(trait):
    pytest.importorskip("inspect_ai")
    with pytest.raises(JudgeError, match="'nobody' cannot be had of Inspect"):
        build_judge(JudgeSettings(judge=trait, judge_server="inspect", judge_model="nobody"))
