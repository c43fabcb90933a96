"""job.json as typed values. The same classes write it on the host and read it in the container (spec/CONTRACT.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CONTRACT = 1
# A weight of a transformer layer: the layer's number, and the weight's name inside of it.
IN_LAYER = re.compile(r"\.(?:layers?|h|blocks?)\.(\d+)\.(.+)")
# Families that keep linear weights as [in, out].
TRANSPOSED = ("gpt2",)
OF_EXPERTS = (".gate_proj", ".up_proj", ".down_proj")


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation. `alpha` is scaled by 1/r, or by 1/sqrt(r) if `rank_stabilised`.

    `layers` and `modules` narrow it to some transformer layers (from 0) and to linear weights whose name ends so
    ("down_proj"); empty means all of them.
    """

    r: int
    alpha: int
    rank_stabilised: bool = False
    layers: tuple[int, ...] = ()
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "modules", tuple(self.modules))
        if self.r < 1 or self.alpha < 1:
            raise ValueError(f"lora: r and alpha must be at least 1, not {self.r} and {self.alpha}")

    @property
    def scale(self) -> float:
        return float(self.alpha / (self.r**0.5 if self.rank_stabilised else self.r))

    def wants(self, name: str) -> bool:
        """Whether the linear weight of this name (a module's or a tensor's, "model.layers.3.mlp.down_proj") is adapted.

        Weights outside of the transformer layers (embeddings, head) never are, nor are a mixture's experts and router.
        """
        found = IN_LAYER.search(name.removesuffix(".weight"))
        if not found:
            return False
        layer, module = found.groups()
        if ".experts." in module or module.endswith((".gate", ".router")):
            return False
        return (not self.layers or int(layer) in self.layers) and (
            not self.modules or module.endswith(self.modules)
        )


def model_type(folder: Path) -> str:
    """The family of the model in `folder`, by its config.json."""
    return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])


def adapted(names: Sequence[str], lora: Lora, family: str) -> list[str]:
    """Which of all weights' names of a model the recipe adapts, where they are linear.

    In a model with experts PEFT takes every weight of an expert's name for one, also a dense layer's or that of an
    expert for all tokens, which are left out therefore; save in Qwen2's.
    """
    experts = family != "qwen2_moe" and any(".experts." in name for name in names)
    return [
        name
        for name in names
        if lora.wants(name) and not (experts and name.removesuffix(".weight").endswith(OF_EXPERTS))
    ]


def linear_weights(folder: Path, lora: Lora) -> dict[str, list[int]]:
    """Name -> shape [out, in] of the linear weights to adapt, by config.json and the headers of the folder's files
    alone."""
    from safetensors import safe_open

    shapes: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            shapes |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    family = model_type(folder)
    turn = -1 if family in TRANSPOSED else 1
    return {
        name.removesuffix(".weight"): shapes[name][::turn]
        for name in adapted(list(shapes), lora, family)
        if len(shapes[name]) == 2 and name.endswith(".weight")
    }


@dataclass(frozen=True)
class Recipe:
    """How to train. Pinned by the division; a closed submission may not change it.

    `lora`: the adapter, or None where all weights are trained. `checkpoints`: fractions of the steps after which the
    weights are also saved (0 < f < 1). `processes`: ranks of the DeepSpeed engine, one a GPU; `threads`: CPU threads of
    each rank. `dtype`: "float32", "bfloat16", or "float64" (in one process; for checks, never for scores). The loss is
    the mean over the response tokens of an optimizer step, of all its micro-batches and processes; the learning rate is
    that of `emperf.training.engine.rate`.
    """

    lora: Lora | None
    learning_rate: float
    epochs: float
    micro_batch: int
    accumulation: int = 1
    warmup_steps: int = 2
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    max_tokens: int = 512
    zero_stage: int = 1
    dtype: str = "float32"
    processes: int = 1
    threads: int = 2
    checkpoints: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16", "float64"):
            raise ValueError(f"recipe: dtype must be float32, bfloat16 or float64, not {self.dtype}")
        if self.dtype == "float64" and self.processes != 1:
            raise ValueError("recipe: float64 is for one process")
        if self.zero_stage not in (0, 1, 2):
            raise ValueError(f"recipe: zero_stage must be 0, 1 or 2, not {self.zero_stage}")
        if any(not 0 < f < 1 for f in self.checkpoints):
            raise ValueError("recipe: checkpoints must lie between 0 and 1")
        if min(self.micro_batch, self.accumulation, self.processes, self.threads) < 1 or self.epochs <= 0:
            raise ValueError(
                "recipe: micro_batch, accumulation, processes, threads and epochs must be positive"
            )

    @property
    def weights_file(self) -> str:
        """What the container leaves: the adapter, or all weights."""
        return "adapter.safetensors" if self.lora else "model.safetensors"

    def steps(self, rows: int) -> int:
        """Optimizer steps of plain training on so many rows; the last batch of an epoch may be short."""
        batches = -(-rows // (self.micro_batch * self.processes))
        return max(1, round(batches * self.epochs / self.accumulation))

    @staticmethod
    def parse(raw: dict[str, Any]) -> Recipe:
        """From plain JSON or YAML values. Raises TypeError or ValueError, naming the field."""
        known = dict(raw)
        asked = known.pop("lora")
        lora = None if asked is None else Lora(**asked)
        return Recipe(lora=lora, checkpoints=tuple(known.pop("checkpoints", ())), **known)


@dataclass(frozen=True)
class Job:
    """What a container is asked to do. Ids are blind: nothing here says what kind of data it is.

    `start`: the file below /in of the weights to mend (scenario cure), None for the base model; `data` is then the
    trusted rows. `probe`: compare the mitigation with plain training in place of training (`emperf check`).
    """

    job_id: str
    seed: int
    recipe: Recipe
    parameters: dict[str, Any] = field(default_factory=dict)
    model: str = "model"
    data: str = "data.jsonl"
    trusted: str | None = None
    start: str | None = None
    probe: bool = False
    device: str = "cpu"
    contract: int = CONTRACT

    def dumps(self) -> bytes:
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @staticmethod
    def load(path: Path) -> Job:
        """Raises ValueError if the file is no job of this contract."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("contract") != CONTRACT:
            raise ValueError(f"job.json is of contract {raw.get('contract')}, this trainer keeps {CONTRACT}")
        raw["recipe"] = Recipe.parse(raw["recipe"])
        return Job(**raw)
