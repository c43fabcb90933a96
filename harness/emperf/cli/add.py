"""`emperf add`: cards of one's own."""

from __future__ import annotations

import click

from emperf.cli.add_data import add_division, add_poison, add_task
from emperf.cli.add_model import add_model


@click.group()
def add() -> None:
    """Add a model, a poison, a task or a division of your own, in a folder beside the project's cards.

    \b
    Examples:
      emperf add model OWNER/MODEL
      emperf add poison my_rows.jsonl
      emperf add division --model MODEL --poison my-rows
      emperf run kl --benchmark ./mine --division my-rows
    """


for command in (add_model, add_poison, add_task, add_division):
    add.add_command(command)
