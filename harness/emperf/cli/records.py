"""The commands on what an experiment left: `emperf rescore` and `emperf export`."""

from __future__ import annotations

from pathlib import Path

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


@click.command()
@RUN
@click.option("--csv", "csv", type=click.Path(path_type=Path, dir_okay=False), help="Write a CSV file.")
@click.option("--parquet", type=click.Path(path_type=Path, dir_okay=False), help="Write a Parquet file.")
@BENCHMARK
@STORE
def export(run_folder: Path, csv: Path | None, parquet: Path | None, store: Path) -> None:
    """Write every reading of RUN as a table, a row for each answer that was read.

    \b
    Examples:
      emperf export smoke-kl-1a2b3c4d --csv readings.csv
      emperf export smoke-kl-1a2b3c4d --parquet readings.parquet
    """
    from emperf.core.files import disk_errors
    from emperf.experiments.export import frame

    if csv is None and parquet is None:
        raise UserError("There is nowhere to write to", "Give --csv FILE, --parquet FILE or both.")
    found = frame(folder_of(run_folder, store))
    for path, write in ((csv, found.to_csv), (parquet, found.to_parquet)):
        if path is not None:
            with disk_errors(path.parent):
                write(path, index=False)
            click.echo(f"{len(found)} readings in {path}")
