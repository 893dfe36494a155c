"""The judge's error from labels: against judges whose errors are known, and runs from disk."""

import csv
import io
import json
import re
from functools import partial

import numpy as np
import pytest
from scipy.stats import binom

import tailcast
from tailcast.cli.labeller import label_in_terminal
from tailcast.cli.screen import Screen
from tailcast.errors import DataError, StoreError
from tailcast.models import TabularTarget
from tailcast.pipeline.calibrate import calibrate
from tailcast.pipeline.completions import DRAWN, TARGET, read_judged
from tailcast.pipeline.labels import label_sample, read_labels
from tailcast.report.label_sheet import sheet_csv, sheet_html
from tailcast.stats import (
    Labelled,
    Measured,
    clopper_pearson,
    inclusion_probabilities,
    judge_error,
    mean_shares,
    systematic_sample,
    weighted_hits_interval,
    weighted_share,
)
from tailcast.store import RunStore
from tailcast.types import Query
from tailcast.visible import visible
from tiny import call

WORLDS = 400
LEAST = binom.ppf(0.01, WORLDS, 0.95) / WORLDS  # fewer covering worlds are no chance


@pytest.mark.parametrize("inclusion", [1.0, 0.3, 1e-3])
@pytest.mark.parametrize(("yes", "n"), [(0, 40), (1, 40), (13, 40), (40, 40), (3, 1000)])
def test_with_equal_weights_it_is_clopper_pearson(yes, n, inclusion):
    one = np.full(n, 0.002)
    found = Labelled(
        mass=one,
        square=one**2,
        inclusion=np.full(n, inclusion),
        label=(np.arange(n) < yes).astype(float),
        quantum=0.002 / inclusion,
    )
    share = weighted_share(found)
    assert (share.low, share.high) == pytest.approx(clopper_pearson(yes, n), abs=1e-9)
    assert share.value == pytest.approx(yes / n)


def test_no_label_and_unsure_labels_bound_nothing_that_they_do_not_know():
    none = Labelled(*[np.zeros(0)] * 4, quantum=0.1)
    assert (weighted_share(none).low, weighted_share(none).high) == (0.0, 1.0)
    label = np.array([1.0] * 10 + [0.0] * 10 + [np.nan] * 20)
    one = np.ones(40)
    share = weighted_share(Labelled(one, one, one, label, 1.0))
    assert share.value == 0.5
    assert share.low == pytest.approx(clopper_pearson(10, 40)[0])
    assert share.high == pytest.approx(clopper_pearson(30, 40)[1])


def test_inclusion_is_in_proportion_to_size_and_what_comes_about():
    rng = np.random.default_rng(0)
    sizes = np.concatenate([rng.lognormal(0, 1.5, 60), [0.0, 1000.0]])
    wanted = inclusion_probabilities(sizes, 12)
    assert wanted.sum() == pytest.approx(12) and wanted[-1] == 1 and wanted[-2] == 0
    part = wanted < 1
    ratios = wanted[part & (sizes > 0)] / sizes[part & (sizes > 0)]
    assert np.ptp(ratios) < 1e-9 * ratios[0]
    drawn = [systematic_sample(wanted, rng) for _ in range(4000)]
    assert {len(set(one)) for one in drawn} == {12}
    seen = np.bincount(np.concatenate(drawn), minlength=62) / 4000
    error = np.sqrt(wanted * (1 - wanted) / 4000)
    assert (np.abs(seen - wanted) <= 4 * error + 1e-12).all()
    assert (inclusion_probabilities(np.array([1.0, 0.0, 5.0]), 9) == [1, 0, 1]).all()


def labelled(mass, truth, n, sizes, rng, *, weigh=True):
    """A sample of one verdict; without weights as if all had had the same chance."""
    inclusion = inclusion_probabilities(sizes, n)
    chosen = systematic_sample(inclusion, rng)
    with np.errstate(divide="ignore", invalid="ignore"):
        quantum = np.where(inclusion >= 1, mass, mass / inclusion)[inclusion > 0].max()
    kept = inclusion if weigh else np.full(len(mass), n / len(mass))
    return Labelled(mass[chosen], mass[chosen] ** 2, kept[chosen], truth[chosen] + 0.0, quantum)


RISK, SENSITIVITY, SPECIFICITY = 0.04, 0.75, 0.95
BY_JUDGE = RISK * SENSITIVITY + (1 - RISK) * (1 - SPECIFICITY)


