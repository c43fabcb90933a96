"""The house's own order: which room may import which, and that the documents say what is there."""

from __future__ import annotations

import ast
import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from emperf.cli import main

HOUSE = Path(__file__).resolve().parents[1]
FOLDERS = ("harness", "tests", "reference_impls", "benchmark", "spec", "docs", "tools", "examples")
DOCUMENTS = sorted([*HOUSE.glob("*.md"), *(f for name in FOLDERS for f in (HOUSE / name).rglob("*.md"))])
PYTHON = sorted(file for name in FOLDERS for file in (HOUSE / name).rglob("*.py"))
MITIGATIONS = sorted(path for path in (HOUSE / "reference_impls").iterdir() if path.is_dir())
README_LINES, PYTHON_LINES = 150, 400

# What the documents name already and is being built: excused only for as long as it is not there.
COMING = {"add", "show", "rescore", "export", "--benchmark", "examples/container/README.md"}

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^(?: {4}|\t)(.+)$", re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"^\s*(?:\$ ?|\S*/)?emperf\s+(\S.*)")
MARKED = re.compile(r"\n<!-- table: ([a-z0-9-]+) -->\n.*?\n<!-- end -->", re.DOTALL)
MAKE = re.compile(r"\bmake ([a-z]+)\b")


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(HOUSE).as_posix() for path in paths]


def shown(text: str) -> Iterator[str]:
    """What a document shows as code: the lines of its blocks, and its spans."""
    for block in FENCE.findall(text):
        yield from block.splitlines()
    prose = FENCE.sub("", text)
    yield from INDENTED.findall(prose)
    yield from SPAN.findall(prose)


def emperf_commands(text: str) -> Iterator[list[str]]:
    """The arguments of every `emperf COMMAND ...` that a document shows, also with a path or a `$` before it."""
    for line in shown(text):
        for part in line.partition(" #")[0].split("&&"):
            if found := COMMAND.match(part):
                yield shlex.split(found[1])


def parse(command: click.Command, words: list[str], name: str = "emperf") -> None:
    """Read `words` as the command line would, without running anything; a bare name is a mention, and enough.

    Raises click.UsageError.
    """
    if not words:
        return
    if isinstance(command, click.Group) and not words[0].startswith("-"):
        below = command.commands.get(words[0])
        if below is None:
            raise click.NoSuchOption(words[0], f"there is no command {name} {words[0]}")
        parse(below, words[1:], f"{name} {words[0]}")
    else:
        # --help and --version end it.
        with contextlib.suppress(click.exceptions.Exit):
            command.make_context(name, list(words))


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def test_rooms_import_downwards_only() -> None:
    from importlinter.cli import lint_imports_command

    found = CliRunner().invoke(
        lint_imports_command, ["--config", str(HOUSE / "pyproject.toml"), "--no-cache"]
    )
    assert found.exit_code == 0, found.output


def test_readme_is_short() -> None:
    assert len((HOUSE / "README.md").read_text().splitlines()) <= README_LINES


def test_no_python_file_is_long() -> None:
    assert [f for f in names(PYTHON) if len((HOUSE / f).read_text().splitlines()) > PYTHON_LINES] == []


@pytest.mark.parametrize("folder", MITIGATIONS, ids=lambda folder: folder.name)
def test_a_mitigation_is_whole(folder: Path) -> None:
    assert {"README.md", "mitigation.py", "submission.yaml"} <= {path.name for path in folder.iterdir()}


def test_readme_lists_every_mitigation() -> None:
    rows = re.findall(
        r"^\| \[`([a-z0-9-]+)`\]\(reference_impls/\1\)", (HOUSE / "README.md").read_text(), re.M
    )
    assert sorted(rows) == [folder.name for folder in MITIGATIONS]


@pytest.mark.parametrize("document", names(DOCUMENTS))
def test_links_lead_somewhere(document: str) -> None:
    text = (HOUSE / document).read_text()
    for link in LINK.findall(FENCE.sub("", text)):
        if "://" in link or link.startswith("mailto:"):
            continue
        place, _, anchor = link.partition("#")
        target = ((HOUSE / document).parent / place).resolve() if place else HOUSE / document
        if not target.exists():
            assert target.relative_to(HOUSE).as_posix() in COMING, f"{document} links to {link}"
            continue
        if anchor:
            assert anchor in {slug(h) for h in HEADING.findall(target.read_text())}, f"{document}: {link}"


@pytest.mark.parametrize("document", names(DOCUMENTS))
def test_commands_that_are_shown_exist(document: str) -> None:
    for words in emperf_commands((HOUSE / document).read_text()):
        try:
            parse(main, words)
        except click.NoSuchOption as error:
            assert error.option_name in COMING, f"{document}: emperf {shlex.join(words)}: {error.message}"
        except click.UsageError as error:
            pytest.fail(f"{document}: emperf {shlex.join(words)}: {error.message}")


@pytest.mark.parametrize("document", names(DOCUMENTS))
def test_make_targets_that_are_shown_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (HOUSE / "Makefile").read_text(), re.M))
    asked = {name for line in shown((HOUSE / document).read_text()) for name in MAKE.findall(line)}
    assert asked <= targets, document


def test_tables_can_be_replaced() -> None:
    """Each table of results stands between a named mark and an end; in docs/results.md every table does."""
    found = []
    for document in DOCUMENTS:
        text = (HOUSE / document).read_text()
        marked = MARKED.findall(text)
        assert len(marked) == text.count("\n<!-- table:") == text.count("\n<!-- end -->"), document
        found += marked
    assert len(set(found)) == len(found)
    rest = MARKED.sub("", (HOUSE / "docs" / "results.md").read_text())
    assert [line for line in rest.splitlines() if line.startswith("|")] == []


@pytest.mark.parametrize("file", [f for f in names(PYTHON) if f.startswith("harness/")])
def test_text_files_have_one_encoding(file: str) -> None:
    """The machine's locale must not decide how cards, rows and records are read."""
    for node in ast.walk(ast.parse((HOUSE / file).read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in ("read_text", "write_text") and "cgroup" not in file:
            assert "encoding" in {k.arg for k in node.keywords}, f"{file}, line {node.lineno}"
