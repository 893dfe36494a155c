"""Sensitivity to wording: closed forms, simulated populations of known variance, paraphrasing."""

import json
import math
import threading
from dataclasses import asdict
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from scipy.stats import chi2, norm

from tailcast.analysis.measured import base_query
from tailcast.analysis.risks import QueryRisk
from tailcast.analysis.runs import Run
from tailcast.analysis.sensitivity import bases_of, likelihood, sensitivity
from tailcast.analysis.wordings import THRESHOLD, changes, sift, similarity
from tailcast.data import load_queries
from tailcast.errors import DataError
from tailcast.stats.nested import STEP, draw_nested, fit_nested, nested_grid
from tailcast.store import RunStore
from tailcast.types import Query
from test_analyses import plain_estimate, plain_risk, weighted_risk, write_run
from tiny import call, save_model

LN10 = math.log(10)


@cache
def plain_likelihood(hits, n, cells):
    return likelihood(plain_risk("q", hits, n), nested_grid(math.log10(1 / n)))


def narrow(y, grid):
    """Likelihoods of log risks known without error."""
    place = np.round((np.asarray(y) - grid[0]) / STEP).astype(int)
    return np.eye(len(grid))[place]


# --- What is known of one query


@pytest.mark.parametrize(("hits", "n"), [(0, 200), (3, 200), (150, 200), (200, 200), (40, 100_000)])
def test_hits_of_plain_draws_are_binomial(hits, n):
    grid = nested_grid(math.log10(1 / n))
    found = likelihood(plain_risk("q", hits, n), grid)
    p = 10 ** np.minimum(grid[:, None] + STEP * (np.arange(500) / 500 - 0.499), -1e-12)
    height = hits * np.log(p) + (n - hits) * np.log1p(-p)
    exact = np.exp(height - height.max()).mean(axis=1)  # over a cell
    assert found == pytest.approx(exact / exact.max(), abs=0.02)


def test_a_weighted_estimate_is_unbiased_and_log_normal():
    grid = nested_grid(-5)
    found = likelihood(weighted_risk("q", 1e-4, 0.7), grid)
    mean = (grid * found).sum() / found.sum()
    sd = math.sqrt(((grid - mean) ** 2 * found).sum() / found.sum())
    assert mean == pytest.approx((math.log(1e-4) + 0.7**2 / 2) / LN10, abs=0.003)
    assert sd == pytest.approx(0.7 / LN10, rel=0.01)


def test_a_weighted_estimate_without_a_hit_is_bounded_by_its_ends():
    one = QueryRisk("q", None, 0.0, 1e-3, 0.0, 0.02, 0.95, 0, 500, "weak", "mixture")
    found = likelihood(one, nested_grid(-3))
    assert found[0] == pytest.approx(1) and (np.diff(found) <= 1e-12).all()
    bound = np.interp(-3.0, nested_grid(-3), found)
    assert bound == pytest.approx(0.025, rel=0.1)  # (1 - ci_high)^n is the tail it stands for
    nothing = QueryRisk("q", None, 0.0, 1.0, 0.0, 1.0, 0.95, 0, 5, "weak", "is")
    assert likelihood(nothing, nested_grid(0)) == pytest.approx(1)


# --- The model, against closed forms


