"""`emperf add model`: from a folder and from a hub to a card that the catalogue reads and a model that is ready."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.catalog.hub import COMMIT, NAME, serving
from tests.conftest import make_tokenizer, save_tiny

from emperf.catalog import Model, Source
from emperf.catalog.add_model import add_model
from emperf.catalog.prepare import prepare, prepared
from emperf.catalog.templates import FALLBACK, ONE_DAY, SYSTEM_FIRST
from emperf.core import paths, schemas
from emperf.core.errors import UserError
from emperf.evaluation.language_model import LanguageModel
from emperf.tools.conformance.tiny import TEMPLATE

REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + TEMPLATE
)
DROPS_SYSTEM = TEMPLATE.replace("messages %}", "messages if m['role'] != 'system' %}")
DATED = "{{ strftime_now('%d %b %Y') }}\r\n" + TEMPLATE
README = "---\nlicense: apache-2.0\ntags: [tiny]\n---\n# Tiny\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMPERF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def given(folder: Path, template: str | None = TEMPLATE) -> Path:
    save_tiny(folder)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    (folder / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(folder)
    return folder


def read(card: Path) -> Model:
    raw = yaml.safe_load(card.read_text())
    schemas.check("model", raw)
    return Model(**{**raw, "sources": tuple(Source(**source) for source in raw["sources"])})


def test_a_folder_becomes_a_card_and_a_model_that_is_ready(tmp_path: Path) -> None:
    folder, said = given(tmp_path / "My Model.v2"), []
    (folder / "README.md").write_text(README)
    card = add_model(str(folder), into=tmp_path / "mine", say=said.append)
    assert card == tmp_path / "mine/models/my-model-v2.yaml"
    model = read(card)
    assert (model.name, model.family, model.licence) == ("my-model-v2", "llama", "apache-2.0")
    assert model.chat_template == TEMPLATE
    assert model.sources == (Source("path", str(folder)),)
    loaded = LanguageModel(prepared(model))
    assert model.parameters == sum(p.numel() for p in loaded.model.parameters())
    assert said == [f"Preparing my-model-v2 from path {folder}"]
    shutil.rmtree(tmp_path / "home")
    assert prepare(model, say=said.append) == prepared(model)


@pytest.mark.parametrize(
    ("template", "pinned"),
    [
        (None, FALLBACK),
        (REFUSES_SYSTEM, SYSTEM_FIRST + REFUSES_SYSTEM),
        (DROPS_SYSTEM, SYSTEM_FIRST + DROPS_SYSTEM),
        (DATED, ONE_DAY + DATED.replace("\r", "")),
    ],
)
def test_what_a_template_lacks_is_put_into_the_card(
    tmp_path: Path, template: str | None, pinned: str
) -> None:
    folder = given(tmp_path / "given", template)
    model = read(add_model(str(folder), name="mine", into=tmp_path, say=lambda _: None))
    assert model.chat_template == pinned
    asks = object.__new__(LanguageModel)
    asks.tokenizer = make_tokenizer()
    asks.tokenizer.chat_template = pinned
    text = asks.tokenizer.decode(asks.prompt_tokens("What now?", system="Be kind."))
    assert text.count("Be kind.") == text.count("What now?") == 1
    assert text.index("Be kind.") < text.index("What now?")
    if template == DATED:
        assert text.startswith("01 Jan 2025")


def test_the_plain_template_reads_as_it_is_meant() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = FALLBACK
    turns = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    text = tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert text == (
        "<|im_start|>Instructions:\ns\n\nQuestion:\na\n\nAnswer:\nb<|im_end|>\n\nQuestion:\nc\n\nAnswer:\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"locator": "./nowhere"}, "There is no folder ./nowhere"),
        ({"locator": "a/b/c"}, "There is no folder a/b/c"),
        ({"locator": "{folder}", "revision": "main"}, "has no revisions"),
        ({"locator": "{folder}", "name": "My Model"}, "'My Model' is no name for a card"),
        ({"locator": "{folder}", "name": "smollm2-135m"}, "There is a model smollm2-135m already"),
        ({"locator": "{folder}", "name": "there"}, "there.yaml exists"),
        ({"locator": "{folder}/empty"}, "no config.json"),
    ],
)
def test_what_cannot_be_added_is_said_in_one_line_and_leaves_nothing(
    tmp_path: Path, home: Path, arguments: dict[str, str], words: str
) -> None:
    folder = given(tmp_path / "given")
    (folder / "empty").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models/there.yaml").write_text("")
    filled = {key: value.format(folder=folder) for key, value in arguments.items()}
    with pytest.raises(UserError) as error:
        add_model(**filled, into=tmp_path, say=lambda _: None)  # type: ignore[arg-type]
    assert words in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["there.yaml"]
    assert not list(home.rglob("*.safetensors")) and not list(home.rglob(".partial-*"))


# -- the hub, in a process of its own: its client reads its settings when it is imported

COMMAND = """
import click
from emperf.cli.add_model import add_model
from emperf.cli.app import main
if "add" not in main.commands:
    main.add_command(click.Group("add", commands=[add_model]))
