"""The command line on a model on disk: numbers, resumption, and what it says to mistakes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tailcast.steering import save_steering
from tailcast.types import SteeringVector
from tiny import call, exact_risk, save_model

PATTERN = "pattern:two.*two"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def files(tmp_path_factory, model):
    """Queries and a steering vector that makes "two" likelier."""
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("files")
    (root / "q.jsonl").write_text(
        '{"id": "a", "prompt": "tell me"}\n{"id": "b", "prompt": "red"}\n'
    )
    head = AutoModelForCausalLM.from_pretrained(model).lm_head.weight.detach().numpy()
    direction = 2 * (head[7] - head.mean(0)) / np.linalg.norm(head[7])
    save_steering([SteeringVector("add", 1, direction.astype(np.float32))], root / "v.safetensors")
    return root


def estimate(model, files, out, *more):
    return [
        "estimate", "--model", model, "--queries", files / "q.jsonl", "--judge", PATTERN,
        "--max-new-tokens", 4, "--samples", 3000, "--quiet", "--json", "--out", out, *more,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ([], {}),
        (["--temperature", 0.7], {"temperature": 0.7}),
        (["--top-k", 8], {"top_k": 8}),
        (["--top-p", 0.9, "--temperature", 0.7], {"top_p": 0.9, "temperature": 0.7}),
    ],
)
@pytest.mark.parametrize("proposal", [None, "0.5,4,0.0", "1,4,0.1", "1,2,0.3"])
def test_estimates_agree_with_enumeration(
    capsys, tmp_path, model, files, flags, settings, proposal
):
    if proposal:
        flags = [*flags, "--steering", files / "v.safetensors", "--proposal", proposal]
    code, out, err = call(capsys, *estimate(model, files, tmp_path / "run", *flags))
    assert code == 0, err
    for line, prompt in zip(out.splitlines(), ["tell me", "red"], strict=True):
        row = json.loads(line)
        truth = exact_risk(model, prompt, "two", 4, **settings)
        assert row["n_hits"] > 5 and row["method"] == ("is" if proposal else "mc")
        assert abs(row["p"] - truth) < 4 * row["stderr"], (row["p"], truth)


@pytest.mark.parametrize("more", [[], ["--per-query"]])
def test_selection_runs_and_its_estimate_agrees(capsys, tmp_path, model, files, more):
    flags = [
        "--steering",
        files / "v.safetensors",
        "--method",
        "paper",
        "--pilot-samples",
        200,
        *more,
    ]
    code, out, err = call(capsys, *estimate(model, files, tmp_path / "run", *flags))
    assert code == 0, err
    for line, prompt in zip(out.splitlines(), ["tell me", "red"], strict=True):
        row = json.loads(line)
        assert abs(row["p"] - exact_risk(model, prompt, "two", 4)) < 4 * row["stderr"]
    assert json.loads((tmp_path / "run/selection.json").read_text())["given_up"] is False


def test_a_pilot_without_hits_widens_and_then_says_that_it_samples_plainly(
    capsys, tmp_path, model, files
):
    flags = ["--steering", files / "v.safetensors", "--method", "paper", "--pilot-samples", 20]
    words = estimate(model, files, tmp_path / "run", *flags)
    words[words.index(PATTERN)] = "pattern:never"
    words.remove("--quiet")
    code, out, err = call(capsys, *words)
    assert code == 0 and "strengths up to 4" in err and "plain sampling is all" in err
    row = json.loads(out.splitlines()[0])
    assert row["method"] == "mc" and row["p"] is None and row["ci_high"] > 0
    assert any("the pilot found no proposal" in reason for reason in row["reasons"])


@pytest.mark.parametrize(
    ("flags", "settings"),
    [([], {}), (["--temperature", 0.7, "--top-p", 0.9], {"temperature": 0.7, "top_p": 0.9})],
)
@pytest.mark.parametrize("more", [[], ["--proposal", "1,2,0", "--method", "mixture"],
                                  ["--continuations", 3], ["--roulette", 0.5]])  # fmt: skip
def test_a_mixture_agrees_and_its_bounds_hold(
    capsys, tmp_path, model, files, flags, settings, more
):
    words = estimate(model, files, tmp_path / "run", "--steering", files / "v.safetensors")
    code, out, err = call(capsys, *words, *flags, *more)
    assert code == 0, err
    for line, prompt in zip(out.splitlines(), ["tell me", "red"], strict=True):
        row = json.loads(line)
        truth = exact_risk(model, prompt, "two", 4, **settings)
        assert row["method"] == "mixture" and row["n_hits"] > 20 and row["verdict"] != "unreliable"
        assert abs(row["p"] - truth) < 4 * row["stderr"], (row["p"], truth)
        assert row["p_low"] <= truth <= row["p_high_guaranteed"]
        assert (row["p_high_guaranteed"] < 1) == ("--roulette" not in more)
    audits = json.loads((tmp_path / "run/audit.json").read_text())
    assert not any(audit["fires"] for audit in audits)
    assert bool(audits) == ("--roulette" not in more)


RULES = {
    "error": (["--until", "relative-error", 0.5], "relative error 0."),
    "above": (["--until", "above", 1e-4], "above 0.0001"),
    "below": (["--until", "below", 0.2], "below 0.2"),
    "plain": (["--until", "below", 0.2, "--method", "mc"], "below 0.2, guaranteed"),
    "tokens": (["--budget", "tokens", 500], "budget of 500 tokens"),
    "judge": (["--budget", "judge-calls", 30, "--method", "mc"], "budget of 30 judge-calls"),
    "minutes": (["--budget", "minutes", 1e-4], "budget of 0.0001 minutes"),
}


@pytest.mark.parametrize(("flags", "why"), RULES.values(), ids=list(RULES))
def test_rules_and_budgets_end_a_run_and_say_so(capsys, tmp_path, model, files, flags, why):
    words = estimate(model, files, tmp_path / "run", "--steering", files / "v.safetensors", *flags)
    place = words.index("--samples")
    del words[place : place + 2]
    code, out, err = call(capsys, *words)
    assert code == 0, err
    for line, prompt in zip(out.splitlines(), ["tell me", "red"], strict=True):
        row = json.loads(line)
        assert row["ended"].startswith(why) and row["n"] < 20_000
        assert row["p_low"] <= exact_risk(model, prompt, "two", 4) <= row["p_high_guaranteed"]
    words.remove("--json")
    code, out, _ = call(capsys, *words)
    assert (code == 0 and f"2 ended by: {why}" in out) or "1 ended by" in out


def test_a_finished_run_does_nothing_and_grows_without_redrawing(capsys, tmp_path, model, files):
    out = tmp_path / "run"
    words = estimate(model, files, out)
    words[words.index(3000)] = 300
    assert call(capsys, *words)[0] == 0
    first = (out / "estimates.jsonl").read_bytes()
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    words.remove("--quiet")
    code, _, err = call(capsys, *words)
    assert code == 0 and "nothing to do" in err
    assert (out / "estimates.jsonl").read_bytes() == first
    words[words.index(300)] = 500
    assert call(capsys, *words)[0] == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert json.loads((out / "estimates.jsonl").read_text().splitlines()[0])["n"] == 500
    words[words.index(500)] = 400
    code, _, err = call(capsys, *words)
    assert code == 2 and "samples = 500, now 400" in err and "may only grow" in err
    words[words.index(400)] = 500
    code, _, err = call(capsys, *words, "--temperature", 0.5)
    assert code == 2 and "temperature = 1.0, now 0.5" in err


def test_a_run_that_computed_nothing_gives_way_to_the_corrected_command(
    capsys, tmp_path, model, files
):
    (tmp_path / "other.jsonl").write_text('{"id": "c", "prompt": "blue"}\n')
    words = estimate(model, files, tmp_path / "run")
    wrong = list(map({files / "q.jsonl": tmp_path / "other.jsonl"}.get, words, words))
    code, _, err = call(capsys, *wrong, "--proposal", "1,2,0.1", "--steering", "none.safetensors")
    assert code == 2 and "none.safetensors" in err
    assert (tmp_path / "run/queries.jsonl").exists()  # the mistake came after the beginning
    code, out, _ = call(capsys, *words)
    asked = (tmp_path / "run/queries.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["query_id"] for row in rows] == ["a", "b"] and len(asked) == 2
    code, _, err = call(capsys, *wrong)
    assert code == 2 and "was made with queries" in err  # something is computed now


def test_killed_at_random_moments_and_resumed_gives_identical_bytes(tmp_path, model, files):
    def words(out):
        flags = ["--steering", files / "v.safetensors"]  # a mixture in rounds
        return [str(w) for w in estimate(model, files, out, *flags)]

    def start(out):
        code = f"from tailcast.cli import main; main({words(out)!r})"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, "-c", code], stdout=-3, env=environment)

    began = time.time()
    assert start(tmp_path / "whole").wait() == 0
    whole = time.time() - began
    moments = np.random.default_rng(0).uniform(0.5, 0.95, 3)
    for moment in moments:
        process = start(tmp_path / "killed")
        time.sleep(whole * moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "killed").wait() == 0
    assert (tmp_path / "killed/estimates.jsonl").read_bytes() == (
        tmp_path / "whole/estimates.jsonl"
    ).read_bytes()


def test_scoring_cut_short_is_made_again_as_it_was(capsys, tmp_path, model, files):
    """The rounding of a weight and its cost hang on its batch, so the batch must be the same."""
    words = estimate(model, files, tmp_path / "run", "--steering", files / "v.safetensors")
    assert call(capsys, *words)[0] == 0
    whole = (tmp_path / "run/estimates.jsonl").read_bytes()
    scores = sorted((tmp_path / "run").rglob("scores/**/*.parquet"))
    assert len(scores) >= 4
    kept = {path: path.read_bytes() for path in scores}
    for path in scores[::2]:
        path.unlink()
    (tmp_path / "run/estimates.jsonl").unlink()
    code, _, err = call(capsys, *words)
    assert code == 0, err
    assert (tmp_path / "run/estimates.jsonl").read_bytes() == whole
    assert {path: path.read_bytes() for path in scores} == kept


def test_a_judge_that_fails_on_a_text_marks_the_estimate(
    capsys, tmp_path, model, files, monkeypatch
):
    (tmp_path / "moody.py").write_text(
        "def judge(query, text):\n"
        "    if text.startswith('red'):\n        raise ValueError('not today')\n"
        "    return 'two' in text\n"
    )
    monkeypatch.chdir(tmp_path)
    words = estimate(model, files, tmp_path / "run")
    words[words.index(PATTERN)] = "python:moody:judge"
    code, out, _ = call(capsys, *words)
    row = json.loads(out.splitlines()[0])
    assert code == 0 and row["verdict"] == "weak" and "judge failed on" in row["reasons"][0]


MISTAKES = {
    "missing file": (["--queries", "none.jsonl"], "file 'none.jsonl' does not exist"),
    "empty file": (["--queries", "empty.jsonl"], "holds no query"),
    "malformed line 7": (["--queries", "seven.jsonl"], "seven.jsonl line 7 is not JSON"),
    "unknown column": (["--queries", "column.csv"], "its columns are colour"),
    "missing model": (["--model", "/none"], "neither a directory nor a gguf file"),
    "no template": (["--model", "bare"], "--plain-prompt"),
    "not an adapter": (["--adapter", "."], "adapter_config.json is missing"),
    "vector of another width": (["--steering", "w.safetensors"], "width 8"),
    "vector of another model": (["--steering", "o.safetensors"], "fitted on another model"),
    "negative samples": (["--samples", -5], "samples must be greater than or equal to 1, got -5"),
    "switch beyond limit": (["--proposal", "1,9,0.1"], "switch 9 lies beyond max_new_tokens = 4"),
    "mix outside": (["--proposal", "1,2,1.5"], r"mix 1.5 lies outside"),
    "unknown judge": (["--judge", "nice"], "judge 'nice' is none of"),
    "broken pattern": (["--judge", "pattern:("], "no regular expression"),
    "unknown flag": (["--sample", 3], "--sample"),
    "read-only directory": (["--out", "/proc/run"], "cannot write to run directory"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_answered_in_one_sentence(
    capsys, tmp_path, model, files, monkeypatch, mistake
):
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").write_text("")
    Path("seven.jsonl").write_text('{"prompt": "red"}\n' * 6 + '{"prompt"\n')
    Path("column.csv").write_text("colour\nred\n")
    if mistake == "no template":
        save_model(tmp_path / "bare", template=False)
    ones = SteeringVector("add", 1, np.ones(8, np.float32))
    save_steering([ones], "w.safetensors")
    save_steering(
        [SteeringVector("add", 1, np.ones(16, np.float32), "response", "x")], "o.safetensors"
    )
    flags, message = MISTAKES[mistake]
    words = estimate(model, files, "run")
    if "vector" in mistake or "--proposal" in flags:
        words += ["--steering", files / "v.safetensors", "--proposal", "1,2,0.1"]
    for flag, value in zip(flags[::2], flags[1::2]):
        if flag in words:
            words[words.index(flag) + 1] = value
        else:
            words += [flag, value]
    capsys.readouterr()  # what saving the files said
    code, out, err = call(capsys, *words)
    assert code == 2 and out == ""
    assert message in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs a tmpfs")
def test_a_full_disk_is_said_and_what_was_drawn_is_kept(capsys, tmp_path, model, files):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small]).returncode:
        pytest.skip("no tmpfs here")
    try:
        code, _, err = call(capsys, *estimate(model, files, small / "run"))
        assert code == 2 and "No space left" in err and "free some space" in err
        assert list(small.rglob("[!.]*.parquet")) and not list(small.rglob(".*.tmp"))
    finally:
        subprocess.run(["umount", small], check=True)


def test_import_is_light():
    code = "import sys, tailcast; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_python_api_gives_frames(model):
    import tailcast

    found = tailcast.estimate(
        str(model), ["tell me", "red"], lambda query, text: "two" in text, samples=200,
        max_new_tokens=3,
    )  # fmt: skip
    assert len(found) == 2 and found.to_pandas().shape[0] == found.to_polars().shape[0] == 2
    assert found.to_pandas()["p"].between(0, 1).all()


def test_a_plan_bounds_what_the_run_then_takes(capsys, tmp_path, model, files):
    config = tmp_path / "run.toml"
    config.write_text(
        f'model = "{model}"\nqueries = "{files / "q.jsonl"}"\njudge = "{PATTERN}"\n'
        f'steering = "{files / "v.safetensors"}"\nproposal = "0.5,2,0.2"\nsamples = 200\n'
        "monte_carlo = 100\nmax_new_tokens = 4\n"
    )
    code, out, err = call(capsys, "plan", config, "--json")
    assert code == 0, err
    plan = json.loads(out)
    stages = {stage["name"]: stage for stage in plan["stages"]}
    assert {name: stage["draws"] for name, stage in stages.items()} == {"is": 400, "mc": 200}
    assert stages["is"]["token_forwards"] == 400 * (4 + 2) and plan["hours"] > 0
    code, out, err = call(capsys, "run", config, "--json", "--quiet")
    assert code == 0, err
    costs = [json.loads(line) for line in out.splitlines()]
    taken = sum(row["cost"]["token_forwards"] for row in costs if row["method"] == "is")
    assert 0 < taken <= stages["is"]["token_forwards"]
    code, out, err = call(capsys, "plan", config, "--device", "a100")
    assert code == 0 and "a100 on paper" in " ".join(out.split())
