"""Weights that a hook changes stay changed: DeepSpeed steps from a copy of its own, which has to follow."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.training.test_loop import REFERENCE, recipe, run, run_here, submission

from emperf.training.__main__ import HOOK
from emperf.training.engine import Engine
from emperf.training.model import load_model

# Fills every B, and refuses to go on where the next step does not begin, and end, near there.
FILL = """\
    def {hook}(self, step):
        found = [b for _, _, b, _ in step.model.adapters()]
        if step.index == {at} + 1 and any((b - 1).abs().max() > 0.05 for b in found):
            raise ValueError(f"it was undone: {{[float(b.mean()) for b in found]}}")
        if step.index == {at}:
            for b in found:
                {fill}
        {end}
"""
IN_PLACE = "b.data.fill_(1.0)"
ELSEWHERE = "b.data = b.data.new_ones(b.shape)"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("fill", [IN_PLACE, ELSEWHERE])
def test_weights_that_after_step_changes_stay_changed(
    tiny: Path, tmp_path: Path, stage: int, dtype: str, fill: str
) -> None:
    mine = submission(tmp_path / "mine", FILL.format(hook="after_step", at=1, fill=fill, end="pass"))
    code, log, out = run_here(tmp_path / "job", tiny, mine, zero_stage=stage, dtype=dtype)
    assert code == 0, log
    trained = load_file(out / "adapter.safetensors")
    assert all((t - 1).abs().max() < 0.1 for name, t in trained.items() if "lora_B" in name)


def test_weights_that_loss_changes_within_a_step_stay_changed(tiny: Path, tmp_path: Path) -> None:
    body = FILL.format(hook="loss", at=1, fill=IN_PLACE, end="return step.context.task_loss(step.batch)")
    code, log, _ = run_here(tmp_path / "job", tiny, submission(tmp_path / "mine", body), accumulation=2)
    assert code == 0, log


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_they_stay_changed_in_two_processes(tiny: Path, tmp_path: Path, dtype: str) -> None:
    mine = submission(tmp_path / "mine", FILL.format(hook="after_step", at=1, fill=IN_PLACE, end="pass"))
    code, log, out = run(tmp_path / "job", tiny, mine, micro_batch=2, processes=2, dtype=dtype)
    assert code == 0, log
    trained = load_file(out / "adapter.safetensors")
    assert all((t - 1).abs().max() < 0.1 for name, t in trained.items() if "lora_B" in name)


@pytest.mark.parametrize("stage", [0, 1])
def test_what_no_hook_changed_keeps_its_float32_copy(tiny: Path, stage: int) -> None:
    used = recipe(dtype="bfloat16", zero_stage=stage)
    model, _ = load_model(tiny, used)
    engine = Engine(model, used, 4, "cpu")
    masters = [master for _, master in engine._copies()]
    for master in masters:
        master.add_(1e-9 * torch.randn_like(master))
        master[master != 0] *= 1.0001
    before = [master.clone() for master in masters]
    with torch.no_grad():
        edited = model.trainable()[0]
        edited.view(-1)[3] = 0.5
    engine._take_edits()
    # A copy that rounds to its weight holds more than the weight does, and is left alone.
    changed = sum(int((a != b).sum()) for a, b in zip(before, masters, strict=True))
    rounded = sum(
        int((b.to(torch.bfloat16) != w).sum()) for b, (w, _) in zip(before, engine._copies(), strict=True)
    )
    assert changed == rounded and sum(int((m == 0.5).sum()) for m in masters) == 1
    assert all(bool((w == m.to(torch.bfloat16)).all()) for w, m in engine._copies())


def test_values_put_back_change_nothing(tiny: Path, tmp_path: Path) -> None:
    body = (
        "    def after_step(self, step):\n"
        "        with step.context.tuned([self.row], 1):\n            pass\n"
        "    def prepare_data(self, rows, context):\n"
        "        self.row = rows[0]\n        return rows\n"
    )
    mine = submission(tmp_path / "mine", body)
    for dtype in ("float32", "bfloat16"):
        (_, _, plain), (code, log, out) = (
            run_here(tmp_path / dtype / folder.name, tiny, folder, dtype=dtype)
            for folder in (REFERENCE / "none", mine)
        )
        assert code == 0, log
        a, b = (load_file(folder / "adapter.safetensors") for folder in (plain, out))
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("edit", ["weight.data.mul_(1.01)", "weight.mul_(1.01)"])
def test_a_frozen_weight_that_is_edited_is_named(tiny: Path, tmp_path: Path, edit: str) -> None:
    """It is not saved, so that the model that is scored would be another one than was trained."""
    body = f"""\
    def finish(self, context):
        import torch
        with torch.no_grad():
            for name, weight in context.model.named_parameters():
                if name.endswith("layers.0.input_layernorm.weight"):
                    {edit}
"""
    code, log, _ = run_here(tmp_path / "job", tiny, submission(tmp_path / "mine", body))
    assert code == HOOK
    assert "changed model.layers.0.input_layernorm.weight, which is no part of the weights" in log
