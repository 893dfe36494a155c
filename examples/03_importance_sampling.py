"""The same number of draws, plain and by importance sampling, against the exact risk."""

import os

import tailcast
from small_world import STEERING, STEPS, says_four_twice, small_model

samples = int(os.environ.get("EXAMPLE_SAMPLES", "2000"))
query = tailcast.Query.user("q", "hello")

print("exact      plain sampling          importance sampling")
for rarer in (0.0, 1.0, 2.0, 3.0):
    model = small_model(rarer)
    exact = model.exact_risk(query, lambda text: says_four_twice(query, text) > 0, STEPS)
    cells = []
    for steering in (None, STEERING):
        (found,) = tailcast.estimate(
            model, [query], says_four_twice, steering=steering, samples=samples,
            max_new_tokens=STEPS, switches=(2, 4, 6),
        )  # fmt: skip
        cells.append(f"{found.ci_low:.2g} to {found.ci_high:.2g}")
    print(f"{exact:<10.2g} {cells[0]:<23} {cells[1]}")