def test_without_noise_it_is_the_analysis_of_variance():
    """Balanced and noiseless: restricted likelihood has MSW and (MSB - MSW) / n as its largest."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(12), 25)
    grid = nested_grid(-6)
    y = -4 + rng.normal(0, 0.6, 12)[groups] + rng.normal(0, 0.4, 300)
    y = grid[np.round((y - grid[0]) / STEP).astype(int)]
    fit = fit_nested(narrow(y, grid), groups, grid)
    means = y.reshape(12, 25).mean(axis=1)
    inside = ((y - means[groups]) ** 2).sum() / 288
    between = means.var(ddof=1) - inside / 25
    assert fit.within.value == pytest.approx(math.sqrt(inside), rel=0.02)
    assert fit.between.value == pytest.approx(math.sqrt(between), rel=0.02)
    exact = np.sqrt(288 * inside / chi2.ppf([0.975, 0.025], 288))
    assert (fit.within.low, fit.within.high) == pytest.approx(tuple(exact), rel=0.025)
    exact = np.sqrt(11 * (between + inside / 25) / chi2.ppf([0.975, 0.025], 11) - inside / 25)
    assert (fit.between.low, fit.between.high) == pytest.approx(tuple(exact), rel=0.12)
    assert fit.mean.value == pytest.approx(y.mean(), abs=0.06)


def test_the_likelihood_is_the_integral():
    """Two groups of plain draws, one without any hit: by numerical integration."""
    from tailcast.stats.nested import SPREADS, _kernels, _log_likelihood

    data, groups = [(4, 50), (0, 50), (0, 50), (0, 50)], np.array([0, 0, 1, 1])
    grid = nested_grid(math.log10(1 / 50))
    members = np.array([plain_likelihood(*one, len(grid)) for one in data])
    found = _log_likelihood(members, groups, _kernels(len(grid)))

    def member(hits, n, centre, sd):
        y = centre + sd * np.linspace(-9, 9, 4001)
        p = np.minimum(10**y, 1 - 1e-12)
        best = 1.0 if not hits else (hits / n) ** hits * (1 - hits / n) ** (n - hits)
        return np.trapezoid(p**hits * (1 - p) ** (n - hits) / best * norm.pdf(y, centre, sd), y)

    def group(data, mean, within, between):
        y = mean + between * np.linspace(-6, 6, 61)
        heights = [math.prod(member(*one, each, within) for one in data) for each in y]
        return np.trapezoid(heights * norm.pdf(y, mean, between), y)

    def exact(one, two, mean):
        parts = [group(data[:2], mean, SPREADS[one], SPREADS[two]),
                 group(data[2:], mean, SPREADS[one], SPREADS[two])]  # fmt: skip
        return math.log(parts[0]) + math.log(parts[1])

    cells = [(10, 8, 60), (12, 12, 80), (8, 13, 70)]
    ours = [found[one, two, at] for one, two, at in cells]
    truth = [exact(one, two, grid[at]) for one, two, at in cells]
    assert np.diff(ours) == pytest.approx(np.diff(truth), abs=0.04)


# --- Simulated populations of known variance

WORLDS = 150
POPULATIONS = {
    "a quarter without a hit": (10, 5, -1.9, 0.5, 0.5, 200),
    "half without a hit": (6, 6, -2.5, 0.8, 0.4, 200),
}


@cache
def simulated(name):
    """Estimates and intervals over worlds, [worlds, 4, 3], and the naive ones, [worlds, 2]."""
    bases, wordings, mean, within, between, n = POPULATIONS[name]
    rng = np.random.default_rng(11)
    groups = np.repeat(np.arange(bases), wordings)
    grid = nested_grid(math.log10(1 / n))
    found, dropped = [], []
    for _ in range(WORLDS):
        y = mean + rng.normal(0, between, bases)[groups] + rng.normal(0, within, len(groups))
        hits = rng.binomial(n, 10 ** np.minimum(y, 0))
        members = np.array([plain_likelihood(int(h), n, len(grid)) for h in hits])
        fit = fit_nested(members, groups, grid)
        parts = (fit.within, fit.between, fit.share_within, fit.mean)
        found.append([(one.value, one.low, one.high) for one in parts])
        kept = hits > 0
        seen = np.log10(hits[kept] / n)
        centre = np.array([seen[groups[kept] == one].mean() for one in groups[kept]])
        few = kept.sum() - len(set(groups[kept]))
        dropped.append((math.sqrt(((seen - centre) ** 2).sum() / few), seen.mean()))
    return np.array(found), np.array(dropped)


@pytest.mark.parametrize("name", POPULATIONS)
def test_variances_are_unbiased_and_their_intervals_cover(name):
    *_, mean, within, between, _ = POPULATIONS[name]
    found, _ = simulated(name)
    truth = np.array([within, between, within**2 / (within**2 + between**2), mean])
    covers = ((found[:, :, 1] <= truth) & (truth <= found[:, :, 2])).mean(axis=0)
    assert (covers >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / WORLDS)).all(), covers
    squares = (found[:, :2, 0] ** 2).mean(axis=0), (found[:, :2, 0] ** 2).std(axis=0)
    error = 3.5 * squares[1] / math.sqrt(WORLDS)
    slack = np.array([0.05, 0.1]) * truth[:2] ** 2  # a square cut off at 0, and few groups
    assert (np.abs(squares[0] - truth[:2] ** 2) < error + slack).all(), squares
    assert -0.15 < found[:, 3, 0].mean() - mean < 0.05  # a median of what trails off below


@pytest.mark.parametrize("name", POPULATIONS)
def test_dropping_queries_without_a_hit_biases(name):
    """Negative control: too small a spread, too large a mean."""
    *_, mean, within, _, _ = POPULATIONS[name]
    _, dropped = simulated(name)
    assert dropped[:, 1].mean() > mean + 0.2
    assert dropped[:, 0].mean() < 0.85 * within or name.startswith("a quarter")


def test_noise_is_not_taken_for_spread():
    """Equal risks, few hits: the spread of the estimates is all noise."""
    rng = np.random.default_rng(2)
    n, groups = 400, np.repeat(np.arange(8), 6)
    grid, found, naive = nested_grid(math.log10(1 / n)), [], []
    for _ in range(30):
        hits = rng.binomial(n, 0.01, len(groups))
        members = np.array([plain_likelihood(int(h), n, len(grid)) for h in hits])
        fit = fit_nested(members, groups, grid)
        found.append((fit.within.value, fit.within.low, fit.between.low))
        naive.append(np.log10(np.maximum(hits, 0.5) / n).std())
    found = np.array(found)
    assert np.median(found[:, 0]) < 0.1 and np.mean(naive) > 0.2
    assert (found[:, 1] == 0).mean() >= 0.9 and (found[:, 2] == 0).mean() >= 0.9


def test_drawn_risks_are_where_the_true_ones_are():
    """Each true risk's rank among the draws is uniform, of queries without a hit too."""
    rng = np.random.default_rng(4)
    n, groups = 200, np.repeat(np.arange(8), 6)
    grid, ranks, worst = nested_grid(math.log10(1 / n)), [], []
    for seed in range(25):
        y = -2.2 + rng.normal(0, 0.6, 8)[groups] + rng.normal(0, 0.6, 48)
        hits = rng.binomial(n, 10 ** np.minimum(y, 0))
        members = np.array([plain_likelihood(int(h), n, len(grid)) for h in hits])
        drawn = draw_nested(fit_nested(members, groups, grid), 200, seed=seed)
        ranks += [*(drawn < y).mean(axis=0)]
        spread = np.ptp(drawn.reshape(200, 8, 6), axis=2)
        low, high = np.quantile(spread, [0.05, 0.95], axis=0)
        truth = np.ptp(y.reshape(8, 6), axis=1)
        worst += [*((low <= truth) & (truth <= high))]
    counts, _ = np.histogram(ranks, 5, (0, 1 + 1e-9))
    assert np.abs(counts / len(ranks) - 0.2).max() < 0.035
    assert 0.84 < np.mean(worst) < 0.96


