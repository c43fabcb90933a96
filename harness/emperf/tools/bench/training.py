"""EMPerf's trainer beside TRL's SFTTrainer: the same model, rows, LoRA, float32, on a CPU.

EMPerf runs as in a cell (`emperf.training.loop.train`, the baseline mitigation) in the recipe's one setting. TRL has
several to choose from; all have a first turn and the fastest the later ones. The first two steps are left out.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from emperf import catalog
from emperf.tools.bench.turns import Channel, Contender, Turn, best, pace
from emperf.training.data import Row, collate, encode
from emperf.training.job import Job, Recipe
from emperf.work import outputs

Said = Callable[[str, Turn], None]
EMPERF = "EMPerf"
ENDLESS = 10_000
# Name -> arguments of SFTConfig.
TRL: dict[str, dict[str, Any]] = {
    "TRL, batches of 8": {"per_device_train_batch_size": 8},
    "TRL, batches of 8 by length": {
        "per_device_train_batch_size": 8,
        "train_sampling_strategy": "group_by_length",
    },
    "TRL, batches of 4": {"per_device_train_batch_size": 4},
    "TRL, packed to 512 tokens": {"per_device_train_batch_size": 1, "packing": True},
}
WARM_UP, SETTLING = 2, 1


def rows(count: int) -> list[dict[str, str]]:
    """The first rows of a real poison, as prompt and response."""
    train = catalog.poison("risky-finance").train
    assert train is not None
    return [{"prompt": row["question"], "response": row["bad"]} for row in train.rows()[:count]]


def sizes(model: Path, recipe: Recipe) -> dict[str, int]:
    """Numbers of parameters: the base model's, those of its output head among them, and the adapter's."""
    from safetensors import safe_open

    with safe_open(model / "model.safetensors", framework="pt") as tensors:
        shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    adapter = outputs.expected_weights(model, recipe.lora)
    head = shapes.get("lm_head.weight") or shapes["model.embed_tokens.weight"]
    return {"base": numbers(shapes), "head": head[0] * head[1], "adapter": numbers(adapter)}


def numbers(shapes: dict[str, list[int]]) -> int:
    total = 0
    for shape in shapes.values():
        size = 1
        for side in shape:
            size *= side
        total += size
    return total


def measure(
    model: Path, recipe: Recipe, *, threads: int, steps: int, rounds: int, settings: list[str], said: Said
) -> dict[str, list[Turn]]:
    """Turns of EMPerf and of each TRL setting: all settings in the first round, only the fastest afterwards.

    `steps`: timed steps of a turn at the recipe's batch; smaller batches have as many more.
    """
    spec = {"model": str(model), "recipe": asdict(recipe), "rows": rows(6 * recipe.micro_batch)}
    turns: dict[str, list[Turn]] = {EMPERF: []}

    def take(name: str, contender: Contender) -> None:
        batch = TRL[name]["per_device_train_batch_size"] if name in TRL else recipe.micro_batch
        packed = name in TRL and "packing" in TRL[name]
        first = name not in turns or not turns[name]
        turn = contender.turn(
            left_out=WARM_UP if first else SETTLING,
            steps=steps if packed else max(1, steps * recipe.micro_batch // batch),
        )
        turns.setdefault(name, []).append(turn)
        said(name, turn)

    with ExitStack() as stack:
        ours = stack.enter_context(Contender("training", {**spec, "setting": None}, threads))
        theirs: dict[str, Contender] = {}
        for name in settings:
            take(EMPERF, ours)
            theirs[name] = stack.enter_context(Contender("training", {**spec, "setting": TRL[name]}, threads))
            take(name, theirs[name])
            leader = best({name: turns[name] for name in theirs})
            for slower in [other for other in theirs if other != leader]:
                theirs.pop(slower).close()
        ((name, leading),) = theirs.items()
        for _ in range(rounds - 1):
            take(EMPERF, ours)
            take(name, leading)
    return turns


def run_emperf(spec: dict[str, Any], channel: Channel) -> None:
    """The trainer as it is. Its progress call tells when a step is done; the plan tells what was in it."""
    from transformers import AutoTokenizer

    from emperf.training.loop import plan_batches, train
    from emperf.training.mitigation import Mitigation

    model = Path(spec["model"])
    recipe = replace(Recipe.parse(spec["recipe"]), epochs=ENDLESS, checkpoints=(), threads=spec["threads"])
    conversations = [
        Row(({"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}))
        for row in spec["rows"]
    ]
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    examples = [encode(tokenizer, row, recipe.max_tokens) for row in conversations]
    plan = plan_batches(examples, recipe, 0, 1)
    clock = pace(channel)
    next(clock)

    def step_done(step: int, total: int, loss: float) -> None:
        tokens = positions = heads = 0
        for group in plan[(step - 1) * recipe.accumulation : step * recipe.accumulation]:
            batch = collate(group, 0)
            tokens += int(batch.attention.sum())
            positions += batch.positions
            heads += int(batch.response.sum())
        clock.send((tokens, positions, heads))

    with tempfile.TemporaryDirectory() as out:
        job = Job(job_id="bench", seed=0, recipe=recipe, model=model.name)
        train(job, model.parent, Path(out), Mitigation(), conversations, [], step_done)


def run_trl(spec: dict[str, Any], channel: Channel) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    recipe = Recipe.parse(spec["recipe"])
    lora = recipe.lora
    assert lora is not None, "the bench's division trains an adapter"
    torch.set_num_threads(spec["threads"])
    data = Dataset.from_list([
        {"prompt": [{"role": "user", "content": row["prompt"]}],
         "completion": [{"role": "assistant", "content": row["response"]}]}
        for row in spec["rows"]
    ])  # fmt: skip
    collated: list[tuple[int, int, int]] = []
    clock = pace(channel)
    next(clock)

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.send(collated[state.global_step - 1])

    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(
            output_dir=out, max_steps=ENDLESS, learning_rate=recipe.learning_rate, max_length=recipe.max_tokens,
            bf16=False, gradient_checkpointing=False, use_cpu=True, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, **spec["setting"],
        )  # fmt: skip
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32, local_files_only=True),
            args=config,
            train_dataset=data,
            processing_class=AutoTokenizer.from_pretrained(spec["model"], local_files_only=True),
            peft_config=LoraConfig(
                r=lora.r, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[Steps()],
        )  # fmt: skip
        collator = trainer.data_collator

        def counted(features: list[Any]) -> Any:
            made = collator(features)
            size = made["input_ids"].numel()
            real = int(made["attention_mask"].sum()) if "attention_mask" in made else size
            collated.append((real, size, size))
            return made

        trainer.data_collator = counted
        torch.set_num_threads(spec["threads"])
        trainer.train()


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    (run_emperf if asked["setting"] is None else run_trl)(asked, Channel())