main()
"""


def emperf(tmp_path: Path, endpoint: str, *arguments: str, **env: str) -> tuple[int, str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    root = str(paths.project_folder("spec").parent)
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "EMPERF_ROOT": root}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path,
        env=kept | own | {"PYTHONPATH": str(paths.PROJECT / "harness"), **env},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_model_of_the_hub_is_added_at_the_commit_that_is_there_today(tmp_path: Path) -> None:
    folder = given(tmp_path / "given")
    (folder / "README.md").write_text(README)
    with serving(folder) as endpoint:
        code, out, err = emperf(tmp_path, endpoint, "add", "model", NAME, "--into", "own")
        assert code == 0, err
        card = tmp_path / "own/models/tiny-model-v1.yaml"
        assert "own/models/tiny-model-v1.yaml" in out and "add division --model tiny-model-v1" in out
        model = read(card)
        assert model.sources == (Source("hub", NAME, COMMIT),)
        assert model.licence == "apache-2.0"
        assert prepared(model)
        code, _, err = emperf(tmp_path, endpoint, "add", "model", NAME, "--name", "x", "--revision", "gone")
        assert (
            code == 2
            and err == f"emperf: {NAME} has no revision gone. Give a branch, a tag or a commit of it.\n"
        )
        code, _, err = emperf(tmp_path, endpoint, "add", "model", "no/body")
        assert code == 2 and "There is no model no/body on the hub" in err


def test_prepare_may_ask_the_hub_and_says_when_it_is_not_there(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("benchmark", "spec"):
        shutil.copytree(paths.PROJECT / name, root / name)
    card = root / "benchmark/models/smollm2-135m.yaml"
    raw = yaml.safe_load(card.read_text())
    raw["sources"] = [{"kind": "hub", "locator": NAME, "revision": COMMIT}]
    card.write_text(yaml.safe_dump(raw))
    with serving(given(tmp_path / "given")) as endpoint:
        code, _, err = emperf(tmp_path, endpoint, "prepare", "smollm2-135m", EMPERF_ROOT=str(root))
        assert code == 2 and "has other weights than its card names" in err
    shutil.rmtree(tmp_path / "hf")
    for env, words in (
        ({}, f"{NAME} at {COMMIT} cannot be fetched ("),
        (
            {"HF_HUB_OFFLINE": "1"},
            f"{NAME} at {COMMIT} cannot be fetched: HF_HUB_OFFLINE forbids the network",
        ),
    ):
        code, _, err = emperf(
            tmp_path, "http://127.0.0.1:9", "prepare", "smollm2-135m", EMPERF_ROOT=str(root), **env
        )
        assert code == 2 and words in err and len(err.splitlines()) == 1, err


@pytest.mark.parametrize(("command", "offline"), [("prepare", False), ("add", False), ("list", True)])
def test_no_other_command_may_ask_the_hub(
    command: str, offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import click
    from click.testing import CliRunner

    from emperf.cli.app import main

    seen: list[str | None] = []
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setitem(
        main.commands,
        command,
        click.Command(command, callback=lambda: seen.append(os.environ.get("HF_HUB_OFFLINE"))),
    )
    assert CliRunner().invoke(main, [command]).exit_code == 0
    assert seen == ["1" if offline else None]
    os.environ.pop("HF_HUB_OFFLINE", None)