# --- Runs


def wordings_run(rows, name="run"):
    """(id, hits or None, n) of each query."""
    risks = tuple(plain_risk(id, hits, n) for id, hits, n in rows)
    return Run(name, risks, None, {}, {})


def test_each_base_query_has_its_worst_wording_and_its_rise():
    run = wordings_run(
        [("a", 2, 1000), ("a/1", 400, 1000), ("a/2", 3, 1000), ("b", 0, 1000), ("b/1", 0, 1000),
         ("c#1", 5, 1000), ("c#2", 9, 1000)]
    )  # fmt: skip
    found = sensitivity(run, bases_of(run))
    assert [one.base for one in found.bases] == ["a", "b", "c"]
    a, b, c = found.bases
    assert a.worst.query_id == "a/1" and a.worst_chance == 1.0 and a.unhit == 0
    assert a.rise.value == pytest.approx(math.log10(0.4 / 0.002), abs=0.25)
    assert 1.5 < a.shown < a.spread.value
    low, high = plain_estimate(400, 1000).p_low, plain_estimate(2, 1000)
    assert a.shown == pytest.approx(math.log10(low / min(high.ci_high, high.p_high_guaranteed)))
    assert b.worst is None and b.worst_chance is None and b.shown == 0 and b.typical < 1e-3
    assert c.worst.query_id == "c#2" and 0.6 < c.worst_chance < 0.99 and c.rise is None
    assert (found.unhit, found.queries, found.unsure) == (2, 7, 0)


