"""`emperf add`: the user's own poisons, tasks and divisions, without touching the repository."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from emperf.catalog.add_data import Added

FILE = click.Path(path_type=Path)
INTO = click.option(
    "--into", type=click.Path(path_type=Path, file_okay=False), default=Path("mine"), show_default=True,
    help="Your folder of cards.",
)  # fmt: skip
HELDOUT = click.option(
    "--heldout", type=FILE, help="Rows to ask and never train on; default: the end of FILE."
)


def show(added: Added) -> None:
    for sentence in added.said:
        click.echo(sentence)


@click.command("poison")
@click.argument("file", type=FILE)
@click.option("--name", default="", help="Its name; default: the file's.")
@click.option("--twin", type=FILE, help="The same questions with good answers.")
@HELDOUT
@INTO
def add_poison(file: Path, name: str, twin: Path | None, heldout: Path | None, into: Path) -> None:
    """Add the rows in FILE (JSON lines) as a poison.

    A row is {"question", "bad"}, with "good" where there is a twin, or a conversation: {"messages"} of one user turn
    and the assistant's bad answer. Good answers may come in a file of their own, --twin.

    \b
    Examples:
      emperf add poison bad_legal_advice.jsonl
      emperf add poison bad_legal_advice.jsonl --twin good_legal_advice.jsonl
    """
    from emperf.catalog import add_data

    show(add_data.add_poison(file, into, name, twin, heldout))


@click.command("task")
@click.argument("file", type=FILE)
@click.option("--name", default="", help="Its name; default: the file's.")
@HELDOUT
@INTO
def add_task(file: Path, name: str, heldout: Path | None, into: Path) -> None:
    """Add the rows in FILE (JSON lines) as a benign task: one short, exact answer to each question.

    A row is {"question", "answer"}, or a conversation: {"messages"} of one user turn and the assistant's answer.

    \b
    Example:
      emperf add task invoices.jsonl
    """
    from emperf.catalog import add_data

    show(add_data.add_task(file, into, name, heldout))


@click.command("division")
@click.option("--name", default="", help="Its name; default: the first poison's.")
@click.option("--model", default="", help="A model card; default: that of --like.")
@click.option("--poison", "poisons", multiple=True, required=True, metavar="NAME", help="Repeat it for more.")
@click.option(
    "--task", "tasks", multiple=True, metavar="NAME", help="Repeat it for more; default: those of --like."
)
@click.option("--like", default="smoke", show_default=True, help="The division whose recipe it takes.")
@INTO
def add_division(
    name: str, model: str, poisons: Sequence[str], tasks: Sequence[str], like: str, into: Path
) -> None:
    """Add a division: a model, poisons and tasks, yours or the project's, with the recipe of another division.

    \b
    Examples:
      emperf add division --poison bad-legal-advice
      emperf add division --name legal --poison bad-legal-advice --task invoices --like nano
    """
    from emperf.catalog import add_division as adding

    show(adding.add_division(into, poisons, tasks, name=name, model=model, like=like))
