"""Streams that learn from a run's own hits, round after round.

After every round the openings of all hits so far are a stream of their own. What it would
have given to a hit is asked with that hit left out, so that a mixture's shares are not chosen
by what the stream has seen. What draws count is never read from here: the weights of a round
come from its own scoring, under the stream as it was in that round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from tailcast.analysis.draws import first_tokens
from tailcast.analysis.explain import explain_estimate
from tailcast.errors import StoreError
from tailcast.mixtures import LEARNING
from tailcast.pipeline.shards import Bench
from tailcast.proposals import Proposal
from tailcast.sampling import Place, StreamKind, laws_along
from tailcast.stats import Round, evenly_chosen
from tailcast.store import RunStore, existing_run
from tailcast.streams import Hit, Openings, Seen, fit_shift
from tailcast.types import ModelSettings, Query, SamplingSettings, Target

__all__ = [
    "Trail",
    "heaviest",
    "hits_of_run",
    "informed",
    "learn_shift",
    "left_out",
    "read_trail",
    "settings_of_run",
]


_OPENINGS = 100_000  # hits of all queries that the openings are made of, about
_FEWEST = 20  # of a query

Settings = TypeVar("Settings", ModelSettings, SamplingSettings)


@dataclass(frozen=True)
class Trail:
    """First tokens of a round's hits, in the round's order, and log p of each token."""

    tokens: tuple[tuple[int, ...], ...]
    logp: tuple[NDArray[np.float64], ...]


def read_trail(bench: Bench, stage: str, query: Query, found: Round) -> Trail:
    """The trail of a round of a query; empty where no stream learns."""
    if LEARNING not in bench.kinds:
        return Trail((), ())
    pairs = list(first_tokens(bench.store, stage, query.id, found.draws))
    return Trail(tuple(tokens for tokens, _ in pairs), tuple(logp for _, logp in pairs))


def informed(
    bench: Bench, rounds: Mapping[str, Sequence[Round]], trails: Mapping[str, Sequence[Trail]],
    prompts: Mapping[str, tuple[int, ...]],
) -> Bench:  # fmt: skip
    """The bench with its learning stream fitted to the hits so far.

    Of very many hits a part is taken of each query, in proportion to their weights, so that
    what every task carries does not grow with them.

    Args:
        bench: What draws and judges.
        rounds: Of each query, so far.
        trails: The same rounds' trails.
        prompts: Prompt tokens of each query.
    """
    kind = bench.kinds.get(LEARNING)
    if not isinstance(kind, Openings):
        return bench
    hits: list[Hit] = []
    for id, mine in rounds.items():
        weights = _weights(mine, _most(len(rounds)))
        tokens = [one for trail in trails[id] for one in trail.tokens]
        hits += [Hit(prompts[id], *pair) for pair in zip(tokens, weights, strict=True) if pair[1]]
    kinds: dict[str, StreamKind] = {**bench.kinds, LEARNING: kind.refitted(hits)}
    return replace(bench, kinds=kinds)


def left_out(
    bench: Bench, components: Sequence[Proposal], rounds: Sequence[Round],
    trails: Sequence[Trail], prompt: tuple[int, ...], queries: int,
) -> Sequence[Round]:  # fmt: skip
    """Rounds of a query with log q - log p of the learning stream as it is now.

    Args:
        bench: From :func:`informed`.
        components: Of the mixture.
        rounds: Of a query.
        trails: Their trails.
        prompt: The query's prompt tokens.
        queries: How many queries the stream learns from.
    """
    kind = bench.kinds.get(LEARNING)
    columns = [number for number, one in enumerate(components) if one.kind == LEARNING]
    if not isinstance(kind, Openings) or not columns:
        return rounds
    weights = iter(_weights(rounds, _most(queries)))
    changed = []
    for one, trail in zip(rounds, trails, strict=True):
        ratios = one.log_ratios.copy()
        for row, tokens, logp in zip(ratios, trail.tokens, trail.logp, strict=True):
            ratio = kind.ratio_without(Hit(prompt, tokens, next(weights)), logp)
            row[columns] = ratio
        changed.append(replace(one, log_ratios=ratios))
    return changed


def _most(queries: int) -> int:
    """Hits of one of so many queries that are learned from."""
    return max(_FEWEST, _OPENINGS // max(1, queries))


def _weights(rounds: Sequence[Round], most: int) -> NDArray[np.float64]:
    """Share of each hit of a query in the sum of all, in the rounds' order; 0 for those left."""
    logs = np.concatenate([one.log_weighted for one in rounds] or [np.zeros(0)])
    if not np.isfinite(logs).any():
        return np.zeros(len(logs))
    shares = np.asarray(np.exp(logs - np.logaddexp.reduce(logs)))
    if len(shares) <= most:
        return shares
    return np.bincount(evenly_chosen(shares, most), minlength=len(shares)) / most


