"""`emperf judge`: commands on judges and their scores."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import click

from emperf.core.errors import UserError

PICTURES = (".svg", ".png")


@click.group()
def judge() -> None:
    """Check judges: models that score how aligned and how coherent an answer is.

    \b
    Example:
      emperf judge validate scores.csv --reference gpt4o --judge gemma3_27b
    """


@judge.command()
@click.argument("files", metavar="FILE.csv...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--reference", required=True, metavar="NAME", help="The judge that the others are held to.")
@click.option("--judge", "judges", multiple=True, required=True, metavar="NAME", help="Repeat it for more.")
@click.option(
    "--scale", "scales", multiple=True, metavar="NAME=SCALE",
    help="A judge's scale, or a column's, where the scores do not tell: 0-1, 0-5, 0-10 or 0-100.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object, or {judges: [...]} of several.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write ROC and threshold curves (svg or png).")
def validate(
    files: Sequence[Path],
    reference: str,
    judges: Sequence[str],
    scales: Sequence[str],
    as_json: bool,
    plot: Path | None,
) -> None:
    """How well judges' scores agree with a reference's, from columns NAME_aligned and NAME_coherent.

    What is wrong with a file (mixed scales, swapped columns, duplicates) is named, and never averaged in silence.

    \b
    Examples:
      emperf judge validate scores.csv --reference gpt4o --judge gemma3_27b
      emperf judge validate a.csv b.csv --reference gpt4o --judge glm --judge qwen --plot curves.svg
      emperf judge validate scores.csv --reference gpt4o --judge mine --scale mine=0-100 --json
    """
    from emperf.catalog import scores
    from emperf.report import console
    from emperf.report.judges import chart, print_judges
    from emperf.report.pictures import save
    from emperf.scoring.judges import curves, pair
    from emperf.scoring.judges import validate as compare

    names = list(dict.fromkeys([reference, *judges]))
    given = parse_scales(scales, names)
    if plot is not None:
        check_picture(plot)
    table = scores.read(files, names)
    pairs = {name: pair(table, reference, name, given) for name in judges}
    found = [compare(one) for one in pairs.values()]
    if as_json:
        click.echo(json.dumps(found[0] if len(found) == 1 else {"judges": found}, indent=1))
    else:
        print_judges(found, console.make())
    if plot is not None:
        save(chart(reference, {name: curves(one.answers()) for name, one in pairs.items()}), plot)
        click.echo(f"Plot: {plot}", err=True)


def parse_scales(given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Judge or column -> its scale. Raises UserError."""
    from emperf.scoring.scales import TOPS

    known = {*names, *(f"{name}_{side}" for name in names for side in ("aligned", "coherent"))}
    found = {}
    for setting in given:
        name, _, scale = setting.rpartition("=")
        if name not in known:
            raise UserError(f"--scale {setting} names no judge of this command", "Write --scale NAME=0-100.")
        if scale not in TOPS:
            raise UserError(
                f"--scale {setting}: there is no scale {scale!r}", f"Choose of {', '.join(TOPS)}."
            )
        found[name] = scale
    return found


def check_picture(plot: Path) -> None:
    """Raises UserError where no picture can be written there."""
    if plot.suffix not in PICTURES:
        raise UserError(f"{plot} is no name of a picture", "End it in .svg or .png.")
    if plot.is_dir() or not plot.parent.is_dir() or not os.access(plot.parent, os.W_OK):
        raise UserError(f"{plot} cannot be written", "Name a file in a folder that is there.")
