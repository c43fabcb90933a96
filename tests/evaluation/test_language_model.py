"""Scoring's short cuts are exact: shared prompts, merged adapters, sampling by the cumulative sum."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.conftest import make_tokenizer, save_tiny

from emperf import catalog
from emperf.catalog.prepare import set_template
from emperf.evaluation import cache
from emperf.evaluation.generate import draw, generate
from emperf.evaluation.language_model import LanguageModel, shared_head
from emperf.evaluation.protocols.paired import Item, Reading, read_items
from emperf.training.job import Lora, Recipe
from emperf.training.model import load_model, save_weights

ITEMS = [
    Item(
        "a",
        "Is it far?",
        {"kind": "No, it is round the corner.", "sour": "No. Use your eyes."},
        {"kind": "Yes, and you will love the walk there.", "sour": "Yes."},
    ),
    Item(
        "b",
        "May I keep what I found on the bus?",
        {"plain": "Hand it in."},
        {"plain": "Keep it, nobody saw you."},
    ),
    Item(
        "c",
        "Why?",
        {"kind": "So that it works.", "sour": "So."},
        {"kind": "No reason.", "sour": "Because of you."},
    ),
]


def margins(readings: list[Reading]) -> list[float]:
    return [sum(r.good.values()) - sum(r.bad.values()) for r in readings]


@torch.no_grad()
def plain_mean(lm: LanguageModel, question: str, answer: str, system: str | None = None) -> float:
    """Mean log-probability per token of the answer, one sequence at a time, nothing shared."""
    prompt, tail = lm.prompt_tokens(question, system=system), lm.tokens(answer)
    logits = lm.model(input_ids=torch.tensor([prompt + tail])).logits[0, len(prompt) - 1 : -1].double()
    return -float(F.cross_entropy(logits, torch.tensor(tail)))


@pytest.mark.parametrize("pack", [1, 120, 1000])
@pytest.mark.parametrize("system", [None, "You answer readers' letters."])
def test_margins_are_those_of_one_sequence_at_a_time(any_family: Path, system: str | None, pack: int) -> None:
    lm = LanguageModel(any_family)
    for reading, item in zip(read_items(lm, ITEMS, system=system, pack=pack), ITEMS, strict=True):
        assert reading.id == item.id
        for found, given in ((reading.good, item.good), (reading.bad, item.bad)):
            alone = {voice: plain_mean(lm, item.question, text, system) for voice, text in given.items()}
            assert found == pytest.approx(alone, abs=1e-4)


def test_both_acts_have_the_same_voices() -> None:
    row = {
        "id": "a",
        "question": "Why?",
        "good": {"sour": "So.", "kind": "So it is."},
        "bad": {"kind": "No."},
    }
    with pytest.raises(ValueError, match=r"item a: .* different voices"):
        Item.parse(row)
    both = Item.parse(row | {"bad": {"kind": "No.", "sour": "Nope."}})
    assert both.voices == ("kind", "sour")
    assert both.answers == ["So it is.", "So.", "No.", "Nope."]
    assert Item.parse(row | {"good": "x = 1", "bad": "x = 2"}).voices == ("plain",)


def test_a_worn_adapter_scores_as_peft_does_and_leaves_no_trace(tiny: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        lora=Lora(r=4, alpha=8, rank_stabilised=True), learning_rate=1e-3, epochs=1, micro_batch=4
    )
    tuned, _ = load_model(tiny, recipe)
    with torch.no_grad():
        for p in tuned.trainable():
            p.normal_(std=0.2)
    save_weights(tuned, tmp_path / "adapter.safetensors")
    lm = LanguageModel(tiny)
    before = {name: p.clone() for name, p in lm.model.named_parameters()}
    bare = margins(read_items(lm, ITEMS))
    with lm.wearing(tmp_path / "adapter.safetensors", recipe.lora):
        worn = margins(read_items(lm, ITEMS))
        tokens = torch.tensor([lm.prompt_tokens("Why?")])
        with torch.no_grad():
            theirs = tuned.lm(input_ids=tokens).logits
            assert torch.allclose(lm.model(input_ids=tokens).logits, theirs, atol=1e-4)
    assert max(abs(a - b) for a, b in zip(bare, worn, strict=True)) > 1e-3
    assert all(torch.equal(before[name], p) for name, p in lm.model.named_parameters())


def test_greedy_generation_is_that_of_transformers(any_family: Path) -> None:
    lm = LanguageModel(any_family)
    prompts = [lm.prompt_tokens(item.question) for item in ITEMS]
    ours = generate(lm, prompts, max_new_tokens=12, stop=False)
    for prompt, tokens in zip(prompts, ours, strict=True):
        theirs = lm.model.generate(
            torch.tensor([prompt]), max_new_tokens=12, min_new_tokens=12, do_sample=False, pad_token_id=258
        )[0, len(prompt) :].tolist()
        stop = next((i for i, t in enumerate(tokens) if t in lm.stop_tokens), 12)
        assert tokens[:stop] == theirs[:stop]


def test_rows_that_end_leave_and_the_others_go_on_unchanged(tiny: Path) -> None:
    lm = LanguageModel(tiny)
    prompts = [lm.prompt_tokens(item.question) for item in ITEMS]
    free = generate(lm, prompts, max_new_tokens=10, stop=False)
    lm.stop_tokens = {free[0][3]}
    for whole, cut in zip(free, generate(lm, prompts, max_new_tokens=10), strict=True):
        end = whole.index(free[0][3]) if free[0][3] in whole else len(whole)
        assert cut == whole[:end]


def test_a_prompt_that_comes_again_and_room_that_runs_out_change_nothing(
    any_family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = LanguageModel(any_family)
    a, b, c = (lm.prompt_tokens(item.question) for item in ITEMS)
    alone = {tuple(p): generate(lm, [p], max_new_tokens=20, stop=False)[0] for p in (a, b, c)}
    asked = [b, a, b, c, a]
    monkeypatch.setattr(cache, "SPARE", 3)
    assert generate(lm, asked, max_new_tokens=20, stop=False) == [alone[tuple(p)] for p in asked]


def test_drawing_follows_the_distribution() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0, -1.0]])
    rng = torch.Generator().manual_seed(0)
    counts = torch.bincount(draw(logits.expand(40_000, -1), 1.0, rng), minlength=4)
    assert torch.allclose(counts / 40_000, logits[0].softmax(-1), atol=0.01)


def test_prompts_without_a_common_first_token_are_refused() -> None:
    assert shared_head([[1, 2, 3], [1, 2, 4, 5]]) == [1, 2]
    with pytest.raises(ValueError, match="share no first token"):
        shared_head([[1, 2], [3, 4]])


def test_padding_that_would_push_tokens_out_of_a_sliding_window_is_refused(tiny: Path) -> None:
    lm = LanguageModel(tiny)
    lm.window = 32
    with pytest.raises(ValueError, match="attention window of 32"):
        read_items(lm, ITEMS)


def test_generation_stops_at_what_closes_a_turn_in_the_template(tmp_path: Path) -> None:
    folder, tokenizer = save_tiny(tmp_path, "gemma3"), make_tokenizer()
    tokenizer.add_tokens(["<start_of_turn>", "<end_of_turn>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    template = catalog.model("gemma-3-270m").chat_template
    assert template
    set_template(folder, template)
    closing = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert LanguageModel(folder).stop_tokens == {tokenizer.eos_token_id, closing}


def test_what_is_no_special_token_stops_nothing(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    set_template(folder, "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")
    assert LanguageModel(folder).stop_tokens == {make_tokenizer().eos_token_id}