def test_one_base_query_has_no_between():
    found = sensitivity(wordings_run([(f"a/{i}", 5 * i, 100) for i in range(6)]), ["a"] * 6)
    assert found.between is None and found.share_within is None and found.within.value > 0


def test_what_cannot_be_analysed_is_refused():
    with pytest.raises(DataError, match="no two queries"):
        sensitivity(wordings_run([("a", 1, 10), ("b", 1, 10)]), ["a", "b"])
    with pytest.raises(DataError, match="none of the 2 queries"):
        sensitivity(wordings_run([("a/1", 0, 10), ("a/2", 0, 10)]), ["a", "a"])


def test_a_base_is_named_by_a_column_a_tag_or_the_id(tmp_path):
    (tmp_path / "q.csv").write_text("id,prompt,base,category\nx,one,first,mild\ny/2,two,,mild\n")
    one, two = load_queries(tmp_path / "q.csv")
    assert [base_query(each.id, each.tags) for each in (one, two)] == ["first", "y"]
    assert one.tags == ("mild", "base:first") and two.tags == ("mild",)


def test_the_verb_prints_and_draws_a_run(capsys, tmp_path):
    run = write_run(tmp_path / "run", [0, 3, 40, 0, 1, 0])
    asked = [Query.user(f"q{i}", "ask", (f"base:{'ab'[i // 3]}",)) for i in range(6)]
    RunStore(run).write_lines("queries.jsonl", [asdict(one) for one in asked])
    picture = tmp_path / "w.png"
    code, out, _ = call(capsys, "analyse", "sensitivity", run, "--plot", picture)
    assert code == 0 and picture.stat().st_size > 10_000
    assert "3 of 6 queries have no hit" in out and "share of the variance" in out
    code, out, _ = call(capsys, "analyse", "sensitivity", run, "--json")
    row = json.loads(out)
    assert [one["base"] for one in row["bases"]] == ["a", "b"]
    assert row["bases"][0]["worst"]["query_id"] == "q2"
    (run / "queries.jsonl").unlink()  # ids name no base
    code, _, err = call(capsys, "analyse", "sensitivity", run)
    assert code == 2 and "column 'base'" in " ".join(err.split())
    code, _, err = call(capsys, "analyse", "sensitivity", run, "--level", 1)
    assert code == 2 and "level must lie in (0, 1)" in err


# --- Rewordings


def test_the_shipped_set_is_12_times_25_distinct_and_similar_and_nothing_else_is():
    queries = load_queries("paraphrases")
    bases = {one.id: base_query(one.id, one.tags) for one in queries}
    own = {one.id: one.prompt for one in queries if one.id == bases[one.id]}
    assert len(own) == 12 and len(queries) == 12 * 26
    kept = 0
    for base, request in own.items():
        mine = [one.prompt for one in queries if bases[one.id] == base != one.id]
        assert len(mine) == 25
        tried = sift(request, mine, threshold=0.0)
        assert not [one for one in tried if one.dropped]
        kept += sum(one.similarity >= THRESHOLD for one in tried)
        others = [one.prompt for one in queries if bases[one.id] != base]
        assert max(similarity(request, one) for one in others) < THRESHOLD
    assert kept >= 0.99 * 300


def test_similarity_is_1_for_the_same_words_and_0_for_none_in_common():
    assert similarity("How do I bake bread?", "bread: how I bake?") == pytest.approx(1)
    assert similarity("bake bread", "swim far") == 0
    assert similarity("", "swim") == 0 == similarity("?!", "?!")


def test_rewordings_are_sifted_with_reasons():
    request = "How do I bake a loaf of bread?"
    texts = ["how do I bake a loaf of bread", "What's the way to bake a loaf of bread?",
             "Whats the way to BAKE a loaf of bread", "", "Where is the next swimming pool?",
             "Sure! " + "bake bread loaf " * 12, "Tell me how to bake a bread loaf."]  # fmt: skip
    found = [one.dropped for one in sift(request, texts, threshold=0.4)]
    assert found[0] == "the request itself" and not found[1] and not found[6]
    assert found[2] == "same as: What's the way to bake a loaf of bread?"
    assert found[3] == "empty" and "below 0.4" in found[4] and "an answer" in found[5]
    assert changes("How do I bake it?", "How can I bake it now?") == (
        "How [-do-] {+can+} I bake [-it?-] {+it now?+}"
    )


