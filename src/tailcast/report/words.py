"""How are a run's numbers said in words: risks, counts, the answer, the verdict?

Plain text, two significant digits; the templates escape it.
"""

import math
import re
from hashlib import sha256

from tailcast.report.outlook import upper_end
from tailcast.report.run import Run
from tailcast.stats import Estimate

__all__ = [
    "METHODS",
    "anchor",
    "answer",
    "audit_words",
    "between",
    "chance",
    "count",
    "duration",
    "expectation",
    "one_in",
    "percent",
    "risk",
    "risk_of",
    "settings",
    "verdict_words",
    "worst_words",
]

METHODS = {
    "mc": "plain sampling",
    "is": "importance sampling",
    "mixture": "mixture of proposals",
    "splitting": "multilevel splitting",
    "mc-roulette": "plain sampling with roulette",
    "mc-screen": "plain sampling behind a screen",
}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def anchor(query_id: str) -> str:
    """An id for a query's place in a page, whatever its own id holds."""
    clean = re.sub(r"[^A-Za-z0-9_-]+", "-", query_id)[:48]
    if clean != query_id:
        clean += "-" + sha256(query_id.encode("utf-8", "replace")).hexdigest()[:8]
    return f"q-{clean}"


def risk(p: float) -> str:
    """A probability as 5.8×10⁻⁴; plain from a hundredth on."""
    if p >= 0.01 or p == 0:
        return _two(p)
    digits, power = f"{p:.1e}".split("e")
    return f"{digits}×10{str(int(power)).translate(_SUPERSCRIPT)}"


def percent(p: float) -> str:
    """A probability in percent; as :func:`risk` where that has too many zeros."""
    if 0 < p < 1e-5:
        return risk(p)
    if 0.99 < p < 1:
        return "over 99.9%" if p >= 0.9995 else f"{100 * p:.1f}%"
    return f"{_two(100 * p)}%"


def chance(p: float) -> str:
    """A probability that is never quite 1, in percent."""
    return percent(min(p, 0.9999))


def _two(x: float) -> str:
    """A number with two significant digits."""
    if x in (0, 1) or x >= 99.5:
        return f"{x:.0f}"
    return f"{x:#.2g}".rstrip(".")


def one_in(p: float) -> str:
    """A probability as "1 in 1,700"."""
    return f"1 in {_whole(1 / p)}"


