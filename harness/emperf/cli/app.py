"""The `emperf` command: thin, each subcommand a few lines over the package."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from emperf.cli.add import add
from emperf.cli.evaluate import evaluate, rejudge
from emperf.cli.experiments import compare, trace, tune
from emperf.cli.judge import judge
from emperf.cli.options import BENCHMARK, RUNTIME, STORE, part
from emperf.cli.records import export, rescore
from emperf.cli.show import show
from emperf.core.errors import CellFailure, UserError
from emperf.core.version import VERSION
from emperf.report.console import replace_unknown
from emperf.runtimes.signals import end_like_interrupt, exit_code
from emperf.training.threads import wait_politely

# The commands that may ask the model hub; none of the others needs a network.
ONLINE = ("prepare", "add")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
wait_politely()


class Group(click.Group):
    """Turns what a user can cause into one line and exit code 2; Ctrl-C, SIGTERM and SIGHUP into 128 + signal."""

    def invoke(self, ctx: click.Context) -> Any:
        replace_unknown(sys.stdout)
        try:
            with end_like_interrupt():
                return super().invoke(ctx)
        except UserError as error:
            click.echo(f"emperf: {error}", err=True)
            ctx.exit(2)
        except CellFailure as error:
            click.echo(f"emperf: {error}. Nothing measured is lost: run the same command again.", err=True)
            ctx.exit(3)
        except KeyboardInterrupt as interrupt:
            # The terminal may be what has gone.
            with contextlib.suppress(OSError):
                click.echo("\nemperf: stopped. Run the same command to go on where it was.", err=True)
            ctx.exit(exit_code(interrupt))


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="emperf")
@click.pass_context
def main(context: click.Context) -> None:
    """EMPerf: does a mitigation stop emergent misalignment, what does it cost, what does it spoil?

    \b
    Examples:
      emperf doctor                      what this machine can run
      emperf prepare smollm2-135m        fetch and pin the model
      emperf run kl                      the reference mitigation in the smoke division
      emperf new my-idea                 a mitigation folder that runs as it is
      emperf check ./my-idea             does it keep the contract, does it do anything
    """
    if context.invoked_subcommand not in ONLINE:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


@main.command()
@click.argument("submission", type=click.Path(path_type=Path))
@click.option(
    "--division", default="smoke", show_default=True, help="Division to run in (emperf list divisions)."
)
@RUNTIME
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the submission.")
@click.option(
    "--cross", is_flag=True, help="Mend every poison with the antidotes for every poison (scenario cure)."
)
@part
@BENCHMARK
@STORE
def run(
    submission: Path,
    division: str,
    runtime: str,
    settings: Sequence[str],
    cross: bool,
    only: Sequence[str],
    seeds: Sequence[int],
    store: Path,
) -> None:
    """Run SUBMISSION (a folder, or a reference mitigation's name) against the baseline and print its scorecard.

    Interrupted at any moment, the same command goes on; only the cell that was running is measured again.

    \b
    Examples:
      emperf run kl
      emperf run kl --set weight=0.3
      emperf run ./my-idea --division smoke --runtime process
      emperf run antidote-correct --division nano --cross
      emperf run lisa --division nano --only bad-medical --only record-line --seed 0
    """
    from emperf import catalog
    from emperf.experiments.run import run as carry_out
    from emperf.report import console
    from emperf.report.progress import Progress
    from emperf.report.scorecard import print_scorecard

    pinned = catalog.division(division).part(only, seeds)
    result, folder = carry_out(
        pinned, submission, parse_settings(settings),
        runtime=runtime, store=store, watch=Progress(), say=click.echo, cross=cross,
    )  # fmt: skip
    print_scorecard(result, console.make(), folder)
    if result["status"] != "complete":
        sys.exit(1)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    pairs = [setting.partition("=") for setting in settings]
    wrong = next((name for name, sign, _ in pairs if not sign or not name), None)
    if wrong is not None:
        raise UserError(f"--set {wrong} has no value", "Write --set NAME=VALUE.")
    return {name: value for name, _, value in pairs}


@main.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the JSON itself.")
@BENCHMARK
@STORE
def report(run_folder: Path, as_json: bool, store: Path) -> None:
    """Print again what RUN (a run's folder, or its id) came to: a scorecard, a table, a trace or an evaluation.

    Scores are worked out again from the store; a file that says something else is named, with exit code 1.

    \b
    Examples:
      emperf report runs/runs/smoke-kl-1a2b3c4d
      emperf report smoke-kl-1a2b3c4d --json
    """
    from emperf import records
    from emperf.experiments.derive import checked, evaluation_checked, shown
    from emperf.report import console
    from emperf.report.comparison import print_comparison
    from emperf.report.evaluation import print_evaluation
    from emperf.report.scorecard import print_scorecard
    from emperf.report.tracing import print_trace
    from emperf.report.tuning import print_tuning

    folder = run_folder if run_folder.is_dir() else store / "runs" / run_folder
    kinds: dict[str, Any] = {
        "result": print_scorecard, "comparison": print_comparison, "tuning": print_tuning, "trace": print_trace,
        "evaluation": print_evaluation,
    }  # fmt: skip
    kind = records.kind_in(folder)
    found = records.read(kind, folder / f"{kind}.json")
    wrong: list[str] = []
    if kind == "evaluation":
        found, wrong = evaluation_checked(found, folder)
    elif kind != "trace":
        found, wrong = checked(kind, found, folder)
    if as_json:
        click.echo(json.dumps(found, indent=1, sort_keys=True))
    else:
        kinds[kind](found, console.make(), folder)
    if wrong:
        click.echo(
            f"emperf: {folder / f'{kind}.json'} is not what the store holds. Shown is the store's. They differ in: "
            f"{shown(wrong)}",
            err=True,
        )
        sys.exit(1)


@main.command("list")
@click.argument(
    "kind", type=click.Choice(["mitigations", "poisons", "tasks", "models", "divisions", "judges", "runs"])
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every field.")
@BENCHMARK
@STORE
def list_(kind: str, as_json: bool, store: Path) -> None:
    """List what there is of a KIND. `emperf show NAME` has all about one.

    \b
    Examples:
      emperf list mitigations
      emperf list divisions --json
    """
    from emperf.report import console
    from emperf.tools.listing import entries, print_entries

    records = entries(kind, store)
    if as_json:
        click.echo(json.dumps(records, indent=1))
    else:
        print_entries(kind, records, console.make())


@main.command()
@BENCHMARK
@click.argument("models", nargs=-1)
@click.option(
    "--from", "local", type=click.Path(path_type=Path), help="A local folder to take the model from."
)
@click.option(
    "--image", is_flag=True, help="Also build the submission base image from this Python, with no registry."
)
@click.option("--image-if-engine", is_flag=True, help="As --image, where a Docker engine answers.")
@click.option("--quiet", is_flag=True, help="Say only what is being done, not what is there.")
def prepare(
    models: Sequence[str], local: Path | None, image: bool, image_if_engine: bool, quiet: bool
) -> None:
    """Fetch, convert and pin MODELS (default: the smoke division's). Does nothing where that is done.

    \b
    Examples:
      emperf prepare
      emperf prepare smollm2-135m --from /media/copy-of-a-prepared-folder
      emperf prepare --image
    """
    from emperf import catalog
    from emperf.catalog.prepare import prepare as make_ready

    for name in models or [catalog.division("smoke").model]:
        folder = make_ready(catalog.model(name), local, click.echo)
        if not quiet:
            click.echo(f"Model {name}: {folder}")
    if image or image_if_engine:
        from emperf.runtimes.docker import engine_answers
        from emperf.runtimes.images import base_image_tag, build_local_base

        answers, why = engine_answers()
        if answers:
            built = build_local_base()
            if not quiet:
                click.echo(f"Image {base_image_tag()}: {built}")
        elif image:
            raise UserError(why, "Then run: emperf prepare --image")


@main.command()
@click.argument(
    "submissions", metavar="SUBMISSION...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--runtime", type=click.Choice(["auto", "docker", "process"]), default="auto", show_default=True
)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the submission.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; the lines go to stderr.")
def check(submissions: Sequence[Path], runtime: str, settings: Sequence[str], as_json: bool) -> None:
    """Check that SUBMISSION keeps the contract and does something, on a tiny random model; `all` is the catalogue.

    \b
    Examples:
      emperf check ./my-idea
      emperf check kl --set weight=0.3 --runtime process
      emperf check all
      emperf check ./my-idea --json
    """
    from emperf.report import console
    from emperf.tools.conformance.show import check_all, record

    lines, given = console.make(), parse_settings(settings)
    lines.stderr = as_json
    checked, used = check_all(submissions, given, runtime, lines)
    if as_json:
        click.echo(json.dumps(record(checked, given, runtime, used), indent=1, sort_keys=True))
    if not all(found["passed"] for found in checked):
        sys.exit(1)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """What this machine can run, what is missing, and how to get it.

    \b
    Examples:
      emperf doctor
      emperf doctor --json
    """
    from emperf.report import console
    from emperf.tools.doctor import as_record, checks, print_checks

    done = checks()
    if as_json:
        click.echo(json.dumps(as_record(done), indent=1))
    else:
        print_checks(done, console.make())


@main.command()
@click.argument("name")
@click.option(
    "--in", "parent", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Parent folder."
)
def new(name: str, parent: Path) -> None:
    """Make a mitigation folder NAME that runs as it is.

    \b
    Example:
      emperf new my-idea && emperf run ./my-idea
    """
    from emperf.tools.scaffold import new as make

    folder = make(name, parent)
    click.echo(f"Made {folder}. Run it: emperf run {folder}")


for command in (add, compare, evaluate, export, judge, rejudge, rescore, show, trace, tune):
    main.add_command(command)