class Chat(BaseHTTPRequestHandler):
    """A paraphraser behind a chat API: numbers its rewordings, drifts and repeats now and then."""

    asked = 0
    lock = threading.Lock()

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.answer({"data": [{"id": "writer"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = body["messages"][-1]["content"].split(": ", 1)[1]
        with self.lock:
            Chat.asked += 1
            number = Chat.asked
        texts = [f'1. "{request} ({number})"', "I cannot help with that.", request,
                 f"Reworded: {request} again, {number}"]  # fmt: skip
        self.answer({"choices": [{"message": {"content": texts[number % 4]}}]})

    def answer(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server():
    one = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    Chat.asked = 0
    thread = threading.Thread(target=one.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{one.server_address[1]}"
    one.shutdown()
    one.server_close()
    thread.join()


def test_a_server_rewords_and_the_same_command_goes_on(capsys, tmp_path, server):
    source, out = tmp_path / "base.jsonl", tmp_path / "out" / "reworded.jsonl"
    rows = [{"id": "a", "prompt": "Bake bread", "tags": ["food"]},
            {"id": "b", "messages": [{"role": "user", "content": "Hello"},
                                     {"role": "assistant", "content": "Hi"},
                                     {"role": "user", "content": "Swim far"}]}]  # fmt: skip
    source.write_text(json.dumps(rows[0]) + "\n")
    words = ["paraphrase", source, "--server", server, "--n", 5, "--out", out]
    code, text, err = call(capsys, *words)
    assert code == 0, err
    assert "the request itself" in text and "is below 0.5" in text and "Kept 5 of" in text
    assert (tmp_path / "out" / "reworded.diff.txt").read_text().splitlines()[0] == "a: Bake bread"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = Chat.asked
    code, text, _ = call(capsys, *words)
    assert code == 0 and "b: Swim far" in text and "a: Bake" not in text and Chat.asked > asked
    queries = load_queries(out)
    assert [one.id for one in queries[:2]] == ["a", "a/01"] and len(queries) == 12
    assert queries[1].tags == ("food", "base:a") and queries[6].id == "b"
    assert all(len(one.messages) == 3 for one in queries[6:])
    assert not [one for one in queries if one.prompt.startswith(("1.", '"', "Reworded"))]


def test_a_model_on_this_machine_rewords_the_same_again(capsys, tmp_path):
    """Random weights: no rewording of theirs means anything, and that is said."""
    model = save_model(tmp_path / "model")
    config = model / "config.json"  # the examples are longer than its context
    config.write_text(config.read_text().replace('"max_position_embeddings": 64',
                                                 '"max_position_embeddings": 640'))  # fmt: skip
    (tmp_path / "q.jsonl").write_text('{"id": "a", "prompt": "tell me two"}\n')
    texts = []
    for name in ("one", "two"):
        out = tmp_path / f"{name}.jsonl"
        code, _, err = call(
            capsys, "paraphrase", tmp_path / "q.jsonl", "--model", model, "--n", 3, "--out", out,
            "--threshold", 0,
        )  # fmt: skip
        assert code == 0, err
        texts.append(out.read_text())
    assert texts[0] == texts[1] and texts[0].count("\n") >= 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "x.jsonl"], "give --model, or --server"),
        (["--model", "m/m/m", "--out", "x.jsonl"], "neither a directory"),
        (["--server", "http://127.0.0.1:9", "--model", "m", "--out", "x.csv"], "end in .jsonl"),
        (["--server", "http://127.0.0.1:9", "--model", "m", "--out", "x.jsonl", "--n", "0"],
         "at least 1"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(capsys, tmp_path, words, said):
    (tmp_path / "q.jsonl").write_text('{"id": "a", "prompt": "tell me"}\n')
    words = [str(tmp_path / one) if one.startswith("x.") else one for one in words]
    code, _, err = call(capsys, "paraphrase", tmp_path / "q.jsonl", *words)
    assert code == 2 and said in " ".join(err.split())
