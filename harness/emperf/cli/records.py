"""The commands on what an experiment left: `emperf rescore` and `emperf export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from emperf.cli.options import BENCHMARK, STORE
from emperf.core.errors import UserError

RUN = click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))


def folder_of(run: Path, store: Path) -> Path:
    """A run's folder, or the one of that id in the store. Raises UserError if there is none."""
    folder = run if run.is_dir() else store / "runs" / run
    if not folder.is_dir():
        raise UserError(f"There is no run {run}", "See emperf list runs.")
    return folder


@click.command()
@RUN
@BENCHMARK
@STORE
def rescore(run_folder: Path, store: Path) -> None:
    """Read the stored weights of RUN (a run's folder, or its id) again with today's protocols. Nothing is trained.

    \b
    Example:
      emperf rescore smoke-kl-1a2b3c4d
    """
    from emperf.experiments import rescore as again
    from emperf.report.progress import Progress

    kind, whole, folder = again.rescore(folder_of(run_folder, store), Progress())
    click.echo(f"Read again: {folder / f'{kind}.json'}. See it with: emperf report {whole['run_id']}")


FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@RUN
@click.option("--csv", "csv", type=FILE, help="Write every reading as a CSV file.")
@click.option("--parquet", type=FILE, help="Write every reading as a Parquet file.")
@click.option("--answers", type=FILE, help="Write judged answers, as FILE.csv or FILE.jsonl.")
@click.option(
    "--inspect",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write logs of Inspect into this folder.",
)
@BENCHMARK
@STORE
def export(
    run_folder: Path,
    csv: Path | None,
    parquet: Path | None,
    answers: Path | None,
    inspect: Path | None,
    store: Path,
) -> None:
    """Write what RUN read, for other programs: readings, judged answers, logs of Inspect.

    \b
    Examples:
      emperf export smoke-kl-1a2b3c4d --csv readings.csv
      emperf export smoke-kl-1a2b3c4d --parquet readings.parquet
      emperf export eval-my-adapter-1a2b3c4d --answers answers.jsonl --inspect logs
    """
    from emperf.experiments.export import frame
    from emperf.experiments.interchange import frame as judged
    from emperf.experiments.interchange import write_inspect

    if not any((csv, parquet, answers, inspect)):
        raise UserError("There is nowhere to write to", "Give --csv, --parquet, --answers or --inspect.")
    folder = folder_of(run_folder, store)
    if csv or parquet:
        found = frame(folder)
        for path in filter(None, (csv, parquet)):
            write_table(found, path, "parquet" if path is parquet else "csv")
            click.echo(f"{len(found)} readings in {path}")
    if answers is not None:
        table = judged(folder)
        write_table(table, answers, "csv" if answers.suffix == ".csv" else "jsonl")
        click.echo(f"{len(table)} judged answers in {answers}")
    if inspect is not None:
        logs = write_inspect(folder, inspect)
        click.echo(f"{len(logs)} logs in {inspect}. See them with: inspect view --log-dir {inspect}")


def write_table(table: Any, path: Path, form: str) -> None:
    """Write a data frame. Text is quoted in CSV: an answer may hold any line end."""
    from csv import QUOTE_NONNUMERIC

    from emperf.core.files import disk_errors

    with disk_errors(path.parent):
        if form == "parquet":
            table.to_parquet(path, index=False)
        elif form == "csv":
            table.to_csv(path, index=False, quoting=QUOTE_NONNUMERIC)
        else:
            table.to_json(path, orient="records", lines=True, force_ascii=False)
