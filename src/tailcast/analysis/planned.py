"""How many draws does a run ask for, stage by stage?"""

import math

from tailcast.config import RunConfig

__all__ = ["expected_draws", "pilot_number", "planned_draws"]

_MIN_PILOT = 3
_PER_FOLD = 0.87  # particles that a swarm draws anew for each factor e, by its own size


def pilot_number(config: RunConfig, queries: int) -> int:
    """How many of the queries are in the pilot: the first share of them, or all per query."""
    if config.per_query:
        return queries
    return min(queries, max(_MIN_PILOT, math.ceil(config.pilot_share * queries)))


def expected_draws(samples: int, floor: float) -> int:
    """Particles that so many first ones lead to, if no scores are tied."""
    return round(samples * (1 + _PER_FOLD * -math.log(floor)))


def planned_draws(config: RunConfig, samples: int, *, given_up: bool = False) -> dict[str, int]:
    """Draws of each query in every stage but the pilot; all rounds are one stage, "rounds".

    Args:
        config: The run's settings.
        samples: Most draws of a query by the main method.
        given_up: Whether the pilot found no proposal, so that the target is sampled instead.
    """
    stages = {"mc": config.monte_carlo}
    if config.splits:
        stages["splitting"] = expected_draws(samples, config.floor)
    elif config.by_rounds:
        stages["rounds"] = samples
    else:
        stages["is" if config.steers and not given_up else "mc"] = samples
    return {stage: draws for stage, draws in stages.items() if draws}