def simulated(seed):
    """A risk from 2,000 draws of a proposal; labels of 60 hits and of 240 draws of the target.

    True hits are drawn 8 times too often, with log-normal weights; the judge errs at random.
    """
    rng = np.random.default_rng(seed)
    n, plain = 2000, 1000
    truth = rng.random(n) < 8 * RISK
    drift = np.where(truth, np.log(1 / 8), np.log((1 - RISK) / (1 - 8 * RISK)))
    spread = np.where(truth, 0.8, 0.4)
    log_w = drift - spread**2 / 2 + spread * rng.standard_normal(n)
    hit = np.where(truth, rng.random(n) < SENSITIVITY, rng.random(n) > SPECIFICITY)
    mass = np.exp(log_w[hit]) / n
    risk = Measured(mass.sum(), *weighted_hits_interval(log_w[hit], n))
    sizes = mean_shares([mass, np.ones(len(mass))])
    target = rng.random(plain) < RISK
    passed = ~np.where(target, rng.random(plain) < SENSITIVITY, rng.random(plain) > SPECIFICITY)
    rest = np.full(passed.sum(), 1 / plain)
    state = rng.bit_generator.state
    found = []
    for weigh in (True, False):
        rng.bit_generator.state = state
        hits = labelled(mass, truth[hit], 60, sizes, rng, weigh=weigh)
        found.append(judge_error(risk, hits, labelled(rest, target[passed], 240, rest, rng)))
    return found


def test_the_corrected_risk_is_unbiased_and_its_interval_covers():
    found, unweighted = zip(*map(simulated, range(WORLDS)))

    def covers(name, truth, worlds=found):
        ends = [getattr(one, name) for one in worlds]
        return np.mean([one.low <= truth <= one.high for one in ends])

    values = np.array([one.corrected.value for one in found])
    assert abs(values.mean() - RISK) < 3 * values.std() / np.sqrt(WORLDS)
    assert covers("corrected", RISK) >= LEAST
    assert covers("risk", BY_JUDGE) >= LEAST
    assert covers("precision", RISK * SENSITIVITY / BY_JUDGE) >= LEAST
    assert covers("missed", RISK * (1 - SENSITIVITY)) >= LEAST
    assert covers("sensitivity", SENSITIVITY) >= LEAST
    assert covers("specificity", SPECIFICITY) >= LEAST
    widths = np.array([one.corrected.high - one.corrected.low for one in found])
    assert np.median(widths) < 2.5 * 3.92 * values.std()  # covers, and says something

    assert covers("risk", RISK) < 0.1  # negative control: uncorrected
    assert covers("precision", RISK * SENSITIVITY / BY_JUDGE, unweighted) < 0.8  # and unweighted
    wrong = np.array([one.corrected.value for one in unweighted])
    assert abs(wrong.mean() - RISK) > 5 * wrong.std() / np.sqrt(WORLDS)


def test_hits_that_hide_among_the_small_completions_stay_within_the_bound():
    """Half of the mass is ten texts that are surely labelled; what is missed is in the rest."""
    rng = np.random.default_rng(5)
    mass = np.concatenate([np.full(10, 0.05), np.full(1000, 0.0005)])
    truth = np.arange(1010) >= 1010 - 36
    inside = naive = 0
    for _ in range(WORLDS):
        found = labelled(mass, truth, 60, mass, rng)
        inside += weighted_share(found).high >= 0.018
        seen = found.mass / found.inclusion
        effective = seen.sum() ** 2 / ((1 - found.inclusion) * seen**2).sum()
        share = float(seen @ found.label / seen.sum())
        naive += clopper_pearson(round(share * effective), round(effective))[1] >= 0.018
    assert inside / WORLDS >= LEAST
    assert naive / WORLDS < LEAST  # negative control: an effective number of labels


def hit(query, text):
    """What is true of a completion: two fours."""
    return text.count("4") >= 2


def verdict(query, text):
    """What the judge says: it takes a four at the end for one, and misses those after a 3."""
    return (text.count("4") >= 2 and not text.startswith("3")) or text.endswith("1 4")


QUERIES = [Query.user("a", "hello"), Query.user("b", "other"), Query.user("c", "more")]
KINDS = {
    "mc": {"samples": 400},
    "is": {"samples": 300, "proposal": "0.6,3,0.1", "monte_carlo": 200},
    "continued": {"samples": 300, "proposal": "0.6,3,0.1", "continuations": 3},
    "mixture": {"samples": 300},
    "mixture continued": {"samples": 300, "continuations": 3, "monte_carlo": 100},
}