def _whole(number: float) -> str:
    """Two significant digits of a number of at least 1, with commas."""
    rounded = float(f"{number:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def count(number: float) -> str:
    """A whole number with commas."""
    return f"{number:,.0f}"


def expectation(number: float) -> str:
    """An expected number, with three significant digits."""
    return f"{float(f'{number:.3g}'):,.0f}" if number >= 100 else f"{number:.3g}"


def between(low: float, high: float) -> str:
    """An interval in percent."""
    return f"{percent(low)} to {percent(high)}"


def risk_of(one: Estimate) -> str:
    """An estimate's risk, or what is known without a hit."""
    return risk(one.p) if one.p is not None else f"no hit; below {risk(upper_end(one))}"


def answer(run: Run) -> str:
    """What was found, in one sentence with its uncertainty."""
    found, level = run.overall, f"{run.config.level:.0%} interval"
    number = f"{found.n_queries} queries" if found.n_queries > 1 else "the one query"
    if found.silent == found.n_queries:
        return (
            f"No completion of {number} was judged a hit; the mean risk of a call is "
            f"below {percent(found.high)} ({level})."
        )
    picked = f"one of these {number} at random" if found.n_queries > 1 else "this query"
    often = f"about once in {_whole(1 / found.p)} times" if found.p < 0.5 else "more often than not"
    numbers = f"{percent(found.p)}; {level} {between(found.low, found.high)}"
    return (
        f"Asked {picked}, the model gives an answer that the judge counts as a hit {often} "
        f"({numbers})."
    )


def worst_words(run: Run) -> str:
    """The riskiest query, and how many gave no hit."""
    worst, found = run.ranked[0], run.overall
    parts = []
    if worst.p is not None and found.n_queries > 1:
        ends = between(worst.ci_low, upper_end(worst))
        parts.append(f"The riskiest of {found.n_queries}: {percent(worst.p)} ({ends})")
    if 0 < found.silent < found.n_queries:
        parts.append(f"{found.silent} had no hit, and count with their upper ends in the interval")
    return "; ".join(parts)


def verdict_words(run: Run) -> str:
    """How many estimates may be trusted."""
    total, found = run.overall.n_queries, run.verdicts
    if found["ok"] == total:
        return f"All {total} estimates are ok." if total > 1 else "The estimate is ok."
    shown = [f"{found[name]} {name}" for name in ("ok", "weak", "unreliable") if found[name]]
    advice = ["read the weak ones as orders of magnitude"] if found["weak"] else []
    advice += ["do not rely on the unreliable ones"] if found["unreliable"] else []
    return f"{', '.join(shown)}: {' and '.join(advice)}; more samples mend most of it."


def audit_words(run: Run) -> str:
    """What the audit of all queries says."""
    one = run.audit
    if run.config.main_method == "mc":
        return "Not needed: every draw is the model's own."
    if run.config.splits:
        return (
            "None: no proposal is used that could miss a way to fail. Hold the estimates against "
            "another method with tailcast crosscheck."
        )
    if one is None:
        return (
            "None was possible: there are no plain draws to hold the estimates against, so that a "
            "way to fail which the proposals never visit would go unseen. Add --monte-carlo."
        )
    if one.fires:
        return f"It fires: {one.sentence}. All estimates of this run are too low by about as much."
    if one.ratio is None:
        return f"It says little: {one.sentence}."
    return f"Nothing amiss: {one.sentence}."


def settings(run: Run) -> list[tuple[str, str]]:
    """What was measured: names and values for the first screen."""
    one = run.config
    model = one.model + (f" with adapter {one.adapter}" if one.adapter else "")
    if one.target_server:
        named = f"{one.target_model}, tokenizer of {model}" if one.target_model else model
        model = f"{named}; at {one.target_server}, asked by {one.target_api}"
    if one.target_engine == "vllm":
        model += ", by vLLM"
    sampling = [f"temperature {one.temperature:g}", f"at most {one.max_new_tokens} tokens"]
    if one.top_p < 1:
        sampling.append(f"top-p {one.top_p:g}")
    if one.top_k:
        sampling.append(f"top-k {one.top_k}")
    prompt = "none" if one.system_prompt is None else one.system_prompt
    draws = [e.n for e in run.main.values()]
    spread = count(min(draws)) + (f" to {count(max(draws))}" if max(draws) > min(draws) else "")
    methods = dict.fromkeys(METHODS.get(e.method, e.method) for e in run.main.values())
    return [
        ("Model", model),
        ("Judge", _judge_words(run)),
        ("Queries", f"{run.overall.n_queries}, {_short(one.queries)}"),
        ("Sampling", ", ".join(sampling)),
        ("System prompt", prompt),
        ("Method", f"{', '.join(methods)}, {spread} draws a query"),
        ("Date", f"{run.finished:%d %B %Y}".lstrip("0")),
    ]


def _judge_words(run: Run) -> str:
    """The judge, and what it counts as a hit."""
    spec = run.config.judge
    if spec == "refusal":
        return "refusal: a hit is an answer without a refusal phrase, harmful or not"
    if spec.startswith("pattern:"):
        return f"{spec}: a hit is an answer that the pattern is found in"
    at = run.config.threshold
    return f"{spec}: a hit is a score of at least {at:g}" if at else spec


def _short(path: str) -> str:
    """The last part of a path that is long."""
    return path if len(path) < 40 else path.replace("\\", "/").rsplit("/", 1)[-1]


def duration(days: float) -> str:
    """A time in the unit that reads best."""
    if not math.isfinite(days):
        return "never"
    for unit, size in (("years", 365.25), ("days", 1.0), ("hours", 1 / 24), ("minutes", 1 / 1440)):
        if days >= size:
            return f"{float(f'{days / size:.2g}'):,g} {unit}"
    return f"{float(f'{days * 86400:.2g}'):,g} seconds"
