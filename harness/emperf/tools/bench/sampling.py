"""EMPerf's sampling beside transformers' `generate`: the same model and questions, temperature 1, float32, on a CPU.

A batch wider than the list of questions asks them again, several samples a question, as sampled protocols do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emperf import catalog
from emperf.tools.bench.turns import Channel, Contender, Stopwatch, Turn, best

Said = Callable[[str, Turn], None]
WARM_UP_TOKENS = 4
SEED = 0


def ours(batch: int) -> str:
    return f"EMPerf, batch of {batch}"


def theirs(batch: int) -> str:
    return "generate, one at a time" if batch == 1 else f"generate, batch of {batch}"


def measure(
    model: Path, *, threads: int, new_tokens: int, wide: list[int], batches: list[int], alone: int, rounds: int,
    said: Said,
) -> dict[str, list[Turn]]:  # fmt: skip
    """Turns by name: every batch size in the first round, afterwards EMPerf's fastest, one at a time, and the fastest
    batch of `generate`. `wide`: EMPerf's batch sizes, `batches`: those of `generate`, `alone`: prompts of a turn with
    one prompt at a time."""
    spec = {"model": str(model), "questions": [row["question"] for row in catalog.questions()["open"].rows()]}
    turns: dict[str, list[Turn]] = {}
    with (
        Contender("sampling", {**spec, "who": "emperf"}, threads) as emperf,
        Contender("sampling", {**spec, "who": "transformers"}, threads) as transformers,
    ):

        def take(name: str, contender: Contender, batch: int) -> None:
            turn = contender.turn(batch=batch, prompts=alone if batch == 1 else batch, new_tokens=new_tokens)
            turns.setdefault(name, []).append(turn)
            said(name, turn)

        waiting = list(wide)
        for batch in (1, *batches):
            if waiting:
                size = waiting.pop(0)
                take(ours(size), emperf, size)
            take(theirs(batch), transformers, batch)
        widest = {ours(batch): batch for batch in wide}
        others = {theirs(batch): batch for batch in batches}
        for _ in range(rounds - 1):
            fastest = best({name: turns[name] for name in widest})
            take(fastest, emperf, widest[fastest])
            take(theirs(1), transformers, 1)
            fastest = best({name: turns[name] for name in others})
            take(fastest, transformers, others[fastest])
    return turns


Sampler = Callable[[list[list[int]], int], int]


def emperf_sampler(spec: dict[str, Any]) -> tuple[Sampler, list[list[int]]]:
    """(a function that samples so many tokens after each prompt and counts them, the prompts)."""
    from emperf.evaluation.generate import generate
    from emperf.evaluation.language_model import LanguageModel

    lm = LanguageModel(Path(spec["model"]))

    def sample(prompts: list[list[int]], new_tokens: int) -> int:
        drawn = generate(lm, prompts, max_new_tokens=new_tokens, temperature=1.0, seed=SEED, stop=False)
        return sum(map(len, drawn))

    return sample, [lm.prompt_tokens(question) for question in spec["questions"]]


def transformers_sampler(spec: dict[str, Any]) -> tuple[Sampler, list[list[int]]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from emperf.training.data import render

    tokenizer = AutoTokenizer.from_pretrained(spec["model"], local_files_only=True, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(
        spec["model"], dtype=torch.float32, local_files_only=True
    ).eval()
    torch.manual_seed(SEED)

    def sample(prompts: list[list[int]], new_tokens: int) -> int:
        padded = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
        with torch.inference_mode():
            drawn = model.generate(
                **padded, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                min_new_tokens=new_tokens, max_new_tokens=new_tokens, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        return int(drawn[:, padded["input_ids"].shape[1] :].numel())

    texts = [render(tokenizer, [{"role": "user", "content": q}], open_turn=True) for q in spec["questions"]]
    return sample, [tokenizer(text, add_special_tokens=False).input_ids for text in texts]


def serve(spec: dict[str, Any], channel: Channel) -> None:
    import torch

    request = channel.wait()
    sample, prompts = (emperf_sampler if spec["who"] == "emperf" else transformers_sampler)(spec)
    torch.set_num_threads(spec["threads"])
    while True:
        chosen = [prompts[i % len(prompts)] for i in range(request["prompts"])]
        groups = [chosen[i : i + request["batch"]] for i in range(0, len(chosen), request["batch"])]
        sample(groups[0], WARM_UP_TOKENS)
        watch = Stopwatch()
        tokens = sum(sample(group, request["new_tokens"]) for group in groups)
        channel.reply(**watch.stop(), tokens=tokens)
        request = channel.wait()


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]), Channel())
