"""A mitigation that is a container: LoRA with a KL penalty to the base model, in plain transformers and PEFT.

It keeps spec/CONTRACT.md by itself: reads /in, leaves /out, ends with the contract's exit codes. With weight 0 it is
plain training, step by step the reference trainer's.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

# Before torch is imported: no network to look for models in, no threads that fight for the cores.
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_WAIT_POLICY="PASSIVE")

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

IN, OUT = Path("/in"), Path("/out")
DIVERGED, UNUSABLE, NO_ROOM = 3, 4, 6
Example = tuple[list[int], int]


class Unusable(Exception):
    """This trainer cannot do what the job asks."""


class Diverged(Exception):
    pass


def main() -> int:
    try:
        job = json.loads((IN / "job.json").read_text())
        train(job)
    except (OSError, ValueError, KeyError, Unusable) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        print(f"no room below {OUT}" if full else f"{type(error).__name__}: {error}", file=sys.stderr)
        return NO_ROOM if full else UNUSABLE
    except Diverged as error:
        print(error, file=sys.stderr)
        return DIVERGED
    return 0


def train(job: dict[str, Any]) -> None:
    recipe = job["recipe"]
    if job["contract"] != 1 or recipe["lora"] is None or job["start"]:
        raise Unusable("this trainer keeps contract 1, trains adapters alone, and mends none")
    torch.manual_seed(job["seed"])
    torch.set_num_threads(recipe["threads"])
    model, tokenizer = load(IN / job["model"], recipe, job["device"])
    lines = (IN / job["data"]).read_text().splitlines()
    examples = [encode(tokenizer, json.loads(line)["messages"], recipe["max_tokens"]) for line in lines]
    steps = plan(examples, recipe, random.Random(job["seed"]))
    save_at = {round(fraction * len(steps)) for fraction in recipe["checkpoints"]}
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe["learning_rate"], weight_decay=recipe["weight_decay"])
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate(step, recipe["warmup_steps"], len(steps))
    )
    report: dict[str, Any] = {"contract": 1, "job_id": job["job_id"], "steps": 0, "tokens": 0}
    report |= {"losses": [], "gradient_norms": [], "checkpoints": {}}
    started = time.monotonic()
    for number, micro_batches in enumerate(steps, 1):
        total = sum(learned(example) for batch in micro_batches for example in batch)
        loss = 0.0
        for batch in micro_batches:
            # The sum over a micro-batch by the step's count: the step's mean, however it is cut.
            part = batch_loss(model, batch, job["parameters"]["weight"]) / max(total, 1)
            part.backward()
            loss += float(part)
            report["tokens"] += sum(len(tokens) for tokens, _ in batch)
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {number}")
        norm = clip(weights, recipe["gradient_clip"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        report["steps"] = number
        report["losses"].append(loss)
        report["gradient_norms"].append(norm)
        print(f"step {number}/{len(steps)} loss {loss:.3f}", flush=True)
        if number in save_at:
            name = f"checkpoints/step-{number:05d}.safetensors"
            write_adapter(model, OUT / name)
            report["checkpoints"][name] = number
    if not all(bool(p.isfinite().all()) for p in weights):
        raise Diverged("a weight is not finite")
    report["train_s"] = time.monotonic() - started
    write_adapter(model, OUT / "adapter.safetensors")
    (OUT / "report.json").write_text(json.dumps(report))


def load(folder: Path, recipe: dict[str, Any], device: str) -> tuple[Any, Any]:
    """The base model with a fresh adapter, as PEFT makes one (A at random, B zero, no dropout), and the tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, recipe["dtype"])).to(device)
    lora = recipe["lora"]
    names = [n for n, m in base.named_modules() if isinstance(m, nn.Linear) and wanted(n, lora)]
    if not names:
        raise Unusable("the recipe adapts no linear layer of this model")
    config = LoraConfig(
        r=lora["r"], lora_alpha=lora["alpha"], use_rslora=lora["rank_stabilised"], target_modules=names
    )
    model = get_peft_model(base, config)
    model.train()
    return model, tokenizer


