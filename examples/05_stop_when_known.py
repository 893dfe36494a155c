"""Draw until a question is answered, not a fixed number of times."""

import os

import tailcast
from small_world import STEERING, STEPS, says_four_twice, small_model

samples = int(os.environ.get("EXAMPLE_SAMPLES", "20000"))
query = tailcast.Query.user("q", "hello")

for until in (("relative-error", 0.25), ("above", 1e-4), ("below", 1e-1)):
    (found,) = tailcast.estimate(
        small_model(), [query], says_four_twice, steering=STEERING, until=until, samples=samples,
        max_new_tokens=STEPS, switches=(2, 4, 6),
    )  # fmt: skip
    print(f"{until[0]} {until[1]}: {found.n} draws, ended by {found.ended!r}")
    print(f"  guaranteed: {found.p_low:.2g} to {found.p_high_guaranteed:.2g}")
