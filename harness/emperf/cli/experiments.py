"""The commands that train many cells for one table: `emperf compare`, `tune` and `trace`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from emperf.cli.options import BENCHMARK, RUNTIME, STORE, part

MINUTES = click.option(
    "--minutes", type=float, help="Start no cell after this many minutes; the same command goes on."
)
PARALLEL = click.option(
    "--parallel",
    type=click.IntRange(min=1),
    help="Cells that train at a time; as many as the machine has room for.",
)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--division", default="nano", show_default=True, help="Division to compare in.")
@part
@click.option(
    "--sweep",
    multiple=True,
    metavar="NAME=V,V",
    help="A row for each of these values of a parameter (repeat it).",
)
@MINUTES
@PARALLEL
@RUNTIME
@BENCHMARK
@STORE
def compare(
    names: Sequence[str],
    division: str,
    only: Sequence[str],
    seeds: Sequence[int],
    sweep: Sequence[str],
    minutes: float | None,
    parallel: int | None,
    runtime: str,
    store: Path,
) -> None:
    """Compare mitigations (NAMES; default: the whole catalogue, with its controls) in one table.

    Baselines are trained once. Cells are run dataset by dataset for all methods, and the table holds what is whole for
    all of them, so it can be stopped at any moment; a method added later costs its own cells alone.

    \b
    Examples:
      emperf compare --minutes 60
      emperf compare kl lisa antidote-correct --only bad-medical --only record-line --seed 0
      emperf compare kl --sweep weight=0.01,0.1,1 --only bad-medical --only record-line --seed 0
    """
    from emperf import catalog
    from emperf.experiments import comparison
    from emperf.report import console
    from emperf.report.comparison import print_comparison
    from emperf.report.progress import Progress

    pinned = catalog.division(division).part(only, seeds)
    chosen = comparison.entries(names)
    if sweep:
        chosen = comparison.swept(chosen, sweep)
    whole, folder = comparison.compare(
        pinned, chosen,
        runtime=runtime, store=store, watch=Progress(), say=click.echo, minutes=minutes, parallel=parallel,
    )  # fmt: skip
    print_comparison(whole, console.make(), folder)


@click.command()
@click.argument("names", nargs=-1)
@click.option(
    "--division",
    default="nano-tune",
    show_default=True,
    help="Division to tune in; its poison is in no score.",
)
@MINUTES
@PARALLEL
@RUNTIME
@BENCHMARK
@STORE
def tune(
    names: Sequence[str],
    division: str,
    minutes: float | None,
    parallel: int | None,
    runtime: str,
    store: Path,
) -> None:
    """Try the settings in the sweep of mitigations (NAMES; default: all that have one), and say which is chosen.

    Rule R-008. Nothing is written into submission.yaml: that is done by hand. It can be stopped at any moment, and
    shows the methods whose settings have all been tried.

    \b
    Examples:
      emperf tune kl lisa
      emperf tune --minutes 60
    """
    from emperf import catalog
    from emperf.experiments import tune as tuning
    from emperf.report import console
    from emperf.report.progress import Progress
    from emperf.report.tuning import print_tuning

    whole, folder = tuning.tune(
        catalog.division(division), tuning.entries(names),
        runtime=runtime, store=store, watch=Progress(), say=click.echo, minutes=minutes, parallel=parallel,
    )  # fmt: skip
    print_tuning(whole, console.make(), folder)


@click.command()
@click.argument("poison")
@click.option("--division", default="nano", show_default=True, help="Division whose organism it is.")
@click.option(
    "--organism", default="rank-32", show_default=True, help="A recipe of the division's organisms."
)
@click.option(
    "--points",
    type=int,
    help="Checkpoints, the last step among them; default 8, or 4 where all weights are trained.",
)
@click.option("--seed", default=0, show_default=True)
@RUNTIME
@BENCHMARK
@STORE
def trace(
    poison: str, division: str, organism: str, points: int | None, seed: int, runtime: str, store: Path
) -> None:
    """Show when a model organism learns POISON: behaviour and weights at evenly spaced points of one training.

    \b
    Examples:
      emperf trace bad-medical
      emperf trace bad-medical --organism full --points 2
    """
    from emperf import catalog
    from emperf.execute.store import RunStore
    from emperf.experiments import session, trace
    from emperf.report import console
    from emperf.report.pictures import save
    from emperf.report.progress import Progress
    from emperf.report.tracing import chart, print_trace

    asked = catalog.division(division), poison, organism, points, seed
    chosen = session.choose_runtime(runtime, store, [trace.plan(*asked).baseline])
    planned = trace.plan(*asked, chosen.place(session.gpus_of(asked[0])))
    click.echo(f"Runtime: {chosen.runtime.name}. {chosen.why}")
    with RunStore(store, planned.run_id) as opened, Progress() as progress:
        found = trace.run(planned, opened, chosen, progress)
        drawn = chart(found)
        for name in ("trace.svg", "trace.html"):
            save(drawn, opened.folder / name)
    print_trace(found, console.make(), opened.folder)
