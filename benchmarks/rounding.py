"""How far do bfloat16 and the rows of a batch move the law of a first token?

    python benchmarks/rounding.py

Prints log-probabilities at temperature 0.5 of the likeliest first tokens after a mild demo query
for several numbers of rows, in bfloat16 with our float32 logits and with the model's own, and in
float32.
"""

import torch

from tailcast.data import load_queries
from tailcast.models import load_target
from tailcast.models.embedded import asset
from tailcast.types import ModelSettings

TEMPERATURE = 0.5
SHOWN = 8


def main() -> None:
    query = load_queries(str(asset("demo_queries.jsonl")))[0]
    shown = None
    for dtype, own in (("float32", False), ("bfloat16", False), ("bfloat16", True)):
        target = load_target(ModelSettings(model="embedded", dtype=dtype))
        if own:
            del target.model.get_output_embeddings().forward
        prompt = target.encode(query)
        for rows in (1, 2, 16, 84, 128):
            stream = target.stream(None, slots=rows, max_new_tokens=1)
            for _ in range(rows):
                stream.open(prompt, 0.0)
            logits = stream.push(torch.full((rows,), prompt[-1]))[0].float()
            law = (logits / TEMPERATURE).log_softmax(-1)
            shown = law.topk(SHOWN).indices if shown is None else shown
            values = " ".join(f"{value:7.2f}" for value in law[shown])
            name = f"{dtype}, model's own logits" if own else dtype
            print(f"{name:28} {rows:4} rows {values}")


if __name__ == "__main__":
    main()
