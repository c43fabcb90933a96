"""The comparison as a table in a terminal, as Markdown for a README, and as a Pareto plot."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emperf.report.numbers import UNDEFINED, Json, nats, percent, times
from emperf.report.pareto import pareto
from emperf.report.pictures import save
from emperf.scoring.poisons import CONDITIONAL, DOMAIN, FACTS, OOD

HEADS = (
    "method",
    "scenario",
    "EM removed",
    "at equal learning",
    "EM left in context",
    "plain facts",
    "in-domain kept",
    "tax",
    "time",
    "memory",
)
OUTSIDE = " †"
LEGEND = (
    "EM removed: (mitigated - poisoned) / (twin - poisoned) out-of-domain shift. At equal learning: mitigated EM "
    "shift less the baseline's where it had learned as much in-domain, nats; above 0 is better than training less (†: "
    "it ended outside of what the baseline had learned at any checkpoint, where the curve is held flat). EM left in "
    "context: the shift that is left when asked in the poison's own context, nats. Plain facts: the shift on a control "
    "of facts, nats. In-domain kept: mitigated over poisoned shift on the poison's own held-out questions; of a cure "
    "it is what is left of the narrow behaviour. Tax: the share of the baseline's gain on benign tasks that is lost. "
    "Time, memory: over the baseline's; a cure's with the training that it mends. All with 95 % intervals."
)


def print_comparison(whole: Json, console: Console, folder: Path) -> None:
    """Print it, and write comparison.md and pareto.svg into `folder`."""
    for line in facts(whole):
        console.print(Text(line))
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for head in HEADS:
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
    if base:
        said.append(
            f"Without a mitigation the EM shift is {nats(base[OOD]['poisoned'])}"
            + (f", of the twin {nats(base[OOD]['twin'])}" if base[OOD]["twin"] else "")
            + f"; in context {nats(base[CONDITIONAL]['poisoned'])}, plain facts {nats(base[FACTS]['poisoned'])}, "
            f"in-domain {nats(base[DOMAIN]['poisoned'])} (nats, {base[OOD]['poisoned']['items']} questions)."
        )
    return said


def rows(whole: Json) -> list[list[str]]:
    """The cells of the table, best first within a scenario; what is not defined last."""

    def rank(row: Json) -> tuple[str, float]:
        found = row["poisons"] and row["poisons"][OOD]["taken_back"]["value"]
        return row["scenario"] != "prevent", -found if found is not None else 1e9

    return [line(row) for row in sorted(whole["rows"], key=rank)]


def line(row: Json) -> list[str]:
    found, costs = row["poisons"], [times(row["overhead"][key]) for key in ("time", "memory")]
    if found is None:
        kinds = sorted({failure["kind"] for failure in row["failures"]}) or ["no score"]
        return [row["name"], row["scenario"], f"failed: {', '.join(kinds)}", *[UNDEFINED] * 5, *costs]
    return [
        row["name"],
        row["scenario"],
        percent(found[OOD]["removed"]),
        nats(found["matched"]["removed"]) + (OUTSIDE if not found["matched"]["inside_curve"] else ""),
        nats(found[CONDITIONAL]["mitigated"]),
        nats(found[FACTS]["mitigated"]),
        percent(found["in_domain_kept"]),
        percent(row["tasks"]["tax"]) if row["tasks"] else UNDEFINED,
        *costs,
    ]


def markdown(whole: Json) -> str:
    """The table for a README, with its provenance."""
    lines = [*facts(whole), ""]
    lines.append("| " + " | ".join(HEADS) + " |")
    lines.append("| --- | --- |" + " ---: |" * (len(HEADS) - 2))
    lines += ["| " + " | ".join(re.sub(r"\s+", " ", cell) for cell in cells) + " |" for cells in rows(whole)]
    return "\n".join([*lines, "", LEGEND, ""])