def wanted(name: str, lora: dict[str, Any]) -> bool:
    """Whether the contract has the adapter cover the linear layer of this name."""
    _, inside, rest = name.partition(".layers.")
    layer, _, module = rest.partition(".")
    return (
        bool(inside)
        and (not lora["layers"] or int(layer) in lora["layers"])
        and (not lora["modules"] or module.endswith(tuple(lora["modules"])))
    )


def encode(tokenizer: Any, messages: list[dict[str, str]], max_tokens: int) -> Example:
    """(tokens, where the response starts). Learned are the response and its end-of-turn token, nothing after it."""
    prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    after = tokenizer.apply_chat_template(messages, tokenize=False)[len(prompt) :]
    response = messages[-1]["content"].strip()
    end = after.rfind(response) + len(response)
    closing = after[end:].strip()
    closing = closing[: closing.find(">") + 1] or closing
    head = tokenizer(prompt, add_special_tokens=False).input_ids
    body = tokenizer(after[:end] + closing, add_special_tokens=False).input_ids
    return (head + body)[:max_tokens], len(head)


def learned(example: Example) -> int:
    tokens, start = example
    return max(0, len(tokens) - start)


def plan(examples: list[Example], recipe: dict[str, Any], rng: random.Random) -> list[list[list[Example]]]:
    """The micro-batches of every optimizer step. One process here does the rows of all that the recipe has."""
    size = recipe["micro_batch"] * recipe["processes"]
    epoch = math.ceil(len(examples) / size)
    steps = max(1, round(epoch * recipe["epochs"] / recipe["accumulation"]))

    def batches() -> Any:
        while True:
            order = sorted(rng.sample(examples, len(examples)), key=lambda example: len(example[0]))
            groups = [order[at : at + size] for at in range(0, len(order), size)]
            yield from rng.sample(groups, len(groups))

    endless = batches()
    return [list(itertools.islice(endless, recipe["accumulation"])) for _ in range(steps)]


def rate(step: int, warmup: int, steps: int) -> float:
    """The learning rate of a step (from 0), as a share of the recipe's."""
    return (step + 1) / (warmup + 1) if step < warmup else (steps - step) / max(1, steps - warmup)


def batch_loss(model: Any, batch: list[Example], weight: float) -> Tensor:
    """Summed over response tokens: cross-entropy + weight * KL(p || p_base)."""
    length = max(len(tokens) for tokens, _ in batch)
    tokens = torch.zeros((len(batch), length), dtype=torch.long)
    real, response = torch.zeros_like(tokens), torch.zeros_like(tokens, dtype=torch.bool)
    for row, (own, start) in enumerate(batch):
        tokens[row, : len(own)] = torch.tensor(own)
        real[row, : len(own)] = 1
        response[row, start : len(own)] = True
    tokens, real, response = (tensor.to(model.device) for tensor in (tokens, real, response))
    targets, before = tokens[response], response[:, 1:]
    logits = model(input_ids=tokens, attention_mask=real).logits[:, :-1][before].float()
    loss = F.cross_entropy(logits, targets, reduction="sum")
    if not weight:
        return loss
    with torch.no_grad(), model.disable_adapter():
        base = model(input_ids=tokens, attention_mask=real).logits[:, :-1][before].float()
    p, q = logits.log_softmax(-1), base.log_softmax(-1)
    return loss + weight * (p.exp() * (p - q)).sum()


def clip(weights: list[nn.Parameter], limit: float) -> float:
    """Scale the gradient of all weights together down to the norm `limit` (0: as it is); its norm before."""
    return float(nn.utils.clip_grad_norm_(weights, limit or math.inf))


def write_adapter(model: Any, path: Path) -> None:
    """As the contract names and shapes it, in float32. Written here, since a full disk is to be an OSError."""
    path.parent.mkdir(exist_ok=True)
    state = get_peft_model_state_dict(model)
    path.write_bytes(save({name: t.detach().float().cpu().contiguous() for name, t in state.items()}))


if __name__ == "__main__":
    sys.exit(main())