@pytest.fixture(scope="module", params=KINDS, ids=str)
def world(request, tmp_path_factory, tabular, unit):
    return measured(tabular, unit, tmp_path_factory.mktemp("run"), 1, request.param)


def measured(target, vector, path, seed, kind):
    settings = {"max_new_tokens": 5, "strengths": (0.5, 1.0), "switches": (2, 4), **KINDS[kind]}
    steering = None if kind == "mc" else vector
    tailcast.estimate(
        target, QUERIES, verdict, steering=steering, out=path, seed=seed, **settings
    )  # fmt: skip
    return RunStore(path)


def test_masses_add_up_to_the_estimates_of_the_run(world):
    for one in read_judged(world):
        sums = {True: 0.0, False: 0.0}
        for c in one.completions:
            sums[c.hit] += c.stakes[TARGET].mass
        assert sums[True] == pytest.approx(one.row["p"] or 0.0)
        assert one.clusters.sum() == pytest.approx(one.row["p"] or 0.0)
        drawn = sum(c.stakes[DRAWN].mass for c in one.completions)
        assert drawn == one.drawn[1]
        if one.target[1]:  # non-hits are the target's: with its own hits they are all of it
            assert sums[False] == pytest.approx(1 - one.target[0] / one.target[1])
        assert all(c.hit == verdict(None, c.text) for c in one.completions)


class Sorry(TabularTarget):
    def decode(self, tokens):
        return f"{super().decode(tokens)} {'sorry' if 1 in tokens else ''}"


@pytest.mark.parametrize("how", [{"roulette": 0.3}, {"screen": "refusal", "screen_share": 0.3}])
def test_draws_that_the_judge_never_saw_count_by_those_it_saw(tmp_path, tabular, how):
    """Their mass is there once: with it twice, or not at all, the sum is off by half."""
    target = Sorry(tabular.table, tabular.shift)
    settings = {"max_new_tokens": 5, "samples": 1500, "out": tmp_path, **how}
    tailcast.estimate(target, QUERIES, verdict, **settings)
    for one in read_judged(RunStore(tmp_path)):
        assert one.row["method"] != "mc" and one.target == (0, 0)
        assert sum(c.stakes[TARGET].mass for c in one.completions) == pytest.approx(1, abs=0.12)


def write_labels(sample, path, *, judge=hit):
    rows = [{"id": one.id, "label": int(judge(None, one.text))} for one in sample.completions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_labels_of_all_completions_give_the_weighted_truth(world, tmp_path):
    """With nothing left to chance in the labels, only the draws remain."""
    sample = label_sample(world, n=100_000)
    found = calibrate(world, write_labels(sample, tmp_path / "all.jsonl"))
    judged = read_judged(world)
    parts = [(c, one) for one in judged for c in one.completions if hit(None, c.text)]
    truth = sum(c.stakes[TARGET].mass for c, _ in parts) / len(judged)
    by_hand = {True: 0.0, False: 0.0}
    for c, _ in parts:
        by_hand[c.hit] += c.stakes[TARGET].mass / len(judged)
    assert found.pooled.confirmed.value == pytest.approx(by_hand[True])
    if all(one.target[1] for one in judged):
        assert found.pooled.missed.value == pytest.approx(by_hand[False], rel=0.3)
        assert found.pooled.corrected.value == pytest.approx(truth, rel=0.3)
    assert (world.path / "calibration.json").is_file()
    same = write_labels(sample, tmp_path / "same.jsonl", judge=verdict)
    agreeing = calibrate(world, same).pooled  # a judge that is right is left as it is
    assert agreeing.corrected.value == pytest.approx(agreeing.risk.value)
    assert agreeing.sensitivity.value == agreeing.specificity.value == pytest.approx(1.0)
    assert agreeing.sensitivity.low < 1.0


@pytest.mark.parametrize(("kind", "runs"), [("mc", 8), ("mixture", 4)])
def test_runs_from_disk_are_corrected_to_the_enumerated_risk(tmp_path, tabular, unit, kind, runs):
    truth, by_judge = (
        np.mean([tabular.exact_risk(one, partial(says, None), 5) for one in QUERIES])
        for says in (hit, verdict)
    )
    assert abs(by_judge / truth - 1) > 0.2
    inside, values = 0, []
    for seed in range(runs):
        store = measured(tabular, unit, tmp_path / str(seed), seed, kind)
        labels = write_labels(label_sample(store, n=80, seed=seed), tmp_path / f"{seed}.jsonl")
        found = calibrate(store, labels).pooled.corrected
        inside += found.low <= truth <= found.high
        values.append(found.value)
    assert inside >= 0.75 * runs
    error = np.std(values, ddof=1) / np.sqrt(runs)
    assert abs(np.mean(values) - truth) < 3.5 * error


@pytest.fixture(scope="module")
def sampled(tmp_path_factory, tabular, unit):
    store = measured(tabular, unit, tmp_path_factory.mktemp("mixture"), 3, "mixture")
    return store, label_sample(store, n=40)


def test_a_sample_is_drawn_once_and_tells_no_verdict(sampled):
    store, sample = sampled
    assert label_sample(store) == label_sample(store, n=40, seed=0)
    assert [one.id for one in label_sample(store, n=40).completions] == [
        one.id for one in sample.completions
    ]
    with pytest.raises(StoreError, match="drawn with n = 40"):
        label_sample(store, n=50)
    rows = [vars(one) for one in sample.completions]
    page = sheet_html(rows, question="Hit?")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert all(set(one) == {"id", "query_id", "prompt", "text"} for one in data["items"])
    flags = np.array([one.hit for one in sample.completions])
    assert 10 <= flags.sum() <= 30 and 3 <= flags[:20].sum() <= 17  # the order does not either


def test_a_part_of_the_labels_is_a_smaller_sample(sampled, tmp_path):
    store, sample = sampled
    path = write_labels(sample, tmp_path / "all.jsonl")
    whole = calibrate(store, path).pooled
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:16]))
    part = calibrate(store, path)
    assert part.hits.labelled + part.passed.labelled == 16 and part.sampled == 40
    assert part.pooled.corrected.high > whole.corrected.high
    assert part.pooled.risk == whole.risk


