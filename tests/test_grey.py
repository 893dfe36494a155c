"""A target at a server: exact against enumeration, whatever the server does on the way."""

import json
import threading
import time

import numpy as np
import pytest
import torch

from greyserver import STEPS, GreyServer, Here, prompt_of, world_of
from tailcast.errors import ConfigError
from tailcast.proposals import Proposal, StreamKey, log_ratio_after
from tailcast.sampling import DrawRequest, draw_served, score_served
from tailcast.streams import Hit, Openings, Prompted, Shifted
from tailcast.types import Query, SamplingSettings
from tiny import call, save_model

QUERY = Query.user("q", "tell me")
PROMPT, SETTINGS, TWO = prompt_of("tell me"), SamplingSettings(max_new_tokens=STEPS), 7


def exact(prompt, count=2, *, first=False):
    """P(at least so many "two", at the beginning) by enumeration."""
    listed = world_of(prompt).completions(prompt, STEPS)
    return float(
        sum(
            np.exp(logp)
            for tokens, logp in listed
            if tokens.count(TWO) >= count and (tokens[0] == TWO or not first)
        )
    )


def kinds():
    hits = [Hit(PROMPT, (TWO, 5, TWO), 0.7), Hit(PROMPT, (4, TWO, TWO, 0), 0.3)]
    pooled = Hit(prompt_of("red"), (TWO, TWO), 1.0)
    return {
        "hits": Openings([*hits, pooled]),
        "prefill": Openings.prefilled([(TWO, TWO), (TWO, 4, TWO)], share=0.2),
        "prompt": Prompted(Here(), [QUERY], "red two"),
    }


def drawn(proposals, *, several=1):
    """A draw of each proposal, and its tokens."""
    wanted = [
        DrawRequest("q", PROMPT, one, n, f"{n}", f"p{n // several}" if several > 1 else "")
        for n, one in enumerate(proposals)
    ]
    [batch] = draw_served(Here(), wanted, SETTINGS, kinds=kinds())
    return batch, [row[:n].tolist() for row, n in zip(batch.tokens, batch.lengths, strict=True)]


def halved(kind, switch=3):
    """Every second draw is the target's."""
    return Proposal(0.0, switch, 0.0, 1.0, kind), Proposal.target()


def weights_of(batch, given, proposal, target):
    """Of draws of which half are the target's: p over the mean of p and q."""
    logp, logs, _ = score_served(
        target, [PROMPT] * len(given), given, [proposal.stream], tokens=3, kinds=kinds()
    )
    ratio = log_ratio_after(logp, logs[:, 0], batch.lengths, proposal)
    return np.exp(np.log(2) - np.logaddexp(0, ratio))


def far(values, expected):
    """Standard errors between a mean and what it should be."""
    return abs(values.mean() - expected) / (values.std() / np.sqrt(len(values)) + 1e-12)


class Confused(Here):
    """A server that scores the target's prompt as another one."""

    def given(self, asked):
        other = prompt_of("red")
        return super().given([(other if one == PROMPT else one, said, 0) for one, said, _ in asked])


@pytest.mark.parametrize("kind", ["hits", "prefill", "prompt"])
def test_draws_at_a_server_have_the_law_that_weights_say(kind):
    proposals = halved(kind)
    batch, given = drawn(proposals * 2000)
    hits = np.array([one.count(TWO) >= 2 for one in given])
    weights = weights_of(batch, given, proposals[0], Here())
    assert far(weights, 1) < 4 and far(weights * hits, exact(PROMPT)) < 4
    assert far(hits, exact(PROMPT)) > 4, "the control: the law is not the target's"
    wrong = weights_of(batch, given, proposals[0], Confused())
    assert far(wrong, 1) > 4 or far(wrong * hits, exact(PROMPT)) > 4, "the control: other scores"


def test_draws_of_the_target_are_the_models_own():
    batch, given = drawn([Proposal.target()] * 3000)
    assert far(np.array([one.count(TWO) >= 1 for one in given]), exact(PROMPT, 1)) < 4
    assert batch.token_forwards == batch.lengths.sum()
    assert (batch.log_weights == 0).all()


def test_several_continuations_share_their_prefix():
    proposals = halved("hits", switch=2)
    batch, given = drawn([one for one in proposals for _ in range(3)] * 500, several=3)
    assert all(given[n][:2] == given[n - n % 3][:2] for n in range(3000) if n % 6 < 3)
    assert len({tuple(one) for one in given[:3]}) > 1
    weights = weights_of(batch, given, proposals[0], Here()).reshape(-1, 3).mean(1)
    hits = np.array([one.count(TWO) >= 2 for one in given]).reshape(-1, 3).mean(1)
    assert far(weights, 1) < 4 and far(weights * hits, exact(PROMPT)) < 4


