"""From the risks of some queries to what users will meet: tries, calls a day, unseen queries."""

import os
from tempfile import TemporaryDirectory

import tailcast
from small_world import STEERING, STEPS, says_four_twice, small_model
from tailcast.analysis.deployment import calls_per_day, deployment
from tailcast.analysis.repeated import repeated_sampling
from tailcast.analysis.runs import read_run

samples = int(os.environ.get("EXAMPLE_SAMPLES", "1000"))
queries = [tailcast.Query.user(f"q{k}", chr(ord("a") + k)) for k in range(20)]

with TemporaryDirectory() as folder:
    tailcast.estimate(
        small_model(rarer=2.0), queries, says_four_twice, steering=STEERING, samples=samples,
        max_new_tokens=STEPS, switches=(2, 4, 6), out=folder,
    )  # fmt: skip
    run = read_run(folder)

for one in repeated_sampling(run, 10_000):
    if one.route == "risks" and one.tries in (1, 100, 10_000):
        print(f"{one.tries:6,} tries: {one.low:.2g} to {one.high:.2g} of the queries are hit")
for one in deployment(run, calls_per_day("1e4/day")).quantities:
    print(f"{one.name:20} {one.low:.3g} to {one.high:.3g}")
