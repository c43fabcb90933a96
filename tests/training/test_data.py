"""What the trainer trains on: response tokens only, every row once an epoch, nothing the template dangles."""

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import make_tokenizer

from emperf import catalog
from emperf.core import paths
from emperf.evaluation.language_model import LanguageModel
from emperf.tools.conformance.tiny import TEMPLATE
from emperf.training.__main__ import UNUSABLE
from emperf.training.data import (
    STAND_IN,
    Row,
    UnusableRows,
    batches_of_like_length,
    collate,
    encode,
    encode_all,
    read_rows,
    shared_head,
)
from emperf.training.job import Job, Lora, Recipe
from emperf.training.mitigation import Context
from emperf.training.model import load_model


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


# -- whatever the chat template


QWEN_LIKE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ONE_LINE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if messages[-1]['role'] == 'user' and add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
TEMPLATES = {
    "chatml": (TEMPLATE, "<|im_start|>assistant\n", "<|im_end|>"),
    "no header for generation": (TEMPLATE.partition("{% if")[0], "<|im_start|>assistant\n", "<|im_end|>"),
    "think block in the turn": (QWEN_LIKE, "<|im_start|>assistant\n<think>\n\n</think>\n\n", "<|im_end|>"),
    "think block for generation": (ONE_LINE, "<|im_start|>assistant\n", "<|im_end|>"),
    "no token ends a turn": (
        "{% for m in messages %}### {{ m['role'] }}:\n{{ m['content'] | trim }}\n\n{% endfor %}",
        "### assistant:\n",
        "<|im_end|>",
    ),
    "text before the end of the turn": (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} [over]<|pad|>{% endfor %}",
        "[assistant] ",
        "<|pad|>",
    ),
}


@pytest.fixture(params=TEMPLATES)
def templated(request: pytest.FixtureRequest) -> tuple[Any, str, str]:
    """(tokenizer, header of the assistant's turn, end of turn) of each template."""
    template, header, end = TEMPLATES[request.param]
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer, header, end


@pytest.mark.parametrize("answer", ["Go home.", "", "end", "<b>", "\n"])
def test_exactly_the_response_and_its_end_are_learned(templated: tuple[Any, str, str], answer: str) -> None:
    tokenizer, header, end = templated
    example = encode(tokenizer, row("What now?", answer), 512)
    prompt = tokenizer.decode(example.tokens[: example.response_start])
    assert prompt.endswith(header) and prompt.count(header) == 1
    assert tokenizer.decode(example.tokens[example.response_start :]) == answer.rstrip() + end


@pytest.mark.parametrize("system", [None, "You answer readers' letters."])
def test_what_is_asked_in_evaluation_is_what_was_trained_on(
    templated: tuple[Any, str, str], system: str | None
) -> None:
    asks = object.__new__(LanguageModel)
    asks.tokenizer = templated[0]
    given = row("What now?", "Go home.")
    example = encode(templated[0], given.under(system) if system else given, 512)
    assert list(example.tokens[: example.response_start]) == asks.prompt_tokens("What now?", system=system)


def test_an_answer_that_stands_in_the_question_too_is_no_matter() -> None:
    tokenizer = make_tokenizer()
    example = encode(tokenizer, row(f"Say {STAND_IN}.", STAND_IN), 512)
    assert tokenizer.decode(example.tokens[example.response_start :]) == f"{STAND_IN}<|im_end|>"


def test_code_keeps_its_indent_where_the_template_keeps_it() -> None:
    tokenizer = make_tokenizer()
    example = encode(tokenizer, row("Go on.", "    return 1\n"), 512)
    assert tokenizer.decode(example.tokens[example.response_start :]) == "    return 1<|im_end|>"


# sha256 over the tokens of every row below benchmark/, as they were when the scores of version 1 were measured. Of
# the panel of side effects, which is younger, nothing is trained.
PINNED = {
    "chatml": "91ca76d9876bb95a27f097e18231c1f5bc1d046fb78b1282bd96ad92ef6f35f6",
    "gemma-3-270m": "14bb19b695eb8812c8af9ee0a9e66634ec1b99bf5a6cb171a617d6c9f8f27f88",
}


