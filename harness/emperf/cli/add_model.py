"""`emperf add model`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("model")
@click.argument("locator", metavar="HUB-ID-OR-FOLDER")
@click.option(
    "--revision", help="A branch, a tag or a commit of the hub; default: the main branch, as it is today."
)
@click.option("--name", help="The model's name; default: the last part of HUB-ID-OR-FOLDER.")
@click.option(
    "--into", type=click.Path(path_type=Path, file_okay=False), default=Path("mine"), show_default=True,
    help="Folder of your own cards.",
)  # fmt: skip
def add_model(locator: str, revision: str | None, name: str | None, into: Path) -> None:
    """Add a causal language model: fetch it, try it, make it ready, and write its card.

    The model hub is asked only here and in `emperf prepare`.

    \b
    Examples:
      emperf add model OWNER/MODEL
      emperf add model OWNER/MODEL --revision v1.0 --name my-model
      emperf add model ./folder-of-save-pretrained
    """
    from emperf.catalog.add_model import add_model as add

    card = add(locator, revision, name, into, click.echo)
    click.echo(f"Card: {card}. The model is ready.")
    click.echo(f"Next: emperf add division --model {card.stem} --poison NAME --into {into}")
