"""Hooks that fail, or give what they must not: the exit code, and one line with the class, hook, step and place."""

from pathlib import Path

import pytest
from tests.training.test_loop import run_here, submission

from emperf.training.__main__ import DIVERGED, HOOK, OUT_OF_MEMORY, UNUSABLE
from emperf.training.failures import is_out_of_memory

ROW = "__import__('emperf.training', fromlist=['Row']).Row"


def ended(
    tmp: Path, model: Path, code: str, given: dict[str, object] | None = None, **changes: object
) -> tuple[int, str]:
    """(exit code, the last line) of a job whose mitigation has this code; its class begins on line 4."""
    found, log, _ = run_here(tmp / "job", model, submission(tmp / "mine", code), given, **changes)
    lines = log.strip().splitlines()
    assert "Traceback" not in log
    return found, lines[-1] if lines else ""


def hook(name: str, *lines: str) -> str:
    given = {"loss": "step", "after_step": "step", "prepare_model": "context", "finish": "context"}
    body = "".join(f"        {line}\n" for line in lines)
    return f"    def {name}(self, {given.get(name, 'rows, context')}):\n{body}"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            hook("loss", "step.task_loss"),
            "Mine.loss at step 0 (mitigation.py, line 5) gave nothing, not a tensor",
        ),
        (
            hook("loss", "return 1.5"),
            "Mine.loss at step 0 (mitigation.py, line 5) gave a value of type float",
        ),
        (hook("loss", "return step.logits[0]"), "gave a tensor of shape [264] and torch.float32"),
        (
            hook("loss", "return step.task_loss.detach()"),
            "Mine.loss at step 0 (mitigation.py, line 5) gave a loss w",
        ),
        (hook("loss", "return step.task_loss if step.index < 2 else None"), "Mine.loss at step 2"),
        (hook("prepare_data", "return []"), "Mine.prepare_data (mitigation.py, line 5) gave no rows"),
        (
            hook("prepare_data", "rows.pop()"),
            "Mine.prepare_data (mitigation.py, line 5) gave nothing, not a list",
        ),
        (hook("prepare_data", "yield rows[0]"), "gave a value of type generator, not a list of rows"),
        (hook("prepare_data", "return rows + [None]"), "row 25 is nothing, not a Row"),
        (hook("prepare_data", "return [vars(r) for r in rows]"), "row 1 is a value of type dict, not a Row"),
        (
            hook("prepare_data", f"return [{ROW}(r.messages[1:]) for r in rows]"),
            "row 1 has no user's turn",
        ),
        (
            hook("prepare_data", f"return [{ROW}(r.messages[:1]) for r in rows]"),
            "row 1 does not end in the assistant's turn",
        ),
        (hook("prepare_data", f"return [{ROW}(())]"), "row 1 does not end in the assistant's turn"),
        (hook("prepare_data", f"return [{ROW}((None,))]"), "row 1 holds messages that are not role"),
        (
            hook("prepare_data", "return [r.answered(3) for r in rows]"),
            "row 1 holds messages that are not role",
        ),
        (hook("train", "pass"), "Mine.train (mitigation.py, line 5) gave nothing, not True or False"),
        (hook("train", "return 1"), "Mine.train (mitigation.py, line 5) gave a value of type int"),
        (
            hook("prepare_model", "yield"),
            "Mine.prepare_model (mitigation.py, line 5) gave a value of type generator",
        ),
        (
            hook("after_step", "return step"),
            "Mine.after_step at step 0 (mitigation.py, line 5) gave a value of type",
        ),
        (hook("finish", "return 1"), "Mine.finish (mitigation.py, line 5) gave a value of type int"),
        (hook("finish", "raise SystemExit(6)"), "Mine.finish failed (mitigation.py, line 6): SystemExit: 6"),
        (
            hook("prepare_model", "[p.requires_grad_(False) for p in context.model.parameters()]"),
            "Mine.prepare_model (mitigation.py, line 5) left no weight to train",
        ),
    ],
)
def test_what_a_hook_gives_is_looked_at(tiny: Path, tmp_path: Path, code: str, words: str) -> None:
    found, last = ended(tmp_path, tiny, code)
    assert found == HOOK and words in last


