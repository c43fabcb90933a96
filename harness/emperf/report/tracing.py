"""A trace in a terminal, and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from emperf.report.console import at_most
from emperf.report.numbers import UNDEFINED, Json, direction, nats
from emperf.report.scorecard import WIDTH
from emperf.report.tables import Cell, Column, FittedTable, name_values

COLOURS = {"EM shift": "#c23b22", "in-domain shift": "#2a5d84"}
NAMES = {
    "in_domain": "in-domain shift", "em": "EM shift", "weight_norm": "weight norm", "rotation": "rotation",
    "gradient_norm": "gradient norm",
}  # fmt: skip
FORMS = {"weight_norm": ".4g", "rotation": "+.3f", "gradient_norm": ".3g"}
GREY = "#555555"
WIDE = 480
STYLES = {-1: "red", 0: "dim", 1: "green"}


def print_trace(trace: Json, console: Console, run_folder: Path) -> None:
    """Print `trace` (spec/schemas/trace.schema.json), whose files lie in `run_folder`."""
    proxy = " ".join(trace["division"]["proxy"].split())
    blocks: list[RenderableType] = [
        _header(trace),
        _table(trace),
        _verdict(trace),
        Text(
            f"Intervals hold the choice of questions alone, not the luck of training: one seed. {proxy}",
            "italic",
        ),
        Text(f"Everything of this run, trace.svg and trace.html too: {run_folder}", overflow="fold"),
    ]
    with at_most(console, WIDTH):
        for block in blocks:
            console.print(block, highlight=False)
            console.print()


def _header(trace: Json) -> RenderableType:
    recipe = trace["organism"]["recipe"]
    trained = f"{adapted(recipe['lora'])}; learning rate {recipe['learning_rate']:g}"
    rows = {
        "Organism": f"{trace['organism']['name']}: {trained}",
        "Division": f"{trace['division']['name']}; model {trace['model']['name']}; seed {trace['seed']}",
        "Runtime": trace["runtime"]["runtime"],
        "Run": f"{trace['run_id']}, {trace['created']}, EMPerf {trace['emperf']}",
    }
    return Group(Text(f"EMPerf: trace of {trace['poison']}", "bold reverse"), name_values(rows, "bold"))


def adapted(lora: Json | None) -> str:
    """Which weights are trained, in words."""
    if lora is None:
        return "all weights are trained"
    where = ", ".join(lora["modules"]) or "all linear weights"
    layers = f" of layers {', '.join(map(str, lora['layers']))}" if lora["layers"] else ""
    return f"LoRA of rank {lora['r']}, alpha {lora['alpha']}, on {where}{layers}"


def _table(trace: Json) -> RenderableType:
    rows: list[Sequence[Cell]] = []
    for point in trace["points"]:
        shifts = (Text(nats(point[key]), STYLES[direction(point[key]) or 0]) for key in ("in_domain", "em"))
        weights = (_number(point[key]["value"], form) for key, form in FORMS.items())
        rows.append((str(point["steps"]), *shifts, *weights))
    table = FittedTable([Column("steps"), *map(Column, NAMES.values())], rows)
    last = trace["points"][-1]
    counts = (
        f"n: {last['in_domain']['items']} in-domain and {last['em']['items']} other questions, "
        f"{last['weight_norm']['values']} values in v."
    )
    definitions = [f"{label}: {trace['definitions'][name]}." for name, label in NAMES.items()]
    caption = Text("\n".join([f"value [95 %]; {counts}", *definitions]), "dim")
    return Group(table, Padding(caption, (0, 0, 0, 1)))


def _number(value: float | None, form: str) -> str:
    return UNDEFINED if value is None else f"{value:{form}}"


def _verdict(trace: Json) -> RenderableType:
    lines = Table.grid(padding=(0, 1))
    lines.add_column()
    lines.add_column(overflow="fold")
    for sentence in sentences(trace):
        lines.add_row("-", Text(sentence))
    return Group(Text("In words", "bold"), lines)


def sentences(trace: Json) -> list[str]:
    """What was learned, when EM came fastest, and where the weights turned most.

    Nothing is claimed whose interval holds zero.
    """
    last, drop, sharpest = trace["points"][-1], trace["transition"]["drop"], trace["transition"]["turn"]
    learned = {
        -1: "The poison was learned: in-domain shift {}.",
        0: "That the poison was learned cannot be told: the in-domain shift, {}, holds zero.",
        1: "The poison was not learned: the in-domain shift, {}, goes the other way.",
    }
    lines = [learned[direction(last["in_domain"]) or 0].format(nats(last["in_domain"]))]
    span = f"steps {drop['after']} to {drop['until']}"
    draws = f"the fastest span in {100 * drop['fastest_in']:.0f} % of the bootstrap's draws"
    if drop["told"]:
        lines.append(f"EM came fastest in {span}: {nats(drop['fall'])}, {draws}.")
    elif direction(drop["fall"]) == -1:
        lines.append(f"When EM came fastest cannot be told: {span} by the mean, but that is {draws}.")
    else:
        lines.append(
            f"When EM came cannot be told: the fastest fall, {nats(drop['fall'])} in {span}, holds zero."
        )
    if sharpest is None:
        lines.append("Where the weights turned most cannot be told: they did not move.")
    else:
        where = f"step {sharpest['steps']} (rotation {sharpest['rotation']:+.3f})"
        lines.append(
            f"The weights turned most at {where}, in this one training; another seed may turn elsewhere."
        )
    return lines


def chart(trace: Json) -> Any:
    """An altair chart over the steps: shifts with their intervals, and what the weights did below them."""
    import altair as alt

    steps = alt.X("steps:Q", title="optimizer steps", axis=alt.Axis(tickMinStep=1))
    rows = [
        {"steps": point["steps"], "shift": NAMES[key], **{k: point[key][k] for k in ("value", "low", "high")}}
        for point in trace["points"]
        for key in ("in_domain", "em")
    ]
    colour = alt.Color(
        "shift:N", title=None, scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values()))
    )
    shifts = alt.Chart(alt.InlineData(values=rows), height=180, width=WIDE).encode(x=steps, color=colour)
    band = shifts.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title="nats a token [95 %]"), y2="high:Q")
    parts: list[Any] = [band + shifts.mark_line(point=True).encode(y="value:Q")]
    for key in FORMS:
        values = [{"steps": point["steps"], "value": point[key]["value"]} for point in trace["points"]]
        y = alt.Y("value:Q", title=NAMES[key], scale=alt.Scale(zero=key != "rotation"))
        plain = alt.Chart(alt.InlineData(values=values), height=90, width=WIDE)
        parts.append(plain.mark_line(point=alt.OverlayMarkDef(color=GREY), color=GREY).encode(x=steps, y=y))
    title = (
        f"{trace['organism']['name']} on {trace['poison']}, {trace['model']['name']}, seed {trace['seed']}"
    )
    return alt.vconcat(*parts, title=title).resolve_scale(x="shared")
