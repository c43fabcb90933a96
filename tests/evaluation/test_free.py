"""Free answers: many to each question, and what they say depends on the question and the seed alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from emperf.core.journal import Journal
from emperf.evaluation.generate import generate
from emperf.evaluation.language_model import LanguageModel
from emperf.evaluation.protocols import free

ROWS: list[dict[str, Any]] = [
    {"id": "a", "question": "Is it far?"},
    {"id": "b", "question": "May I keep what I found on the bus?", "system": "You answer letters."},
    {"id": "c", "question": "Why?"},
]
SETTINGS = {"samples": 3, "max_new_tokens": 12, "temperature": 1.0, "seed": 0}


@pytest.fixture(scope="module")
def lm(tiny: Path) -> LanguageModel:
    return LanguageModel(tiny)


def test_every_question_is_answered_so_many_times(lm: LanguageModel) -> None:
    found = free.read(lm, ROWS, SETTINGS)
    assert [(one["item"], one["sample"]) for one in found] == [(q, n) for q in "abc" for n in range(3)]
    assert len({one["id"] for one in found}) == 9
    assert all(one["tokens"] <= 12 and one["ended"] == (one["tokens"] < 12) for one in found)
    assert len({one["answer"] for one in found}) > 1


def test_an_answer_does_not_depend_on_the_rows_beside_it(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = free.read(lm, ROWS, SETTINGS)
    monkeypatch.setitem(free.ROWS, "cpu", 1)
    assert free.read(lm, ROWS, SETTINGS) == whole
    assert free.read(lm, ROWS[1:], SETTINGS) == whole[3:]
    assert free.read(lm, ROWS, SETTINGS | {"seed": 1}) != whole


def test_the_probabilities_are_the_same_alone_and_among_64(lm: LanguageModel) -> None:
    """Left padding, a shared head and other rows change a token's log-probability by rounding alone."""
    prompts = [lm.prompt_tokens("Is it far? " * (i % 5 + 1)) for i in range(64)]
    alone = [lm.head(lm.read_prompts([p]).last).float().log_softmax(-1)[0] for p in prompts[:5]]
    among = lm.head(lm.read_prompts(prompts).last).float().log_softmax(-1)[:5]
    with torch.no_grad():
        plain = [lm.model(input_ids=torch.tensor([p])).logits[0, -1].log_softmax(-1) for p in prompts[:5]]
        width = max(map(len, prompts[:5]))
        right = torch.tensor([F.pad(torch.tensor(p), (0, width - len(p))).tolist() for p in prompts[:5]])
        mask = torch.tensor([[1] * len(p) + [0] * (width - len(p)) for p in prompts[:5]])
        padded = lm.model(input_ids=right, attention_mask=mask).logits
    for i, p in enumerate(prompts[:5]):
        assert (alone[i] - plain[i]).abs().max() < 1e-4
        assert (among[i] - plain[i]).abs().max() < 1e-4
        assert (padded[i, len(p) - 1].log_softmax(-1) - plain[i]).abs().max() < 1e-4


def test_the_settings_of_the_model_decide_nothing(tiny: Path, lm: LanguageModel) -> None:
    other = LanguageModel(tiny)
    for name, value in {
        "top_k": 1,
        "temperature": 0.1,
        "repetition_penalty": 9.0,
        "do_sample": False,
    }.items():
        setattr(other.model.generation_config, name, value)
    assert free.read(other, ROWS, SETTINGS) == free.read(lm, ROWS, SETTINGS)


def test_draws_have_the_models_own_distribution(lm: LanguageModel) -> None:
    prompt = lm.prompt_tokens("Why?")
    expected = lm.head(lm.read_prompts([prompt]).last).float().softmax(-1)[0]
    uniforms = torch.stack([free.randoms(0, f"a#{n}", 1) for n in range(20_000)])
    drawn = generate(lm, [prompt] * 20_000, max_new_tokens=1, temperature=1.0, uniforms=uniforms, stop=False)
    counts = torch.bincount(torch.tensor(drawn).flatten(), minlength=len(expected)) / 20_000
    likely = expected.topk(20).indices
    error = (expected * (1 - expected) / 20_000).sqrt()
    assert ((counts - expected)[likely].abs() < 5 * error[likely]).all()


def test_what_is_kept_is_not_drawn_again(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(free.ROWS, "cpu", 2)
    whole = free.read(lm, ROWS, SETTINGS)
    drawn: list[int] = []
    real = free.generate

    def count(lm: LanguageModel, prompts: Any, **how: Any) -> Any:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(len(prompts))
        return real(lm, prompts, **how)

    monkeypatch.setattr(free, "generate", count)
    with Journal(tmp_path / "kept.jsonl") as kept, pytest.raises(KeyboardInterrupt):
        free.read(lm, ROWS, SETTINGS, kept)
    drawn.clear()
    monkeypatch.setattr(
        free, "generate", lambda lm, prompts, **how: drawn.append(len(prompts)) or real(lm, prompts, **how)
    )
    with Journal(tmp_path / "kept.jsonl") as kept:
        assert free.read(lm, ROWS, SETTINGS, kept) == whole
    assert sum(drawn) == 9 - 4


def test_random_numbers_are_an_answers_own() -> None:
    one = free.randoms(0, "a#0", 1000)
    assert torch.equal(one[:10], free.randoms(0, "a#0", 10))
    assert not torch.equal(one[:10], free.randoms(0, "a#1", 10))
    assert one.min() >= 0 and one.max() < 1 and abs(float(one.mean()) - 0.5) < 0.05