def test_a_stream_that_needs_whole_laws_is_named():
    shift = Shifted(np.zeros((2, 3), np.float32), torch.zeros(12, 3))
    wanted = [DrawRequest("q", PROMPT, Proposal(0.0, 2, 0.0, 1.0, "learned"), 0, "0")]
    with pytest.raises(ConfigError, match=r"'learned switch=1.*needs whole laws"):
        draw_served(Here(), wanted, SETTINGS, kinds={"learned": shift})
    with pytest.raises(ConfigError, match="needs whole laws"):
        score_served(Here(), [PROMPT], [[1]], [StreamKey(0.0, 1.5)], tokens=1)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def running():
    with GreyServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def server(running, monkeypatch):
    monkeypatch.setattr("tailcast.http._pause", lambda attempt, told: 0.01)
    running.reset()
    return running


@pytest.fixture
def flags(tmp_path, path, server):
    (tmp_path / "q.jsonl").write_text('{"id": "q", "prompt": "tell me"}\n')
    return [
        "estimate", "--model", path, "--queries", tmp_path / "q.jsonl", "--max-new-tokens", STEPS,
        "--quiet", "--json", "--target-server", server.address, "--target-workers", 8,
    ]  # fmt: skip


TWICE = ["--judge", "pattern:^two.*two"]
STREAMS = ["--streams", "prompt:red two", "--streams", "prefill:two"]


def estimated(capsys, *words):
    code, out, err = call(capsys, *words)
    assert code == 0, err
    return json.loads(out)


def files_of(folder):
    return {one.name: one.read_bytes() for one in sorted(folder.rglob("*.parquet"))}


def test_a_mixture_at_a_server_finds_the_risk_and_weights_of_mean_one(
    capsys, tmp_path, flags, server
):
    one = estimated(capsys, *flags, *TWICE, *STREAMS, "--samples", 500, "--out", tmp_path / "run")
    truth = exact(PROMPT, first=True)
    assert one["method"] == "mixture" and abs(one["p"] - truth) < 4 * one["stderr"]
    assert one["n_hits"] > 30 * 500 * truth
    words = [*flags, *STREAMS, "--judge", "pattern:^", "--samples", 200]
    all_of_it = estimated(capsys, *words, "--out", tmp_path / "all")
    assert abs(all_of_it["p"] - 1) < 4 * all_of_it["stderr"]
    server.quirks = {"wrong"}
    wrong = estimated(capsys, *words, "--out", tmp_path / "wrong")
    assert abs(wrong["p"] - 1) > 4 * wrong["stderr"], "the control: scores of another prompt"
    server.quirks = set()
    code, out, _ = call(capsys, "explain", tmp_path / "run", "q", "--json")
    assert code == 0 and '"prompt:red two' in out.replace("switch", "")
    again = [*flags, *TWICE, "--streams", f"hits:{tmp_path / 'run'}", "--samples", 200]
    more = estimated(capsys, *again, "--out", tmp_path / "again")
    assert abs(more["p"] - truth) < 4 * more["stderr"]


@pytest.mark.parametrize("api", ["tokens", "chat"])
def test_faults_on_the_way_change_nothing(capsys, tmp_path, flags, server, monkeypatch, api):
    from tailcast.http import JsonServer

    monkeypatch.setitem(JsonServer.__init__.__kwdefaults__, "timeout", 0.2)
    words = [*flags, "--judge", "pattern:two", "--samples", 200, "--target-api", api]
    calm = estimated(capsys, *words, "--out", tmp_path / "calm")
    assert abs(calm["p"] - exact(PROMPT, 1)) < 4 * calm["stderr"]
    server.answered.clear()
    server.faults = ["429", "500", "cut", "503", "slow", "cut"] * 3
    assert estimated(capsys, *words, "--out", tmp_path / "rough") == calm
    assert not server.faults and sum(server.answered.values()) == 200
    assert files_of(tmp_path / "calm") == files_of(tmp_path / "rough")


@pytest.mark.parametrize("api", ["tokens", "chat"])
def test_a_rate_is_kept(capsys, tmp_path, flags, server, api):
    words = [*flags, "--judge", "pattern:two", "--samples", 100, "--target-api", api]
    begun = time.monotonic()
    estimated(capsys, *words, "--target-rate", 200, "--out", tmp_path / "run")
    assert time.monotonic() - begun > (sum(server.answered.values()) - 1) / 200 > 0.2


