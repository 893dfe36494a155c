"""Who dies, who is copied and what does each particle stand for, in adaptive multilevel splitting?

A swarm is N completions of one query. The score of a completion is the largest score that any
of its prefixes has. In every generation the K lowest die, ties with the K-th included, at the
level L of the best of them; each is replaced by a copy of a random survivor up to the first
prefix above L, from where it is drawn anew from the target. A score may also rise within a
token, the smaller the random number that decides it is found to be; then the copy is cut there,
and what is left of that number is drawn anew.

Whoever dies keeps the share of the target that it stood for, 1/N of prod (1 - K_i/N) over the
generations before; the survivors and their copies share out the rest. The masses of all
particles, dead and alive, add up to 1, and the sum of mass times h has mean QRISK, whatever the
score (Brehier, Gazeau, Goudenege, Lelievre and Rousset 2016, who call the dead "retired
replicas").

Three things are easily got wrong. Equals of the K-th die too, or the level is no level. A hit
that dies counts: a score need not know where the hits are. And a swarm in which all would die
ends before they do, with everyone alive: to call that 0 is right only where hits lie above
every level.

When a swarm ends may depend on the levels and on who is dead, never on the hits among the
living: their ends lie beyond the level, and a swarm that stops at its first hit is biased.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["KILLED", "Particle", "Swarm", "log_odds", "sigmoid"]

KILLED = 0.25
"""Share of the particles that dies in a generation, ties apart."""

Numbers = Callable[[int, int], np.random.Generator]
"""The random numbers of a particle, by generation and place in the swarm."""


@dataclass(eq=False)
class Particle:
    """A completion, finished or under way.

    Attributes:
        generation: In which it was drawn, from 0.
        ancestor: Place of the first particle whose opening it has.
        copied: Number of its tokens that are a survivor's.
        rng: Decides its parent and its tokens.
        tokens: Tokens so far, end token included.
        logp: Target log-probability of each.
        scores: Of its prefixes of length 0, 1, ...; of every one that a token was drawn after.
        steps: Where the score rises within tokens: how far it rose on the way to each. A prefix
            score s is then the log-odds of an event of the next token, which happens if the
            token's random number is below sigmoid(s), and is known to be less rare by half once
            that number is known to be below one half.
        bound: What the random number of the first token to be drawn is known to be below.
        finish: Why it ended, as in :class:`tailcast.types.SampleBatch`; "" while it is drawn.
        log_mass: Log of N times the share of the target that it stands for.
    """

    generation: int
    ancestor: int
    copied: int
    rng: np.random.Generator
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    bound: float = 1.0
    finish: str = ""
    log_mass: float = 0.0

    @property
    def top(self) -> float:
        """Its score: the largest of its prefixes', and on the way to its tokens."""
        return max(*self.scores, *self.steps, -math.inf)

    def crossing(self, level: float) -> tuple[int, float]:
        """Where it first passes a level that its score is above.

        Returns:
            Length of the prefix, and what is known there of the next token's random number: a
            bound from above, 1 for nothing.
        """
        for length, score in enumerate(self.scores):
            if score > level:
                return length, 1.0
            if length < len(self.steps) and self.steps[length] > level:
                return length, sigmoid(score) / sigmoid(level)
        raise AssertionError("its score is not above the level")


class Swarm:
    """N particles of one query, generation after generation.

    Args:
        size: N.
        floor: It ends once so small a share of the target is left for the living.
        numbers: Random numbers by generation and place.

    Attributes:
        alive: The particles of now, by place.
        dead: Those that died, in order.
        levels: Level of every generation.
        killed: Number of those who died at each.
        ended: "floor", or "extinction" where all the living had one score.
    """

    def __init__(self, size: int, floor: float, numbers: Numbers) -> None:
        self.floor = floor
        self.numbers = numbers
        self.alive = [Particle(0, place, 0, numbers(0, place)) for place in range(size)]
        self.dead: list[Particle] = []
        self.levels: list[float] = []
        self.killed: list[int] = []
        self.ended = ""

    @property
    def particles(self) -> list[Particle]:
        """All that were drawn: the dead, then the living."""
        return [*self.dead, *self.alive]

    def next_generation(self) -> Sequence[Particle]:
        """Kill the lowest; the particles that take their places, to be drawn to their ends.

        Returns:
            Empty when the swarm has ended.
        """
        if self.alive[0].log_mass <= math.log(self.floor):
            self.ended = "floor"
            return ()
        size = len(self.alive)
        tops = [one.top for one in self.alive]
        level = sorted(tops)[max(1, int(KILLED * size)) - 1]
        survivors = [one for one, top in zip(self.alive, tops) if top > level]
        if not survivors:
            self.ended = "extinction"
            return ()
        log_mass = self.alive[0].log_mass + math.log(len(survivors) / size)
        self.levels.append(level)
        self.killed.append(size - len(survivors))
        born = []
        for place, (one, top) in enumerate(zip(self.alive, tops)):
            if top <= level:
                self.dead.append(one)
                self.alive[place] = self._copy(survivors, level, place)
                born.append(self.alive[place])
        for one in self.alive:
            one.log_mass = log_mass
        return born

    def _copy(self, survivors: Sequence[Particle], level: float, place: int) -> Particle:
        """A random survivor up to where it first passed the level."""
        generation = len(self.levels)
        rng = self.numbers(generation, place)
        parent = survivors[int(rng.integers(len(survivors)))]
        length, bound = parent.crossing(level)
        return Particle(
            generation, parent.ancestor, length, rng, parent.tokens[:length],
            parent.logp[:length], parent.scores[: length + 1], parent.steps[:length], bound,
        )  # fmt: skip


def sigmoid(log_odds: float) -> float:
    """The probability of which these are the log-odds."""
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds))


def log_odds(chance: float) -> float:
    """log(p / (1 - p)); infinite at 0 and from 1 on."""
    if not 0 < chance < 1:
        return -math.inf if chance <= 0 else math.inf
    return math.log(chance) - math.log1p(-chance)
