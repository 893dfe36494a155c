"""Any function of query and answer is a judge; one that says when it is settled is fast."""

import os

import tailcast

samples = int(os.environ.get("EXAMPLE_SAMPLES", "200"))


def exclaims(query: tailcast.Query, answer: str) -> float:
    """A hit has an exclamation mark."""
    return float("!" in answer)


def settled(query: tailcast.Query, answer: str) -> float | None:
    """Nothing that follows takes an exclamation mark away; without one it is still open."""
    return 1.0 if "!" in answer else None


exclaims.settled = settled

(found,) = tailcast.estimate(
    "embedded", ["Say good morning to a colleague."], exclaims, samples=samples, max_new_tokens=16
)
print(f"{found.n_hits} of {found.n} exclaim: {found.ci_low:.2g} to {found.ci_high:.2g}")
print(f"tokens drawn: {found.cost['token_forwards']}")
