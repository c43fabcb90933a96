"""`python -m emperf.tools.bench [--quick]`: prints the ratios beside their goals and writes build/bench.json."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console
from rich.table import Table

from emperf import catalog
from emperf.catalog.prepare import prepared
from emperf.core.errors import CellFailure, UserError
from emperf.records.provenance import this_machine
from emperf.report.console import make
from emperf.tools.bench import figures, overhead, sampling, training
from emperf.tools.bench.turns import PEAK_SHAPE, Turn

DIVISION = "smoke"
DEFINITIONS = {
    "turn": "One contender works, the others wait; a rate is the median over its turns. `seconds` by the clock, "
    "`cpu_s` processor time, `tokens` real ones, `positions` what went through the decoder (padding included, a "
    "shared prompt head once), `heads` what went through the output head.",
    "peak": "FLOP/s of the fastest float32 product {}x{} @ {}x{} in half a second right before and right after the "
    "turn, the larger of the two.".format(*PEAK_SHAPE[:2], *PEAK_SHAPE[1:]),
    "pair": "Seconds: `bare_s` the trainer's process alone, `harness_s` the same job as a cell has it, `around_s` what "
    "of it lies outside the program's own start and exit.",
}


@dataclass(frozen=True)
class Size:
    """How much is measured. `rounds`: turns of the contenders that count; `steps`: timed steps of a training turn."""

    about: str
    steps: int
    rounds: int
    settings: list[str]
    new_tokens: int
    wide: list[int]
    batches: list[int]
    alone: int
    row_count: int
    pairs: int

    @property
    def turns(self) -> int:
        training_turns = 2 * len(self.settings) + 2 * (self.rounds - 1)
        sampling_turns = len(self.wide) + 1 + len(self.batches) + 3 * (self.rounds - 1)
        return training_turns + sampling_turns + self.pairs


FULL = Size(
    "about 13 minutes on two quiet cores", steps=3, rounds=3, settings=list(training.TRL), new_tokens=64,
    wide=[64, 128], batches=[8, 32, 64, 128], alone=3, row_count=16, pairs=8,
)  # fmt: skip
QUICK = Size(
    "quick: one turn of most, rough figures", steps=1, rounds=1, settings=["TRL, batches of 8 by length"],
    new_tokens=16, wide=[64], batches=[32], alone=1, row_count=8, pairs=1,
)  # fmt: skip


class Watch:
    """A line for each turn that is done."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._done, self._started = console, total, 0, time.monotonic()

    def turn(self, name: str, turn: Turn) -> None:
        self.say(f"{name}: {turn.rate:.0f} tokens/s")

    def pair(self, pair: overhead.Pair) -> None:
        self.say(f"trainer {pair.bare_s:.1f} s alone, {pair.harness_s:.1f} s through the harness")

    def say(self, text: str) -> None:
        self._done += 1
        spent = time.monotonic() - self._started
        line = f"[{self._done:2}/{self._total}] {spent:4.0f} s  {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="A minute or two; marked as quick in the file.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("build/bench.json"),
    show_default=True,
)
def main(quick: bool, out: Path) -> None:
    """EMPerf's trainer, sampling and harness beside TRL, transformers and the bare trainer."""
    console = make()
    try:
        result = bench(QUICK if quick else FULL, console)
    except (UserError, CellFailure) as error:
        click.echo(f"emperf.tools.bench: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("\nemperf.bench: stopped; nothing was written.", err=True)
        sys.exit(130)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    console.print(table(result))
    console.print(f"All figures with their definitions: {out}", highlight=False, soft_wrap=True)


def bench(size: Size, console: Console) -> dict[str, Any]:
    """Measure everything, in turn; the content of bench.json. Raises UserError or CellFailure."""
    division = catalog.division(DIVISION)
    model, recipe = prepared(catalog.model(division.model)), division.recipe
    needs_trl()
    threads = min(recipe.threads, len(os.sched_getaffinity(0)))
    load = [round(x, 2) for x in os.getloadavg()]
    console.print(f"Benching on {threads} threads, {size.about}.", highlight=False)
    if load[0] > 0.5:
        console.print(
            f"This machine is busy (load {load[0]}): let it rest for figures to quote.", highlight=False
        )
    watch = Watch(console, size.turns)
    parameters = training.sizes(model, recipe)
    trained = training.measure(
        model,
        recipe,
        threads=threads,
        steps=size.steps,
        rounds=size.rounds,
        settings=size.settings,
        said=watch.turn,
    )
    sampled = sampling.measure(
        model, threads=threads, new_tokens=size.new_tokens, wide=size.wide, batches=size.batches, alone=size.alone,
        rounds=size.rounds, said=watch.turn,
    )  # fmt: skip
    pairs = overhead.measure(
        model, recipe, division.limits, row_count=size.row_count, pairs=size.pairs, said=watch.pair
    )
    ratios = (
        figures.of_training(trained, parameters) | figures.of_sampling(sampled) | figures.of_overhead(pairs)
    )
    reached = figures.met(ratios)
    return {
        **ratios,
        "quick": size is QUICK,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "goals": {name: {**asdict(goal), "met": reached[name]} for name, goal in figures.GOALS.items()},
        "definitions": DEFINITIONS,
        "parameters": parameters,
        "training": figures.shown(trained, parameters),
        "sampling": figures.shown(sampled),
        "overhead": [asdict(pair) for pair in pairs],
        "size": asdict(size),
        "model": division.model,
        "threads": threads,
        "load_at_start": load,
        "machine": this_machine() | {"logical_cores": psutil.cpu_count()},
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "trl", "deepspeed")},
    }


def needs_trl() -> None:
    try:
        version("trl")
    except PackageNotFoundError:
        raise UserError("TRL is not installed", "Run: pip install 'emperf[bench]', or make bench.") from None


def table(result: dict[str, Any]) -> Table:
    found = Table(title="Quick: rough figures" if result["quick"] else None, title_justify="left")
    found.add_column("ratio")
    for heading in ("measured", "goal", ""):
        found.add_column(heading, justify="right")
    found.add_column("what it is", max_width=64)
    for name, goal in result["goals"].items():
        sign = "<=" if goal["at_most"] else ">="
        verdict = "[green]met[/]" if goal["met"] else "[yellow]not met[/]"
        found.add_row(name, f"{result[name]:.3g}", f"{sign} {goal['limit']:g}", verdict, goal["definition"])
        found.add_section()
    return found


if __name__ == "__main__":
    main()
