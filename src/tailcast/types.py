"""The records that pass between the parts, and the protocols at the two seams.

Arrays are NumPy; nothing here imports torch, opens a file or draws a number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from tailcast.proposals import Proposal, StreamKey, as_rows, log_weights
from tailcast.vectors import Operator, Positions, SteeringVector

if TYPE_CHECKING:
    import torch

__all__ = [
    "Continuation",
    "ContrastPair",
    "Engine",
    "Judge",
    "JudgeReading",
    "JudgeSettings",
    "ModelSettings",
    "Operator",
    "Positions",
    "Query",
    "SampleBatch",
    "SamplingSettings",
    "Scores",
    "SteeringVector",
    "Stream",
    "Target",
    "Verdicts",
]

JudgeReading = Literal["expected", "argmax", "text", "number", "rubric"]


@dataclass(frozen=True)
class Query:
    """c: what the model is asked.

    Attributes:
        id: Name of the query, unique in its set.
        messages: Chat messages, each {"role", "content"}; the last one is the user's.
        tags: Free labels, for example the category; "base:NAME" names the base query.
        target: Right answers, for judges that compare with them.
    """

    id: str
    messages: tuple[dict[str, str], ...]
    tags: tuple[str, ...] = ()
    target: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """Content of the last message."""
        return self.messages[-1]["content"]

    @classmethod
    def user(cls, id: str, prompt: str, tags: tuple[str, ...] = ()) -> "Query":
        """A query of one user message."""
        return cls(id, ({"role": "user", "content": prompt},), tags)


@dataclass(frozen=True)
class ContrastPair:
    """An unsafe and a safe response to the same prompt, for fitting a steering vector."""

    prompt: str
    unsafe: str
    safe: str


class ModelSettings(BaseModel, frozen=True, extra="forbid"):
    """Which model, and how it is loaded."""

    model: str = Field(
        description="Local directory, gguf file, hub id, or 'embedded': the model of the demo."
    )
    adapter: str | None = Field(None, description="PEFT adapter, directory or hub id; merged.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id.")
    dtype: str = Field(
        "auto",
        description="auto (the checkpoint's, if this machine is fast in it), bfloat16, float32 ...",
    )
    bits: int | None = Field(
        None, ge=4, le=8, multiple_of=4, description="4: weights in four bits, bitsandbytes."
    )
    device: str = Field("auto", description="auto (cuda, mps, cpu in this order) or a name.")
    device_map: Literal["auto"] | None = Field(
        None, description="auto: the model's layers are spread over all GPUs of this machine."
    )
    system_prompt: str | None = Field(None, description="Put before every query.")
    plain_prompt: bool = Field(False, description="Send the query's text without chat template.")
    trust_remote_code: bool = Field(False, description="Let code that comes with the model run.")


class SamplingSettings(BaseModel, frozen=True, extra="forbid"):
    """The settings that are part of what the target p is (method.md section 1)."""

    max_new_tokens: int = Field(128, ge=1, description="Longest completion, in tokens.")
    temperature: float = Field(1.0, gt=0, description="Divides the logits; 1 is the model's law.")
    top_k: int = Field(0, ge=0, description="Keep the k likeliest tokens; 0 keeps all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Keep this much mass of likeliest tokens.")


class JudgeSettings(BaseModel, frozen=True, extra="forbid"):
    """Which judge, how it is read, and what it may cost."""

    judge: str = Field(
        "refusal",
        description="refusal, agreement, compliance, no-doubt, pattern:REGEX, "
        "python:MODULE:FUNCTION, a judge model (strongreject, strongreject-rubric, harmbench, "
        "llama-guard, wildguard, trait, coherence, classifier), a .toml file, or inspect:SCORER.",
    )
    threshold: float | None = Field(
        None, gt=0, le=1, description="A hit is a score of at least this; the judge's own if none."
    )
    judge_model: str | None = Field(
        None, description="Model that judges, if not the judge's own: directory, hub id or name."
    )
    judge_server: str | None = Field(
        None,
        description="Where that model is served: an http:// address with /v1/chat/completions, "
        "or inspect for a model by Inspect's name; here if not given.",
    )
    judge_prompt: str | None = Field(
        None,
        description="What judge trait asks, with {question} and {answer}; the behaviour's "
        "eval_prompt if not given.",
    )
    judge_reading: JudgeReading | None = Field(
        None, description="How its answer is read, if not as the judge's recipe says."
    )
    screen: Literal["refusal"] | None = Field(
        None,
        description="refusal: of completions with a refusal phrase the judge sees a random share "
        "only, and those count for the others.",
    )
    screen_share: float = Field(0.05, gt=0, le=1, description="That share.")
    judge_label: str | None = Field(None, description="Label of judge classifier that is a hit.")
    judge_hit: str | None = Field(
        None,
        description="Values of an Inspect scorer that are hits: incorrect, correct, a value such "
        "as I, or a comparison such as '>= 0.5'; see docs/inspect.md.",
    )
    judge_workers: int = Field(16, ge=1, description="Requests to it under way at one time.")
    judge_rate: float | None = Field(None, gt=0, description="Requests a second, at most.")
    judge_calls: int | None = Field(
        None, ge=1, description="Stop, everything kept, before it is asked more often than this."
    )


class Stream(Protocol):
    """A batch of open slots, each a prompt under a steering strength and its tokens so far.

    Slots are numbered 0 .. n-1 without gaps. Logits are raw: temperature and truncation
    are the sampler's.
    """

    def open(self, prompt: tuple[int, ...], strength: float, state: Any = None) -> None:
        """Add a slot at the end: after the prompt but its last token, or where a state was.

        Args:
            prompt: Prompt tokens; the last one is for the first :meth:`push`.
            strength: Steering strength of the slot.
            state: What :meth:`save` gave for a slot of equal prompt and strength.
        """

    def save(self, slot: int) -> Any:
        """A copy of all that a slot needs to be opened again where it is now."""

    def close(self, slots: Sequence[int]) -> list[int]:
        """Drop slots; the i-th number returned is the former slot that is now slot i."""

    def push(self, tokens: "torch.Tensor") -> "torch.Tensor":
        """Append one token to every slot; next-token logits, [n, vocabulary], in any dtype.

        Args:
            tokens: [n] int64.
        """


class Target(Protocol):
    """A language model as this package sees it: the seam to any implementation."""

    @property
    def fingerprint(self) -> str:
        """A digest that differs when the weights or the prompt format differ."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a response."""

    def encode(self, query: Query) -> tuple[int, ...]:
        """Prompt tokens of a query, chat format included."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of response tokens, without end tokens."""

    def stream(self, steering: SteeringVector | None, *, slots: int, max_new_tokens: int) -> Stream:
        """An empty batch for at most ``slots`` slots of ``max_new_tokens`` tokens."""


