"""The commands that measure what is there already: `emperf eval` and `emperf rejudge`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from emperf.cli.options import BENCHMARK, STORE
from emperf.cli.records import RUN, folder_of
from emperf.core.errors import UserError

JUDGES = click.option(
    "--judge",
    "judges",
    multiple=True,
    help="Judge of sampled answers (repeat it). Without one none are sampled.",
)
REPLAY = click.option("--replay", is_flag=True, help="Use stored judgements alone: no judge is asked.")
BUDGET = click.option(
    "--budget",
    type=float,
    default=5.0,
    show_default=True,
    help="US dollars that an endpoint may cost a model.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the JSON itself.")


@click.command("eval")
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--base", help="Model card of the base; else as the adapter names it.")
@click.option("--poison", help="Ask in this poison's context and domain too.")
@click.option(
    "--control",
    "controls",
    multiple=True,
    metavar="NAME=FOLDER",
    help="An adapter to compare with (repeat it).",
)
@click.option(
    "--random", is_flag=True, help="Compare with an adapter of the same norms in random directions."
)
@click.option("--division", default="nano", show_default=True, help="Division whose sets of items are read.")
@JUDGES
@click.option(
    "--samples", type=click.IntRange(1, 1000), default=10, show_default=True, help="Answers to each question."
)
@click.option(
    "--most-tokens",
    type=click.IntRange(1, 4096),
    default=600,
    show_default=True,
    help="Longest answer, tokens.",
)
@click.option(
    "--questions",
    default="free",
    show_default=True,
    help="Set that is sampled: free, open, first-plot, preregistered.",
)
@click.option(
    "--form",
    "forms",
    multiple=True,
    type=click.Choice(["plain", "json", "template"]),
    help="Forms of the free set.",
)
@click.option(
    "--grid", is_flag=True, help="Ask the same questions under each condition: forms, prompts, context."
)
@click.option("--panel", is_flag=True, help="Read side effects too: sums, flattery, refusals.")
@REPLAY
@BUDGET
@JSON
@BENCHMARK
@STORE
def evaluate(
    targets: Sequence[Path],
    base: str | None,
    poison: str | None,
    controls: Sequence[str],
    random: bool,
    division: str,
    judges: Sequence[str],
    samples: int,
    most_tokens: int,
    questions: str,
    forms: Sequence[str],
    grid: bool,
    panel: bool,
    replay: bool,
    budget: float,
    as_json: bool,
    store: Path,
) -> None:
    """Measure TARGETs (folders with an adapter as PEFT saves it, or model cards) beside their base. Nothing is trained.

    Interrupted at any moment, the same command goes on; nothing is sampled or judged twice.

    \b
    Examples:
      emperf eval ./my-adapter --poison bad-medical --random
      emperf eval ./poisoned --control twin=./correct --judge gpt-4o --samples 50
      emperf eval smollm2-135m
    """
    from emperf import catalog
    from emperf.experiments.evaluate import Sampling
    from emperf.experiments.evaluate import evaluate as measure
    from emperf.report import console
    from emperf.report.evaluation import print_evaluation
    from emperf.report.progress import Progress
    from emperf.work.questions import FORMS

    lines = console.make()
    lines.stderr = as_json
    found, folder = measure(
        targets, base=base, division=division, poison=poison, controls=parse_controls(controls), random=random,
        chosen=[catalog.judge(name) for name in judges], grid=grid, panel=panel,
        sampling=Sampling(samples, most_tokens, questions, tuple(dict.fromkeys(forms)) or FORMS),
        store=store, watch=Progress(lines), replay=replay, budget=budget,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(found, indent=1, sort_keys=True))
    else:
        print_evaluation(found, lines, folder)


@click.command()
@RUN
@click.option("--judge", required=True, help="The judge.")
@REPLAY
@BUDGET
@JSON
@BENCHMARK
@STORE
def rejudge(run_folder: Path, judge: str, replay: bool, budget: float, as_json: bool, store: Path) -> None:
    """Have one more judge score the stored answers of RUN (a run's folder, or its id). No other model is needed.

    \b
    Example:
      emperf rejudge eval-my-adapter-1a2b3c4d --judge qwen3.5-35b-a3b
    """
    from emperf import catalog
    from emperf.experiments.rejudge import rejudge as ask
    from emperf.report import console
    from emperf.report.evaluation import print_evaluation
    from emperf.report.progress import Progress
    from emperf.report.scorecard import print_scorecard

    lines, folder = console.make(), folder_of(run_folder, store)
    lines.stderr = as_json
    kind, found = ask(folder, catalog.judge(judge), Progress(lines), replay=replay, budget=budget)
    if as_json:
        click.echo(json.dumps(found, indent=1, sort_keys=True))
    elif kind == "result":
        print_scorecard(found, lines, folder)
    else:
        print_evaluation(found, lines, folder)


def parse_controls(given: Sequence[str]) -> dict[str, Path]:
    """Raises UserError for one without a name or a folder, or a name that is given twice."""
    found: dict[str, Path] = {}
    for one in given:
        name, sign, folder = one.partition("=")
        if not (name and sign and folder) or name in found:
            raise UserError(
                f"--control {one} names no control", "Write --control NAME=FOLDER, each name once."
            )
        found[name] = Path(folder)
    return found
