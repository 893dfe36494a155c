"""A way to hit that a proposal never visits leaves no trace in its estimate."""

import os
from dataclasses import replace

import tailcast
from small_world import STEERING, STEPS, says_four_twice, small_model

samples = int(os.environ.get("EXAMPLE_SAMPLES", "2000"))
query = tailcast.Query.user("q", "hello")
model = small_model(rarer=2.0)
shift = model.shift.copy()
shift[0, :, 3] = -20.0  # steered, the model never begins with token 3 ...
model = replace(model, shift=shift)


def judge(query: tailcast.Query, answer: str) -> float:
    """... but "3 3" at the beginning is a hit too."""
    return max(says_four_twice(query, answer), float(answer.startswith("3 3")))


print("exact", f"{model.exact_risk(query, lambda text: judge(query, text) > 0, STEPS):.2g}")
for settings in (
    {"method": "paper", "proposal": "1,6,0"},
    {"method": "mixture", "switches": (2, 4, 6)},
):
    (found,) = tailcast.estimate(
        model, [query], judge, steering=STEERING, samples=samples, max_new_tokens=STEPS, **settings
    )
    print(f"{found.method:8} {found.ci_low:.2g} to {found.ci_high:.2g}, {found.verdict};", end=" ")
    print(f"guaranteed: {found.p_low:.2g} to {found.p_high_guaranteed:.2g}")