@pytest.mark.parametrize("seeds", ["--engine-seeds", "--no-engine-seeds"])
def test_a_server_that_stays_away_costs_no_draw(capsys, tmp_path, flags, server, seeds):
    words = [*flags, *TWICE, *STREAMS, "--samples", 120, seeds]
    calm = [*words, "--out", tmp_path / "calm"]
    estimated(capsys, *calm)
    asked = sum(server.answered.values())
    server.reset()
    server.lives = asked // 3
    out = tmp_path / "out"
    code, _, err = call(capsys, *words, "--out", out)
    err = " ".join(err.split())
    assert code == 2 and "does not answer" in err and "what was done before is kept" in err
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()[1:]]
    assert len(lines) == asked // 3
    server.lives = -1
    estimated(capsys, *words, "--out", out)
    assert sum(server.answered.values()) == asked or seeds == "--no-engine-seeds"
    names = [json.loads(one)[0] for one in (out / "answers.jsonl").read_text().splitlines()[1:]]
    assert len(set(names)) == len(names), "nothing was asked for twice"
    if seeds == "--engine-seeds":
        assert files_of(out) == files_of(tmp_path / "calm")


@pytest.mark.parametrize(
    ("quirk", "words"),
    [
        ("no logprobs", "tells no log-probabilities of given tokens"),
        ("no ids", "gives no token ids"),
        ("truncates", "it truncates prompts"),
        ("others", "it truncates prompts, or turns token ids into other tokens"),
        ("template", "reads a chat as"),
        ("shapeless", "an answer of another shape"),
        ("stops", "by 'abort'"),
        ("short", "by 'length' after 1 tokens, which is neither"),
    ],
)
def test_a_server_that_cannot_carry_weights_is_named(capsys, tmp_path, flags, server, quirk, words):
    server.quirks = {quirk}
    code, _, err = call(capsys, *flags, *TWICE, *STREAMS, "--out", tmp_path / "run")
    assert code == 2 and words in " ".join(err.split()) and not server.answered


def test_plain_sampling_needs_neither_ids_nor_log_probabilities(capsys, tmp_path, flags, server):
    server.quirks = {"no ids", "no logprobs", "no tokenize"}
    words = [*flags, "--judge", "pattern:two", "--until", "relative-error", 0.2]
    one = estimated(capsys, *words, "--samples", 1000, "--out", tmp_path / "run")
    assert abs(one["p"] - exact(PROMPT, 1)) < 4 * one["stderr"]


def test_a_chat_run_has_no_tokens_to_learn_from_and_nothing_is_planned(
    capsys, tmp_path, flags, server
):
    words = [*flags, "--judge", "pattern:two", "--samples", 60]
    estimated(capsys, *words, "--target-api", "chat", "--out", tmp_path / "run")
    more = ["--streams", f"hits:{tmp_path / 'run'}", "--out", tmp_path / "more"]
    code, _, err = call(capsys, *words, *more)
    assert code == 2 and "texts without tokens" in " ".join(err.split())
    (tmp_path / "c.toml").write_text(
        f'model = "x"\nqueries = "{tmp_path / "q.jsonl"}"\ntarget_server = "{server.address}"\n'
    )
    code, _, err = call(capsys, "plan", tmp_path / "c.toml")
    assert code == 2 and "cannot be planned for" in " ".join(err.split())
    code, _, err = call(capsys, "report", tmp_path / "run", "--out", tmp_path / "run.html")
    assert (
        code == 0 and f"at {server.address}, asked by chat" in (tmp_path / "run.html").read_text()
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--streams", "prefill:two", "--target-api", "chat"], "chat gives texts"),
        (["--streams", "prefill:two", "--temperature", 0.7], "before temperature and truncation"),
        (["--streams", "prefill:two", "--top-p", 0.9], "before temperature and truncation"),
        (["--streams", "learned:x"], "learned:x needs the model here"),
        (["--steering", "v.safetensors"], "steering needs the model here"),
        (["--streams", "prefill:two", "--heats", 1.5], "heats needs the model here"),
        (["--method", "splitting"], "splitting needs the model here"),
        (["--roulette", 0.5], "roulette needs the model here"),
        (["--target-api", "chat", "--plain-prompt"], "plain_prompt is no chat"),
        (["--target-model", "other"], "does not serve 'other'"),
    ],
)
def test_what_a_server_cannot_do_is_said_before_it_is_asked(capsys, tmp_path, flags, more, words):
    code, _, err = call(capsys, *flags, *TWICE, "--out", tmp_path / "run", *more)
    assert code == 2 and words in " ".join(err.split()) and "Traceback" not in err
    assert "\n\n" not in err.strip()


def test_a_tokenizer_is_read_without_its_weights(capsys, tmp_path, flags, path, server):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(path, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    words = [bare if one == path else one for one in flags]
    one = estimated(capsys, *words, *TWICE, "--samples", 40, "--out", tmp_path / "run")
    assert one["method"] == "mc" and one["n"] == 40
    words[words.index(bare)] = tmp_path
    code, _, err = call(capsys, *words, *TWICE, "--out", tmp_path / "none")
    assert code == 2 and "config.json is missing" in " ".join(err.split())