@dataclass(frozen=True)
class SampleBatch:
    """Completions of one query with all that their weights need.

    Attributes:
        query_id: Which query.
        draws: Index of each draw within (query, stage), [n].
        proposals: The proposal of each draw, n of them.
        tokens: Drawn tokens, end token included, [n, T]; -1 past the end, and where a server
            gave the text of a continuation without its tokens.
        lengths: Number of tokens of each draw, [n].
        token_logp: Target log-probability of each token, [n, T]; 0 past the end.
        token_logs: The same under the steered target, [n, T]; before the switch only.
        texts: Decoded completions, n of them.
        finish: Why each ended, n of them: "stop" for an end token, "length" for the limit,
            "settled" once its verdict could no longer change, "roulette" for a refusal that
            was not followed up, "switch" for a prefix that waits for its continuation.
        token_forwards: Tokens that the model was run on for these draws, both streams, each
            distinct prefix once; of the prompt only the last token. Tokens that another engine
            continued with are counted one by one.
        log_roulette: What roulette adds to each log-weight, [n]: 0 for a draw that never
            played, -log(rate) for one that went on, -inf for one that was ended.
    """

    query_id: str
    draws: NDArray[np.int64]
    proposals: tuple[Proposal, ...]
    tokens: NDArray[np.int32]
    lengths: NDArray[np.int64]
    token_logp: NDArray[np.float32]
    token_logs: NDArray[np.float32]
    texts: tuple[str, ...]
    finish: tuple[str, ...]
    token_forwards: int
    log_roulette: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.draws)

    @property
    def log_weights(self) -> NDArray[np.float64]:
        """Weights log p(x) - log q(x) of each draw under its own proposal and roulette, [n]."""
        _, switch, mix = as_rows(self.proposals)
        ratio = log_weights(self.token_logp, self.token_logs, self.lengths, switch=switch, mix=mix)
        return ratio + self.log_roulette


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of a shard's hits under several streams, all from one scoring path.

    Attributes:
        draws: Which draws they are of, [hits].
        token_logp: Of their first tokens under the target, [hits, T].
        token_logs: The same under every stream, [hits, streams, T].
        lengths: Tokens of each, [hits].
        streams: Strengths and heats.
        token_forwards: What the scoring took, an equal part of the batch it was done in.
    """

    draws: NDArray[np.int64]
    token_logp: NDArray[np.float64]
    token_logs: NDArray[np.float64]
    lengths: NDArray[np.int64]
    streams: tuple[StreamKey, ...]
    token_forwards: int


@dataclass(frozen=True)
class Verdicts:
    """h of completions, as a judge gave it.

    Attributes:
        scores: Graded score in [0, 1]; NaN where the judge failed, [n].
        hits: score >= threshold, [n].
        errors: What the judge raised, "" where it answered, n of them.
        shares: With which probability the judge was to see each, [n]; 1 without a screen, 0
            where the screen kept it from the judge, which counts as no hit.
    """

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    errors: tuple[str, ...]
    shares: NDArray[np.float64]

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Where the judge gave no answer, [n]."""
        return np.isnan(self.scores)


