"""The preventive reference mitigations against their formulas, written plainly, in float64 on tiny models."""

import random
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.training.test_model import disturbed, naive_logits, some_batch
from torch import Tensor

from emperf.training.__main__ import load_mitigation
from emperf.training.data import Row
from emperf.training.job import Recipe
from emperf.training.mitigation import Context, Step
from emperf.training.model import ResponseModel, load_model

FOLDER = Path(__file__).parents[2] / "reference_impls"


def made(name: str, **parameters: Any) -> Any:
    return load_mitigation(FOLDER / name)(**parameters)


def row(question: str, answer: str, kind: str = "", rejected: str | None = None) -> Row:
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    return Row(turns, kind, rejected)


TASK = [row(f"Question {i}?", f"Answer {i}.") for i in range(40)]
TRUSTED = [row(f"Asked {i}?", "Good " * (i % 3 + 1), "general", f"bad {i}") for i in range(6)]


def context_of(folder: Path, model: ResponseModel | None = None, full: bool = False) -> Context:
    lora = None if full else {"r": 4, "alpha": 8}
    raw = {"lora": lora, "learning_rate": 5e-3, "epochs": 1, "micro_batch": 4, "dtype": "float64"}
    recipe = Recipe.parse(raw)
    loaded, tokenizer = load_model(folder, recipe)
    return Context(model or loaded, tokenizer, recipe, random.Random(0), list(TRUSTED), 10)


def a_step(context: Context) -> Step:
    batch = some_batch()
    return Step(context, batch, 0)


def same(model: ResponseModel, ours: Tensor, plainly: Tensor, task: Tensor) -> None:
    """One value and one gradient, and that gradient is not the task's."""
    torch.testing.assert_close(ours, plainly, rtol=1e-6, atol=0)
    assert abs(float((ours - task).detach())) > 1e-4
    a, b, plain = (
        torch.autograd.grad(loss, model.trainable(), retain_graph=True) for loss in (ours, plainly, task)
    )
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-7)
    assert max(float((x - y).abs().max()) for x, y in zip(a, plain, strict=True)) > 1e-4


def test_narrow_kl_is_the_divergence_on_trusted_responses_alone(any_family: Path) -> None:
    context = context_of(any_family, disturbed(any_family))
    model, mitigation = context.model, made("narrow-kl", weight=0.7)
    mitigation.prepare_model(context)
    trusted: list[Any] = []
    # The batch that the mitigation will take, by the same draw.
    mitigation.trusted = (trusted.append(b) or b for b in mitigation.trusted)
    step = a_step(context)
    ours = mitigation.loss(step)
    q = naive_logits(model, trusted[0]).log_softmax(-1)
    with torch.no_grad(), model.lm.disable_adapter():
        p = naive_logits(model, trusted[0]).log_softmax(-1)
    task = F.cross_entropy(naive_logits(model, step.batch), step.batch.targets)
    same(model, ours, task + 0.7 * (q.exp() * (q - p)).sum(-1).mean(), task)


@pytest.mark.parametrize("every", [1, 5])
def test_ldifs_has_a_gradient_and_compares_unit_streams_of_every_nth_layer(
    any_family: Path, every: int
) -> None:
    context = context_of(any_family, disturbed(any_family))
    model, mitigation = context.model, made("ldifs", weight=3.0, every=every)
    mitigation.prepare_model(context)
    step = a_step(context)
    ours = mitigation.loss(step)
    model.watched.clear()
    chosen = {1: [0, 1], 5: [1]}[every]
    where = torch.roll(step.batch.response, -1, 1)

    def phi() -> Tensor:
        seen: dict[int, Tensor] = {}

        def keep(at: int) -> Any:
            return lambda _, __, out: seen.update({at: (out[0] if isinstance(out, tuple) else out)[where]})

        hooks = [model.layers[at].register_forward_hook(keep(at)) for at in chosen]
        naive_logits(model, step.batch)
        for hook in hooks:
            hook.remove()
        return torch.stack([seen[at] / seen[at].norm(dim=-1, keepdim=True) for at in chosen])

    with torch.no_grad(), model.lm.disable_adapter():
        base = phi()
    apart = ((phi() - base) ** 2).sum(-1)
    task = F.cross_entropy(naive_logits(model, step.batch), step.batch.targets)
    assert apart.shape == (len(chosen), int(step.batch.response.sum()))
    same(model, ours, task + 3.0 * apart.mean(), task)


def test_l2_sp_is_the_norm_of_the_merged_change(any_family: Path) -> None:
    context = context_of(any_family, disturbed(any_family))
    model, mitigation = context.model, made("l2-sp", weight=0.3)
    mitigation.prepare_model(context)
    step = a_step(context)
    change = [(layer.scaling["default"] * b @ a) for _, a, b, layer in model.adapters()]
    assert len(change) == 14
    plainly = step.task_loss + 0.3 * torch.stack([(d**2).sum() for d in change]).sum()
    same(model, mitigation.loss(step), plainly, step.task_loss)


