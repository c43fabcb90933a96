"""`python -m emperf.tools.validity`: do the intervals hold what they say, and is there anything to measure?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console


@click.group()
def main() -> None:
    """Is the instrument true?"""


@main.command()
@click.option(
    "--runs", default=2000, show_default=True, type=click.IntRange(min=1), help="Simulated runs a world."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of tables.")
def simulate(runs: int, as_json: bool) -> None:
    """Coverage of every interval, familywise false findings, and power, in worlds with known truths."""
    from emperf.tools.validity import report

    found = report.simulate(runs)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        report.show(found, Console(width=110))


@main.command()
@click.argument("names", nargs=-1)
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1, 2), show_default=True)
@click.option("--controls/--no-controls", default=True, show_default=True, help="Train the controls as well.")
@click.option(
    "--upstream", type=click.Path(path_type=Path), help="A copy of the file that risky-finance-upstream pins."
)
@click.option("--store", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option(
    "--record",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep both tables in this folder, as JSON.",
)
def doses(
    names: Sequence[str],
    seeds: Sequence[int],
    controls: bool,
    upstream: Path | None,
    store: Path,
    record: Path | None,
) -> None:
    """Is there EM at this size? NAMES: settings, or poisons at the dose of `nano`; default: all settings."""
    from emperf.report.progress import Progress
    from emperf.tools.validity import doses, tables

    doses.with_more_poisons((store / "doses-benchmark").resolve(), upstream)
    found = {}
    for setting in doses.chosen(names, with_upstream=upstream is not None):
        click.echo(f"{setting.name}: seeds {', '.join(map(str, seeds))}")
        with Progress() as progress:
            scores = doses.run(setting, seeds, store, progress, controls=doses.CONTROLS if controls else ())
        if scores is not None:
            found[setting.name] = scores
    command = " ".join(["python -m emperf.tools.validity doses", *names])
    made = {
        "two-by-two": tables.two_by_two(found, command),
        "em-decision": tables.decision(doses.decide(found), command),
    }
    for name, table in made.items():
        click.echo(table.markdown())
        if record is not None:
            click.echo(f"Kept: {table.keep(record, name)}")


if __name__ == "__main__":
    main()
