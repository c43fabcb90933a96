"""The comparison as a table in a terminal, as Markdown for a README, and as a Pareto plot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emperf.catalog.sets import CONDITIONAL, DOMAIN, FACTS, OOD
from emperf.report.numbers import UNDEFINED, Json, nats, percent, share, smallest_of, times
from emperf.report.pareto import pareto
from emperf.report.pictures import save

HEADS = (
    "method",
    "scenario",
    "rank",
    "selective removal",
    "net EM",
    "EM beyond twin",
    "in its context",
    "plain facts",
    "learning kept",
    "tax",
    "at most",
    "time",
    "memory",
)
STAR = " *"
LEGEND = (
    "All from act effects of a method on the poison less the same on its twin; d out of domain, l in-domain, index 0 "
    "the baseline. Selective removal: l_m / l_0 - d_m / d_0, 1 is ideal, 0 the baseline, the base model, and training "
    "less where learning and EM fall together (*: above zero after Holm over all methods); not defined unless the "
    "baseline learned and has EM for certain. Net EM: "
    "d_m - (l_m / l_0) d_0, nats, above zero is less EM than its share of the learning brings. Rank: best and worst by "
    "net EM that no pairwise difference rules out (Holm, 5 %). EM beyond twin, in its context, plain facts: d_m "
    "plainly, in the poison's own context, and on facts, nats at base margin zero. Learning kept: l_m / l_0; of a "
    "cure, the narrow behaviour that is left. Tax: the share of the baseline's gain on benign tasks that is lost; at "
    "most: one-sided 95 %. Time, memory: over the baseline's; a cure's with the training that it mends. All with 95 % "
    "intervals."
)


def print_comparison(whole: Json, console: Console, folder: Path) -> None:
    """Print it, and write comparison.md and pareto.svg into `folder`."""
    for line in facts(whole):
        console.print(Text(line))
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for head in heads(whole):
        table.add_column(head, justify="left" if head in ("method", "scenario") else "right")
    for cells in rows(whole):
        table.add_row(*(Text(cell.replace(" [", "\n[")) for cell in cells))
    console.print(table)
    console.print(Text(LEGEND, "dim"))
    console.print(Text(" ".join(whole["division"]["proxy"].split()), "italic"))
    (folder / "comparison.md").write_text(markdown(whole))
    save(pareto(whole), folder / "pareto.svg")
    console.print(Text(f"Table and plot: {folder}", overflow="fold"))


def facts(whole: Json) -> list[str]:
    """What the table holds, and what it leaves out."""
    machine, cells = whole["machine"], whole["cells"]
    base = whole["baseline"]
    said = [
        f"Comparison in {whole['division']['name']}, model {whole['model']}, {whole['created'][:10]}, "
        f"EMPerf {whole['emperf']}, runtime {whole['runtime']['runtime']}, {machine['processor']}, "
        f"{machine['cores']} cores, {whole['parallel']} cell{'s' * (whole['parallel'] > 1)} at a time.",
        f"Poisons: {', '.join(whole['poisons'])}. Tasks: {', '.join(whole['tasks']) or 'none'}. Seeds: "
        f"{', '.join(map(str, whole['seeds']))}. {cells['done']} of {cells['planned']} planned cells are done; the "
        "table holds what is whole for all methods.",
    ]
    if base and base["beyond_twin"]:
        beyond = base["beyond_twin"]
        said.append(
            f"Without a mitigation, poison less twin at base margin zero: EM {nats(beyond[OOD]['without'])}, in "
            f"context {nats(beyond[CONDITIONAL]['without'])}, plain facts {nats(beyond[FACTS]['without'])}, in-domain "
            f"{nats(beyond[DOMAIN]['without'])} (nats, {beyond[OOD]['without']['items']} questions). A run like this "
            f"finds EM of {smallest_of(beyond[OOD]['without']) or 0:.3f} nats in 80 % of cases."
        )
    return said


def heads(whole: Json, names: Sequence[str] = HEADS) -> list[str]:
    """What is EM only in name is called so."""
    named = "" if whole["division"]["shows_em"] else " (machinery only)"
    return [head + named * (head in ("selective removal", "net EM", "EM beyond twin")) for head in names]


def rows(whole: Json) -> list[list[str]]:
    """The cells of the table, best first within a scenario; what is not defined last."""

    def order(row: Json) -> tuple[bool, float]:
        found = row["poisons"] and row["poisons"]["removal"]["net"]["value"]
        return row["scenario"] != "prevent", -found if found is not None else 1e9

    return [line(row) for row in sorted(whole["rows"], key=order)]


def line(row: Json) -> list[str]:
    found, costs = row["poisons"], [times(row["overhead"][key]) for key in ("time", "memory")]
    if found is None:
        kinds = sorted({failure["kind"] for failure in row["failures"]}) or ["no score"]
        return [row["name"], row["scenario"], f"failed: {', '.join(kinds)}", *[UNDEFINED] * 8, *costs]
    removal, beyond, rank, taxed = found["removal"], found["beyond_twin"], row["rank"], row["tasks"]
    most = taxed and taxed["tax_at_most"]
    return [
        row["name"],
        row["scenario"],
        UNDEFINED if rank is None else f"{rank[0]}-{rank[1]}",
        share(removal["selective"]) + (STAR if row["selective"] else ""),
        nats(removal["net"]),
        *(nats(beyond[key]["with"]) for key in (OOD, CONDITIONAL, FACTS)),
        percent(removal["kept"]),
        percent(taxed["tax"]) if taxed else UNDEFINED,
        UNDEFINED if most is None else f"{100 * most:.0f} %",
        *costs,
    ]


def markdown(whole: Json) -> str:
    """The table for a README, with its provenance."""
    lines = [*facts(whole), ""]
    lines.append("| " + " | ".join(heads(whole)) + " |")
    lines.append("| --- | --- |" + " ---: |" * (len(HEADS) - 2))
    lines += ["| " + " | ".join(re.sub(r"\s+", " ", cell) for cell in cells) + " |" for cells in rows(whole)]
    return "\n".join([*lines, "", LEGEND, ""])