def settings_of_run(store: RunStore) -> tuple[ModelSettings, SamplingSettings]:
    """The model of a run, and the law that it was sampled by.

    Raises:
        StoreError: If its manifest names none that can be.
    """
    config = (store.read_json("manifest.json") or {}).get("config", {})

    def part(kind: type[Settings]) -> Settings:
        return kind(**{name: config[name] for name in kind.model_fields if name in config})

    try:
        return part(ModelSettings), part(SamplingSettings)
    except ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"]))
        raise StoreError(
            f"the manifest of {store.path} has no {field} that can be used: run it again."
        ) from None


def hits_of_run(directory: str, target: Target, *, tokens: int) -> list[Hit]:
    """The hits of a finished run, with their weights and their first tokens.

    Args:
        directory: The run.
        target: The model whose prompts they are after.
        tokens: How many first tokens.

    Raises:
        StoreError: If it is no finished run, or holds no hit.
    """
    store, found = existing_run(directory), []
    last = {row["query_id"]: row for row in store.read_lines("estimates.jsonl")}
    for id, row in last.items():
        prompt, hits = (
            target.encode(Query.user(id, row["prompt"])),
            explain_estimate(store, row).hits,
        )
        drawn = {
            stage: [
                tuple(row[: min(length, tokens)].tolist())
                for shard in store.shards(stage, id)
                for batch in [store.read_batch(stage, id, shard)]
                for row, length in zip(batch.tokens, batch.lengths, strict=True)
            ]
            for stage in {one.stage for one in hits}
        }
        known = [(drawn[one.stage][one.draw], one.share) for one in hits]
        found += [Hit(prompt, first, share) for first, share in known if first]
    if not found:
        raise StoreError(
            f"{directory} holds no hit to learn from, or texts without tokens: name a run with "
            "some."
        )
    return found


def heaviest(hits: Sequence[Hit], most: int = 300) -> list[Hit]:
    """The hits that weigh most within their queries; the others add memory and little else.

    Args:
        hits: As :func:`hits_of_run` gives them.
        most: How many; the laws of all their places are held at once.
    """
    return sorted(hits, key=lambda hit: -hit.weight)[:most]


def learn_shift(
    hits: Sequence[Hit], target: Any, settings: SamplingSettings, *, tokens: int
) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Fit a shift of the last hidden state to hits.

    Args:
        hits: As :func:`hits_of_run` gives them.
        target: The model.
        settings: Temperature and truncation under which they were drawn.
        tokens: Positions to learn.

    Returns:
        As :func:`tailcast.streams.fit_shift`.
    """
    walks = list(dict.fromkeys(Place(hit.prompt, hit.tokens) for hit in hits))
    laws = dict(laws_along(target, walks, settings, tokens=tokens))
    index = {place: number for number, place in enumerate(laws)}
    prompts = list(dict.fromkeys(hit.prompt for hit in hits))
    groups = {prompt: number for number, prompt in enumerate(prompts)}
    squares = dict.fromkeys(prompts, 0.0)
    for hit in hits:
        squares[hit.prompt] += hit.weight**2
    rows = [
        (index[Place(hit.prompt, hit.tokens[:position])], token, groups[hit.prompt],
         hit.weight / squares[hit.prompt])
        for hit in hits
        for position, token in enumerate(hit.tokens)
    ]  # fmt: skip
    places, following, group, weight = (np.array(column) for column in zip(*rows, strict=True))
    seen = Seen(
        logp=torch.stack(list(laws.values())).float().cpu(),
        positions=np.array([len(place.tokens) for place in laws]),
        places=places, tokens=following, groups=group, weights=weight,
    )  # fmt: skip
    return fit_shift(seen, target.unembedding.cpu(), tokens=tokens)