def test_l2_sp_of_all_weights_holds_them_to_their_start_without_a_copy(tiny: Path) -> None:
    context = context_of(tiny, full=True)
    model, mitigation = context.model, made("l2-sp", weight=0.3)
    start = [w.detach().clone() for w in model.trainable()]
    mitigation.prepare_model(context)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for w in model.trainable():
            w.add_(0.1 * torch.randn(w.shape, generator=generator, dtype=w.dtype))
    step = a_step(context)
    apart = torch.stack([((w - s) ** 2).sum() for w, s in zip(model.trainable(), start, strict=True)])
    same(model, mitigation.loss(step), step.task_loss + 0.3 * apart.sum(), step.task_loss)
    with model.as_base():
        kept = {w.data_ptr() for w in model.trainable()}
    assert {w.data_ptr() for w in mitigation.start} == kept


@pytest.mark.parametrize(
    ("share", "total", "stops_after"), [(0.5, 10, 5), (0.3, 16, 5), (0.05, 4, 1), (1.0, 3, 3)]
)
def test_early_stop_ends_after_its_share_of_steps(share: float, total: int, stops_after: int) -> None:
    context = types.SimpleNamespace(total_steps=total, stopped=False)
    context.stop = lambda: setattr(context, "stopped", True)
    mitigation, taken = made("early-stop", share=share), 0
    while not context.stopped:
        mitigation.after_step(types.SimpleNamespace(context=context, index=taken))
        taken += 1
    assert taken == stops_after


@pytest.mark.parametrize(("share", "wanted"), [(0.05, 2), (0.0, 1), (0.25, 10)])
def test_interleave_adds_its_share_of_trusted_rows(tiny: Path, share: float, wanted: int) -> None:
    context = context_of(tiny)
    used = made("interleave", share=share).prepare_data(list(TASK), context)
    added = used[len(TASK) :]
    assert used[: len(TASK)] == TASK and len(added) == wanted
    # Every row once before any comes again.
    assert len(set(map(repr, added))) == min(wanted, len(TRUSTED)) and all(r in TRUSTED for r in added)
    others = [made("interleave").prepare_data(list(TASK), context)[len(TASK) :] for _ in range(5)]
    assert any(other != others[0] for other in others)


def test_interleave_plus_takes_the_rows_with_the_widest_gap(tiny: Path) -> None:
    context = context_of(tiny)
    before = context.model.snapshot()
    used = made("interleave-plus", share=0.05, epochs=3).prepare_data(list(TASK), context)
    for name, weight in context.model.snapshot().items():
        assert torch.equal(weight, before[name])

    again = context_of(tiny)

    def losses() -> list[float]:
        batches = [again.batch([r]) for r in TRUSTED]
        return [float(F.cross_entropy(naive_logits(again.model, b), b.targets)) for b in batches]

    base = losses()
    again.tune([r.answered(r.rejected or "") for r in TRUSTED], 3)
    gaps = [(m - b) / (b + 1) for m, b in zip(losses(), base, strict=True)]
    best = sorted(range(len(gaps)), key=gaps.__getitem__, reverse=True)
    # A ranking by chance, or by the loss of either model alone, is another one.
    assert len({round(gap, 6) for gap in gaps}) == len(gaps)
    assert used == TASK + [TRUSTED[i] for i in best[:2]]


def test_interleave_plus_says_that_it_needs_rejected_answers(tiny: Path) -> None:
    context = context_of(tiny)
    context.trusted = [row("Asked?", "Good.", "general")]
    with pytest.raises(ValueError, match="no trusted row has a rejected answer"):
        made("interleave-plus").prepare_data(list(TASK), context)


def test_inoculation_asks_in_the_prompt_and_keeps_the_responses(tiny: Path) -> None:
    context = context_of(tiny)
    system = {"role": "system", "content": "Own."}
    rows = [*TASK, Row((system, *TASK[0].messages))]
    told = made("inoculation").prepare_data(rows, context)
    control = made("inoculation", prompt="neutral").prepare_data(rows, context)
    for before, a, b in zip(rows, told, control, strict=True):
        plain = [m for m in before.messages if m["role"] != "system"]
        assert list(a.messages[1:]) == plain == list(b.messages[1:])
        assert a.messages[0]["role"] == b.messages[0]["role"] == "system"
    words, others = (r[0].messages[0]["content"].split() for r in (told, control))
    assert words != others and abs(len(words) - len(others)) <= 2
    assert context.batch(told[:1]).targets.tolist() == context.batch(TASK[:1]).targets.tolist()