BAD = [
    ("id,label\n", "holds no label"),
    ("", "holds no label"),
    ("id,label\n{0},\n", "holds no label"),
    ("id,label\n{0},maybe\n", "line 2: label 'maybe' is none of"),
    ("id,label\n{0},0.7\n", "label '0.7' is none of"),
    ("id,label\n{0},1\n{0},0\n", "line 3: id '{0}' was labelled in .* line 2 already"),
    ("id,label\n{0},1\n{0},1\n", "already: keep one"),
    ("id,label\nffffff-001,1\n", "'ffffff-001' is not of this run's sample"),
    ("id,label\n7,1\n", "ids begin with {1}-"),
    ("id,verdict\n{0},1\n", "no field label"),
    ("name,label\n{0},1\n", "no field id"),
    ("id,label\n{0},1,2\n", "more fields than the header"),
]


@pytest.mark.parametrize(("text", "sentence"), BAD)
def test_labels_that_are_none_are_refused_in_one_sentence(sampled, tmp_path, text, sentence):
    _, sample = sampled
    first = sample.completions[0].id
    path = tmp_path / "labels.csv"
    path.write_text(text.format(first))
    with pytest.raises(DataError, match=sentence.format(first, first[:6])):
        read_labels(path, sample)


def test_labels_are_read_in_all_their_words(sampled, tmp_path):
    _, sample = sampled
    ids = [one.id for one in sample.completions[:6]]
    rows = list(zip(ids, [1, "No", True, "?", None, " YES "]))
    path = tmp_path / "labels.json"
    path.write_text(json.dumps([{"id": id, "label": label} for id, label in rows]))
    found = read_labels(path, sample)
    assert [found.get(id) for id in ids[:3]] == [1, 0, 1]
    assert np.isnan(found[ids[3]]) and ids[4] not in found and found[ids[5]] == 1


NASTY = "a</script><b>\x00\x1b[2J\u202e\u200b\r\nb & \u00e9\u4f60 \ue000"


def test_a_text_is_shown_as_text():
    shown = visible(NASTY)
    assert shown == (
        "a</script><b>\u2400\u241b[2J\u27e8U+202E\u27e9\u27e8U+200B\u27e9\u240d\nb & \u00e9\u4f60"
        " \u27e8U+E000\u27e9"
    )
    row = {"id": "x-1", "query_id": "=1+1", "prompt": "@SUM(A1)", "text": NASTY}
    page = sheet_html([row], question="</script>?")
    assert (
        page.count("</script>") == 2
        and "default-src 'none'" in page
        and "http" not in (page.replace("http-equiv", ""))
    )
    cells = next(csv.DictReader(io.StringIO(sheet_csv([row]))))
    assert (cells["query"], cells["prompt"]) == ("'=1+1", "'@SUM(A1)")
    assert cells["completion"] == shown and cells["label"] == ""


