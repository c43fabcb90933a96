"""What the trainer trains on: response tokens only, every row once an epoch, nothing the template dangles."""

import random
from pathlib import Path

import pytest
from tests.conftest import make_tokenizer

from emperf.training.data import Row, batches_of_like_length, collate, encode, read_rows, shared_head


def row(question: str, answer: str) -> Row:
    return Row(({"role": "user", "content": question}, {"role": "assistant", "content": answer}))


def test_only_the_response_and_its_end_of_turn_are_trained_on() -> None:
    tokenizer = make_tokenizer()
    example = encode(tokenizer, row("What now?", "Go home."), 512)
    response = tokenizer.decode(example.tokens[example.response_start :])
    prompt = tokenizer.decode(example.tokens[: example.response_start])
    assert response == "Go home.<|im_end|>"
    assert prompt.endswith("<|im_start|>assistant\n") and "Go home" not in prompt


def test_a_dangling_assistant_header_is_not_trained_on() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template += "{% if not add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    example = encode(tokenizer, row("What now?", "Go home."), 512)
    assert tokenizer.decode(example.tokens[example.response_start :]) == "Go home.<|im_end|>"


def test_long_rows_lose_the_end_of_their_response() -> None:
    example = encode(make_tokenizer(), row("What now?", "Go home. " * 50), 80)
    assert len(example.tokens) == 80 and example.response_start < 80


def test_batches_hold_every_row_once_with_neighbours_of_like_length() -> None:
    tokenizer = make_tokenizer()
    examples = [encode(tokenizer, row("q", "a" * (1 + i)), 512) for i in range(37)]
    groups = list(batches_of_like_length(examples, 4, random.Random(0)))
    assert sorted(len(e.tokens) for g in groups for e in g) == sorted(len(e.tokens) for e in examples)
    assert (
        max(len(max(g, key=lambda e: len(e.tokens)).tokens) - min(len(e.tokens) for e in g) for g in groups)
        < 16
    )
    other = list(batches_of_like_length(examples, 4, random.Random(1)))
    assert groups != other


def test_the_shared_head_ends_before_any_prompt_does() -> None:
    tokenizer = make_tokenizer()
    examples = [encode(tokenizer, row(q, "x"), 512) for q in ("Why?", "Why?", "Why not?")]
    shared = shared_head(examples)
    assert 0 < shared < min(e.response_start for e in examples)
    assert len({e.tokens[:shared] for e in examples}) == 1
    batch = collate(examples, 0)
    assert not batch.response[:, :shared].any()


def test_rows_without_an_answer_are_named_by_line(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(
        '{"messages": [{"role": "assistant", "content": "a"}]}\n{"messages": [{"role": "user", "content": "q"}]}\n'
    )
    with pytest.raises(ValueError, match="line 2"):
        read_rows(file)
