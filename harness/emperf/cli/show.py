"""`emperf show`: all about one entry of the catalogue."""

from __future__ import annotations

import json

import click

from emperf.cli.options import BENCHMARK


@click.command()
@BENCHMARK
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list, since kinds may share a name.")
def show(name: str, as_json: bool) -> None:
    """Show all about NAME: a mitigation (or its folder), a poison, a task, a model, a division or a judge.

    \b
    Examples:
      emperf show kl
      emperf show nano --json
      emperf show ./my-idea
    """
    from emperf.report import console
    from emperf.tools.describe import described, print_described

    records = described(name)
    if as_json:
        click.echo(json.dumps(records, indent=1))
        return
    out = console.make()
    for i, record in enumerate(records):
        if i:
            out.print()
        print_described(record, out)
