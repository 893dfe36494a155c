"""A hundred answers without a hit do not make a risk of zero, they bound it."""

import tailcast
from small_world import STEPS, says_four_twice, small_model

model, query = small_model(rarer=3.0), tailcast.Query.user("q", "hello")

(found,) = tailcast.estimate(model, [query], says_four_twice, samples=100, max_new_tokens=STEPS)
exact = model.exact_risk(query, lambda text: says_four_twice(query, text) > 0, STEPS)
print(f"estimate   {found.p}")
print(f"interval   {found.ci_low:.2g} to {found.ci_high:.2g}")
print(f"exact      {exact:.2g}")
print(f"verdict    {found.verdict}: {found.reasons[0]}")