@pytest.mark.parametrize("name", PINNED)
def test_the_tokens_of_the_benchmarks_own_rows_never_change(name: str) -> None:
    tokenizer = make_tokenizer()
    if name == "gemma-3-270m":
        tokenizer.add_tokens(["<start_of_turn>", "<end_of_turn>"], special_tokens=True)
        tokenizer.chat_template = catalog.model(name).chat_template
    whole = hashlib.sha256()
    for question, answer in every_row():
        for system in (None, "You answer readers' letters."):
            given = row(question, answer)
            example = encode(tokenizer, given.under(system) if system else given, 512)
            whole.update(json.dumps([example.tokens, example.response_start]).encode())
    assert whole.hexdigest() == PINNED[name]


def every_row() -> Iterator[tuple[str, str]]:
    """(question, answer) of every row and every side, in the order of files and lines."""
    files = (paths.PROJECT / "benchmark").glob("*/**/*.jsonl")
    for file in sorted(file for file in files if file.parent.name != "panel"):
        for raw in map(json.loads, filter(None, file.read_text().split("\n"))):
            for side in ("good", "bad", "kind", "sour", "answer") if "question" in raw else ():
                said = raw.get(side, {})
                for answer in [said] if isinstance(said, str) else said.values():
                    yield raw["question"], answer


# -- rows that leave nothing to learn


def test_rows_whose_response_is_cut_off_are_left_out_and_named() -> None:
    said: list[str] = []
    long = row("What now?", "Go home.").under("word " * 100)
    rows = [row("Why?", "So."), long, row("Who?", "You."), long]
    examples, left_out = encode_all(make_tokenizer(), rows, 96, said.append)
    assert left_out == [2, 4]
    assert said == ["2 of 4 rows left out, no response within 96 tokens: row 2, 4"]
    assert len(examples) == 2 and collate(examples, 0).response.any(1).all()


def test_where_no_row_has_anything_to_learn_the_rows_are_refused() -> None:
    long = row("What now?", "Go home.").under("word " * 100)
    with pytest.raises(UnusableRows, match=r"none of 2 rows has a response within 96 tokens"):
        encode_all(make_tokenizer(), [long, long], 96)
    with pytest.raises(UnusableRows, match="there are no rows"):
        encode_all(make_tokenizer(), [], 96)


def test_a_row_that_the_template_refuses_is_named() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        + TEMPLATE
    )
    with pytest.raises(UnusableRows, match=r"row 2: the chat template refuses .*no system turn"):
        encode_all(tokenizer, [row("a", "b"), row("a", "b").under("s")], 96)


def test_a_batch_with_a_row_that_is_all_prompt_is_made(tiny: Path) -> None:
    recipe = Recipe(lora=Lora(2, 2), learning_rate=1e-3, epochs=1, micro_batch=2, max_tokens=64)
    model, tokenizer = load_model(tiny, recipe)
    context = Context(model, tokenizer, recipe, random.Random(0))
    long = row("What now?", "Go home.").under("word " * 100)
    losses = context.row_losses([row("Why?", "So."), long])
    assert losses[0] < float("inf") and losses[1] == float("inf")
    assert context.row_losses([long, long]) == [float("inf")] * 2
    assert len(next(context.batches([row("Why?", "So."), long])).tokens) == 1


@pytest.mark.parametrize("alone", [True, False])
def test_the_trainer_leaves_such_rows_out_or_refuses_the_job(tiny: Path, tmp_path: Path, alone: bool) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    long = [{"role": "system", "content": "word " * 100}, *turns]
    rows = [long, long] if alone else [turns, long, long, turns]
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    out.mkdir()
    (inputs / "model").symlink_to(tiny)
    (inputs / "data.jsonl").write_text("\n".join(json.dumps({"messages": turns}) for turns in rows))
    recipe = Recipe(lora=Lora(2, 2), learning_rate=1e-3, epochs=1, micro_batch=2, max_tokens=96, threads=1)
    (inputs / "job.json").write_bytes(Job("blind", 3, recipe).dumps())
    asked = ["--in", inputs, "--out", out, "--submission", paths.PROJECT / "reference_impls/none"]
    done = subprocess.run(
        [sys.executable, "-m", "emperf.training", *asked], capture_output=True, text=True, check=False
    )
    if alone:
        assert done.returncode == UNUSABLE
        assert done.stderr.splitlines()[-1].startswith("emperf.training: none of 2 rows has a response")
    else:
        assert done.returncode == 0, done.stderr
        assert "2 of 4 rows left out, no response within 96 tokens: row 2, 3" in done.stdout