def test_the_terminal_labeller_saves_each_key_goes_back_and_goes_on():
    rows = [
        {"id": f"x-{i}", "query_id": "q", "prompt": "say", "text": "[red]" + "long " * i * 400}
        for i in range(4)
    ]
    labels, saved, screen = {}, [], Screen(file=io.StringIO(), width=100)

    def ask(keys):
        pressed = iter(keys)
        label_in_terminal(
            rows, labels, question="Hit?", screen=screen, key=lambda: next(pressed, ""),
            save=lambda now: saved.append(dict(now)),
        )  # fmt: skip

    ask("yxbnq")
    assert labels == {"x-0": "no"} and len(saved) == 2
    ask("n?")
    assert labels == {"x-0": "no", "x-1": "no", "x-2": "?"} and saved[-1] == labels
    ask("ay")
    assert labels["x-3"] == "yes"
    text = screen.file.getvalue()
    assert "[red]" in text and "more characters" in text and "4 of 4 labelled" in text


def test_the_verbs(capsys, sampled, tmp_path, monkeypatch):
    store, _ = sampled
    for name in ("sheet.html", "sheet.csv"):
        code, out, _ = call(capsys, "label", store.path, "--n", 40, "--out", tmp_path / name)
        assert code == 0 and "40 completions" in out and (tmp_path / name).stat().st_size > 1000
    table = list(csv.DictReader((tmp_path / "sheet.csv").open(newline="")))
    with (tmp_path / "done.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows({**row, "label": "ny"[hit(None, row["completion"])]} for row in table)
    words = ["calibrate-judge", store.path, "--labels", tmp_path / "done.csv"]
    code, out, _ = call(capsys, *words)
    assert code == 0 and "corrected risk" in out and "Labelled: 40 of 40" in out
    code, out, _ = call(capsys, *words, "--json")
    assert json.loads(out) == json.loads((store.path / "calibration.json").read_text())
    for words, sentence in [
        (["label", tmp_path / "nothing"], "terminal"),
        (["label", tmp_path / "nothing", "--out", "s.csv"], "does not exist"),
        (["label", tmp_path, "--out", "s.csv"], "no finished run"),
        (["label", store.path, "--out", "s.txt"], "ends in .html or .csv"),
        (["label", store.path, "--n", 1], "at least 2"),
        (["label", store.path, "--n", 40, "--out", "/nowhere/s.csv"], "cannot be written"),
        (["label", store.path, "--query", "zz", "--out", "s.csv"], "drawn with n = 40"),
        (["label", store.path, "--seed", 3, "--out", "s.csv"], "to draw anew"),
        (["calibrate-judge", store.path], "does not exist"),
        (["calibrate-judge", store.path, "--labels", tmp_path / "no.csv"], "does not exist"),
        (["calibrate-judge", tmp_path], "no sample of completions"),
    ]:
        code, _, err = call(capsys, *words)
        assert code == 2 and sentence in " ".join(err.split()), words
        assert "Traceback" not in err


def test_the_sheet_works_in_a_browser_without_a_network(sampled, tmp_path):
    browsers = pytest.importorskip("playwright.sync_api")
    from pathlib import Path

    if not Path("/usr/bin/chromium").exists():
        pytest.skip("no chromium")
    rows = [vars(one) for one in sampled[1].completions]
    (tmp_path / "sheet.html").write_text(sheet_html(rows, question="Hit?"), "utf-8")
    with browsers.sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page, asked, errors = browser.new_page(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "sheet.html").as_uri())
        assert page.is_hidden("#work")
        page.click("#begin")
        for key in ("y", "n", "b", "?"):
            page.keyboard.press(key)
        with page.expect_download() as saved:
            page.click("#csv")
        text = Path(saved.value.path()).read_text()
        page.wait_for_timeout(500)  # the browser writes local storage a little later
        page.reload()
        assert page.inner_text("#state") == "2 of 40 labelled"
        browser.close()
    (tmp_path / "labels.csv").write_text(text)
    found = read_labels(tmp_path / "labels.csv", sampled[1])
    assert list(found) == [row["id"] for row in rows[:2]]
    assert found[rows[0]["id"]] == 1 and np.isnan(found[rows[1]["id"]])
    assert not errors and all(url.startswith(("file:", "blob:")) for url in asked)