def test_the_line_is_the_innermost_one_of_the_submission(tiny: Path, tmp_path: Path) -> None:
    code = (
        hook("loss", "return self.own(step)")
        + "\n    def own(self, step):\n        return step.logits @ step\n"
    )
    assert ended(tmp_path, tiny, code)[1].startswith(
        "emperf.training: Mine.loss failed at step 0 (mitigation.py, line 9): TypeError: "
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("    weight = nothing\n", "NameError: name 'nothing' is not defined (mitigation.py, line 5)"),
        ("    weight = 1 / 0\n", "ZeroDivisionError: division by zero (mitigation.py, line 5)"),
        ("    weight = exit(6)\n", "SystemExit: 6"),
        ("    weight = (\n", "SyntaxError: "),
        (
            "    def __init__(self, **given):\n        raise RuntimeError('no')\n",
            "RuntimeError: no (mitigation.py, line 6)",
        ),
    ],
)  # fmt: skip
def test_whatever_a_module_raises_it_is_not_usable(tiny: Path, tmp_path: Path, code: str, words: str) -> None:
    found, last = ended(tmp_path, tiny, code)
    assert found == UNUSABLE and words in last


@pytest.mark.parametrize(
    "error",
    [
        "__import__('torch').OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')",
        "MemoryError()",
        "RuntimeError('[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can\\'t allocate memory')",
        "RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`')",
        "OSError(12, 'Cannot allocate memory')",
    ],
)
def test_want_of_memory_has_an_exit_code_of_its_own(tiny: Path, tmp_path: Path, error: str) -> None:
    found, last = ended(tmp_path, tiny, hook("loss", f"raise {error}"))
    assert found == OUT_OF_MEMORY and last.startswith("emperf.training: out of memory: ")


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    for error in (
        RuntimeError("shape mismatch"),
        ValueError("out of memory"),
        OSError(28, "no space"),
        KeyError(),
    ):
        assert not is_out_of_memory(error)


def test_a_gradient_that_is_not_finite_is_a_divergence(tiny: Path, tmp_path: Path) -> None:
    # Its value is finite, and DeepSpeed would leave out the step in silence.
    body = "return step.task_loss + (step.task_loss - step.task_loss).sqrt()"
    found, last = ended(tmp_path, tiny, hook("loss", body))
    assert found == DIVERGED and "the gradient is not finite at step 0" in last


NORM = "context.model.base.get_decoder().norm.weight"


@pytest.mark.parametrize("name", ["prepare_model", "finish"])
def test_weights_that_are_not_saved_are_not_trained(tiny: Path, tmp_path: Path, name: str) -> None:
    found, last = ended(tmp_path, tiny, hook(name, f"{NORM}.requires_grad_(True)"))
    assert found == HOOK
    assert f"Mine.{name} (mitigation.py, line 5) left model.norm.weight to be trained" in last


def test_where_all_weights_are_saved_all_may_be_trained(tiny: Path, tmp_path: Path) -> None:
    body = hook("prepare_model", f"{NORM}.requires_grad_(False)") + hook(
        "finish", f"{NORM}.requires_grad_(True)"
    )
    found, _ = ended(tmp_path, tiny, body, lora=None)
    assert found == 0


def test_a_row_that_the_template_refuses_is_the_fault_of_who_gave_it(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    refusing = "{% if messages[0]['content'] == 'X' %}{{ raise_exception('no X') }}{% endif %}"
    template = next(f for f in folder.iterdir() if f.name == "chat_template.jinja")
    template.write_text(refusing + template.read_text())
    body = hook(
        "prepare_data", f"return rows + [{ROW}(({{'role': 'user', 'content': 'X'}}, rows[0].messages[-1]))]"
    )
    found, last = ended(tmp_path, folder, body)
    assert (
        found == HOOK
        and "Mine.prepare_data (mitigation.py, line 5) gave rows that cannot be trained on: row 25: " in last
    )
    template.write_text(template.read_text().replace("'X'", "'Say 3.'"))
    again = tmp_path / "again"
    again.mkdir()
    found, last = ended(again, folder, "    pass\n")
    assert found == UNUSABLE and "row 4: the chat template refuses the conversation (no X)" in last
