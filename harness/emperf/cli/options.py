"""Options that several commands of `emperf` share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


def part(command: Any) -> Any:
    """The options that leave a part of a division."""
    only = click.option(
        "--only", multiple=True, metavar="NAME", help="These poisons and tasks alone (repeat it)."
    )
    return only(click.option("--seed", "seeds", multiple=True, type=int, help="These seeds alone.")(command))


RUNTIME = click.option(
    "--runtime", type=click.Choice(["auto", "docker", "process"]), default="auto", show_default=True
)
STORE = click.option(
    "--store", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), show_default=True,
    envvar="EMPERF_STORE", help="Where cells and runs are kept.",
)  # fmt: skip


def add_benchmark(context: click.Context, parameter: click.Parameter, folders: tuple[Path, ...]) -> None:
    """Have this process read the cards in these folders too."""
    from emperf.core.paths import add_benchmark as add

    for folder in folders:
        add(folder)


BENCHMARK = click.option(
    "--benchmark", type=click.Path(path_type=Path), multiple=True, expose_value=False,
    is_eager=True, callback=add_benchmark, help="A folder of your own cards beside the project's (see emperf add).",
)  # fmt: skip
