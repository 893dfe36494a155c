"""The verbs about proposals: what a run's did, and what can be learned from its hits."""

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tailcast.cli.screen import plain_table, result_screen
from tailcast.errors import ConfigError
from tailcast.foreign import check_asked
from tailcast.store import existing_run

if TYPE_CHECKING:
    from tailcast.analysis.proposals import Opening, Use

__all__ = ["learn", "proposals"]

_SHOWN = 12


def proposals(
    directory: Path, /, *, words: int = 3, show_text: bool = False, json: bool = False
) -> None:
    """Say what each proposal of a run found, carried and cost, and which ways to hit there are.

    Args:
        directory: A finished run.
        words: How many first words of a completion tell ways to hit apart.
        show_text: Show those words, which are the model's own.
        json: Print JSON lines.
    """
    from tailcast.analysis.proposals import (
        explained,
        proposals_used,
        tokens_drawn,
        ways_to_hit,
    )

    if words < 1:
        raise ConfigError(f"words {words} tells nothing apart: use 1 or more.")
    store = existing_run(directory)
    found = explained(store)
    uses = proposals_used(found, tokens_drawn(store, found))
    ways = ways_to_hit(found, words=words)
    if json:
        for use in uses:
            print(jsonlib.dumps({"record": "proposal", **asdict(use)}))
        for way in ways:
            record = {"record": "opening", **asdict(way)}
            print(jsonlib.dumps(record if show_text else {**record, "words": None}))
        return
    _show_uses(uses)
    _show_ways(ways, show_text)


def _show_uses(uses: "list[Use]") -> None:
    numbers = ("draws", "hits", "tokens", "carries", "leads")
    table = plain_table("proposal", *numbers, right=numbers, no_wrap=True)
    for one in uses:
        table.add_row(
            one.proposal, f"{one.draws:,}", f"{one.hits:,}", f"{one.tokens:,}",
            f"{one.carried:.1%}", str(one.queries),
        )  # fmt: skip
    screen = result_screen()
    screen.print(table)
    screen.print(
        "carries: share of the estimates, mean over queries with hits; leads: queries of which it "
        "carries more than any other.",
        highlight=False,
    )


def _show_ways(ways: "list[Opening]", show_text: bool) -> None:
    numbers = ("hits", "queries", "carries")
    table = plain_table("way to hit", *numbers, "found by", right=numbers, no_wrap=True)
    for number, one in enumerate(ways[:_SHOWN], start=1):
        name = one.words if show_text else f"opening {number}"
        by = ", ".join(f"{who} ({share:.0%})" for who, share in one.found_by[:2])
        table.add_row(name, f"{one.hits:,}", str(one.queries), f"{one.carried:.1%}", by)
    screen = result_screen()
    screen.print(f"\n{len(ways)} ways to hit, by their first words:", highlight=False)
    screen.print(table)
    if len(ways) > _SHOWN:
        rest = sum(one.carried for one in ways[_SHOWN:])
        screen.print(f"The other {len(ways) - _SHOWN} carry {rest:.1%}.", highlight=False)
    if not show_text:
        screen.print("Their words are shown with --show-text.", highlight=False)


def learn(
    directory: Path, /, *, out: Path, tokens: int = 8, trust_remote_code: bool = False
) -> None:
    """Learn a stream from the hits of a run, for --streams learned:FILE.

    A shift of the last hidden state at each of the first positions, fitted to the weighted
    hits; how much it gains is told on hits of queries that the fit did not see.

    Args:
        directory: A finished run.
        out: File to write, *.safetensors.
        tokens: Positions to learn.
        trust_remote_code: Let code that comes with the run's model run.
    """
    from tailcast.models import load_target
    from tailcast.pipeline.learning import heaviest, hits_of_run, learn_shift, settings_of_run
    from tailcast.streams import save_shift

    if tokens < 1:
        raise ConfigError(f"tokens {tokens} leaves nothing to learn: use 1 or more.")
    if not out.parent.is_dir():
        raise ConfigError(f"folder {str(out.parent)!r} of --out does not exist: make it first.")
    model, law = settings_of_run(existing_run(directory))
    said = {"trust_remote_code": trust_remote_code}
    check_asked(model.model_dump(), said, f"run directory {directory}")
    target = load_target(model)
    hits = heaviest(hits_of_run(str(directory), target, tokens=tokens))
    shift, facts = learn_shift(hits, target, law, tokens=tokens)
    facts_kept = {"model": target.weights_fingerprint, "run": str(directory)}
    save_shift(out, shift, {**facts_kept, **{name: str(one) for name, one in facts.items()}})
    gain = f"{facts['gain']:.2f} nats a token over the target on hits left out"
    if not facts["gain"]:
        gain = "nothing gained on hits left out, so it is the target; draw more hits first"
    print(f"{out}  from {len(hits)} hits: {gain}")