@dataclass(frozen=True)
class Judge:
    """h(x; c): a graded score in [0, 1], cut at a threshold.

    Attributes:
        spec: The specification that builds it, part of every record.
        score: Callable (query, completion) -> score in [0, 1].
        threshold: A completion is a hit when its score is at least this.
        settled: Callable (query, completion so far) -> 0 or 1 when every way to go on gets
            that verdict, else None; None for judges that cannot say.
        many: Callable (query, completions) -> a score or the exception for each; for judges
            that are better asked about many at once, None for the others.
        fingerprint: What decides the scores besides the specification: a model's weights, a
            prompt, a reading; empty for judges that have none.
        usage: What it has done so far and what that cost; None for judges that do not count.
        check: Callable (query) that raises where it cannot judge answers to a query, asked before
            anything is drawn; None for judges that take every query.
    """

    spec: str
    score: Callable[[Query, str], float]
    threshold: float = 0.5
    settled: Callable[[Query, str], int | None] | None = None
    many: Callable[[Query, Sequence[str]], Sequence[float | Exception]] | None = None
    fingerprint: str = ""
    usage: Callable[[], dict[str, int]] | None = None
    check: Callable[[Query], None] | None = None


@dataclass(frozen=True)
class Continuation:
    """What an engine sampled from the target after given tokens.

    Attributes:
        tokens: The tokens, end token included; empty when the engine gives text alone.
        text: Their text, None when it is to be decoded from the tokens.
        finish: "stop" or "length".
        length: Number of tokens sampled.
    """

    tokens: tuple[int, ...]
    text: str | None
    finish: str
    length: int


class Engine(Protocol):
    """Samples from the target and nothing else: the seam to faster engines.

    The weight of a draw is known at its switch (method.md section 5), so no log-probability
    of a continuation is asked for.
    """

    def sample(
        self,
        prompts: Sequence[tuple[int, ...]],
        settings: SamplingSettings,
        *,
        limits: Sequence[int],
        seeds: Sequence[int],
    ) -> list[Continuation]:
        """One continuation of each prompt, from the target's law.

        Args:
            prompts: Tokens so far, chat format included.
            settings: Temperature and truncation.
            limits: Most tokens of each continuation.
            seeds: Of each continuation, in [0, 2^31).
        """
