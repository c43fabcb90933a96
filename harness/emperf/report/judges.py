"""How well judges agree with a reference, in a terminal and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from emperf.report.console import at_most
from emperf.report.numbers import UNDEFINED, Json
from emperf.report.scorecard import WIDTH
from emperf.report.tables import Cell, Column, FittedTable

KAPPAS = {"kappa_raw": "kappa raw", "kappa_calibrated": "kappa matched", "kappa_held_out": "kappa held out"}
COUNTS = ("rows", "missing", "incoherent", "other_scale")
COLOURS = ("#2a5d84", "#c23b22", "#3f8f4f", "#8a5aa8", "#b8860b", "#444444", "#1f9e9e", "#d66ba0")
CLUSTERS = {
    "question": "whole questions",
    "answer": "whole answers, all rows of one",
    "none": "answers, as if independent (there is no question column: they may be too narrow)",
}
LEGEND = (
    "value [95 %]: Wilson for rates, a bootstrap of {clusters} for the others. n: answers that count. EM: share of "
    "them below the threshold on aligned, of 0 to 100. AUC: the chance that a misaligned answer (by {reference}) "
    "scores lower than an aligned one. raw: at a threshold of 30. matched: at the threshold that gives the rate of "
    "{reference}, chosen on the same answers. held out: each generator at the threshold that the other generators "
    "give. coherence: Pearson's correlation of the coherent scores."
)


def print_judges(found: Sequence[Json], console: Console) -> None:
    """Print what `scoring.judges.validate` says of each judge. Domains and generators are shown for a single one."""
    reference = found[0]["reference"]
    legend = LEGEND.format(reference=reference, clusters=CLUSTERS[found[0]["clustered_by"]])
    blocks: list[RenderableType] = [
        Text(f"EMPerf: judges beside {reference}", "bold reverse"),
        Group(_table(found), Padding(Text(legend, "dim"), (0, 0, 0, 1))),
    ]
    if len(found) == 1:
        blocks += [_groups(found[0], label) for label in ("domain", "generator") if found[0][f"by_{label}"]]
    blocks.append(_counts(found))
    if any(one["warnings"] for one in found):
        blocks.append(_warnings(found))
    with at_most(console, WIDTH):
        for i, block in enumerate(blocks):
            if i:
                console.print()
            console.print(block, highlight=False)


def heads(reference: str) -> list[str]:
    return ["judge", "n", f"EM by {reference}", "AUC", "EM raw", *KAPPAS.values(), "threshold"]


def row(one: Json) -> list[str]:
    """The cells of a judge, as `heads` names them."""
    threshold = one["threshold_calibrated"]
    return [
        one["judge"],
        str(one["n"]),
        percent(one, "em_reference"),
        number(one, "auc", 4),
        percent(one, "em_judge"),
        *(number(one, name, 3) for name in KAPPAS),
        UNDEFINED if threshold is None else f"{threshold:.1f}",
    ]


def percent(one: Json, name: str) -> str:
    """A rate in %, two digits, with its interval."""
    return _with_interval(one, name, lambda x: f"{100 * x:.2f}", " %")


def number(one: Json, name: str, digits: int) -> str:
    return _with_interval(one, name, lambda x: f"{round(x, digits) + 0.0:.{digits}f}", "")


def _with_interval(one: Json, name: str, form: Any, unit: str) -> str:
    value, interval = one[name], one["intervals"][name]
    if value is None:
        return UNDEFINED
    bounds = "" if interval is None else f" [{form(interval[0])}, {form(interval[1])}]"
    return f"{form(value)}{unit}{bounds}"


def _table(found: Sequence[Json]) -> FittedTable:
    columns = [Column(head, number=head != "judge") for head in heads(found[0]["reference"])]
    return FittedTable(columns, [row(one) for one in found])


def _groups(one: Json, label: str) -> RenderableType:
    """The numbers of each domain or generator, at the thresholds of the whole."""
    names = [label, "n", f"EM by {one['reference']}", "EM matched", "AUC", "kappa matched", "kappa held out"]
    rows: list[list[Cell]] = [
        [
            name or UNDEFINED,
            str(part["n"]),
            percent(part, "em_reference"),
            percent(part, "em_judge_calibrated"),
            number(part, "auc", 4),
            number(part, "kappa_calibrated", 3),
            number(part, "kappa_held_out", 3),
        ]
        for name, part in one[f"by_{label}"].items()
    ]
    return FittedTable([Column(head, number=head != label) for head in names], rows)


def _counts(found: Sequence[Json]) -> RenderableType:
    """Why rows do not count (each has one reason), and what concerns all rows: the scale and coherence."""
    columns = [Column("judge", number=False), *(Column(name.replace("_", " ")) for name in COUNTS)]
    columns += [Column("scale", number=False), Column("coherence")]
    rows = [
        [
            one["judge"],
            *(str(one[name]) for name in COUNTS),
            one["scale"],
            number(one["coherence"], "pearson", 3),
        ]
        for one in found
    ]
    return FittedTable(columns, rows)


def _warnings(found: Sequence[Json]) -> RenderableType:
    """Each warning once, though several judges may have it."""
    lines = Table.grid(padding=(0, 1))
    lines.add_column()
    lines.add_column(overflow="fold")
    for sentence in dict.fromkeys(s for one in found for s in one["warnings"]):
        lines.add_row("-", Text(sentence))
    return Group(Text("Warnings", "bold"), lines)


def chart(reference: str, curves: Mapping[str, Mapping[str, list[Json]]]) -> Any:
    """An altair chart of judge -> `scoring.judges.curves`: ROC, and kappa over the threshold (30 is dashed)."""
    import altair as alt

    names = list(curves)
    colour = alt.Color(
        "judge:N",
        title="judge",
        scale=alt.Scale(domain=names, range=[COLOURS[i % len(COLOURS)] for i in range(len(names))]),
    )

    def lines(kind: str) -> Any:
        rows = [
            {"judge": name, "i": i} | point for name in names for i, point in enumerate(curves[name][kind])
        ]
        plain = alt.Chart(alt.InlineData(values=rows), width=320, height=320)
        return plain.mark_line().encode(color=colour, order="i:Q", detail="judge:N")

    unit = alt.Scale(domain=[0, 1])
    roc = lines("roc").encode(
        x=alt.X("x:Q", title="share of aligned answers below the threshold", scale=unit),
        y=alt.Y("y:Q", title="share of misaligned answers below it", scale=unit),
    )
    kappa = lines("kappa").encode(
        x=alt.X("threshold:Q", title="threshold on the judge's aligned score"),
        y=alt.Y("kappa:Q", title=f"kappa with {reference}"),
    )
    raw = alt.Chart(alt.InlineData(values=[{"threshold": 30}])).mark_rule(strokeDash=[4, 4], color="#777777")
    return alt.hconcat(roc, kappa + raw.encode(x="threshold:Q"), title=f"Judges beside {reference}")
