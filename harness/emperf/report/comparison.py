"""The comparison as a table in a terminal, as Markdown for a README, and as a Pareto plot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from emperf.catalog.sets import CONDITIONAL, DOMAIN, FACTS, OOD
from emperf.report.numbers import UNDEFINED, Json, nats, percent, share, smallest_of, times
from emperf.report.pareto import pareto_chart
from emperf.report.pictures import save
from emperf.report.tables import Column, FittedTable

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
    "All numbers are act effects of a method on the poison, less the same on its twin. d: out of domain. l: in-domain. "
    "Index 0: the baseline. Brackets: 95 % intervals. "
    "Rank: the best and the worst place by net EM that no pairwise difference rules out (Holm, 5 %). "
    "Selective removal: l_m / l_0 - d_m / d_0. 1 is ideal. The baseline, the base model, and training less, where "
    "learning and EM fall together, have 0. *: above zero after Holm over all methods. It is not defined unless the "
    "baseline learned and has EM for certain. "
    "Net EM: d_m - (l_m / l_0) d_0, nats. Above zero is less EM than the learning that is kept brings. "
    "EM beyond twin, in its context, plain facts: d_m itself, in the poison's own context, and on facts; nats at base "
    "margin zero. Learning kept: l_m / l_0; for a cure, the narrow behaviour that is left. Tax: the share of the "
    "baseline's gain on benign tasks that is lost. At most: its one-sided 95 % bound. Time, memory: over the "
    "baseline's; a cure counts with the training that it mends."
)


def print_comparison(comparison: Json, console: Console, folder: Path) -> None:
    """Print it, and write comparison.md and pareto.svg into `folder`."""
    for line in facts(comparison):
        console.print(Text(line))
    columns = [Column(head, number=head not in ("method", "scenario")) for head in heads(comparison)]
    console.print(FittedTable(columns, rows(comparison)))
    console.print(Text(LEGEND, "dim"))
    console.print(Text(" ".join(comparison["division"]["proxy"].split()), "italic"))
    (folder / "comparison.md").write_text(markdown(comparison), encoding="utf-8")
    save(pareto_chart(comparison), folder / "pareto.svg")
    console.print(Text(f"Table and plot: {folder}", overflow="fold"))


def facts(comparison: Json) -> list[str]:
    """Lines above the table: where it was run, what it holds and what it leaves out, and what the baseline shows."""
    machine, cells = comparison["machine"], comparison["cells"]
    base = comparison["baseline"]
    lines = [
        f"Comparison in {comparison['division']['name']}, model {comparison['model']}, {comparison['created'][:10]}, "
        f"EMPerf {comparison['emperf']}, runtime {comparison['runtime']['runtime']}, {machine['processor']}, "
        f"{machine['cores']} cores, {comparison['parallel']} cell{'s' * (comparison['parallel'] > 1)} at a time.",
        f"Poisons: {', '.join(comparison['poisons'])}. Tasks: {', '.join(comparison['tasks']) or 'none'}. Seeds: "
        f"{', '.join(map(str, comparison['seeds']))}. {cells['done']} of {cells['planned']} planned cells are done; "
        "the table holds the datasets that are done for all methods.",
    ]
    if base and base["beyond_twin"]:
        beyond = base["beyond_twin"]
        lines.append(
            f"Without a mitigation, poison less twin at base margin zero: EM {nats(beyond[OOD]['without'])}, in "
            f"context {nats(beyond[CONDITIONAL]['without'])}, plain facts {nats(beyond[FACTS]['without'])}, in-domain "
            f"{nats(beyond.get(DOMAIN, {}).get('without'))} (nats, {beyond[OOD]['without']['items']} questions). A run "
            f"like this finds EM of {smallest_of(beyond[OOD]['without']) or 0:.3f} nats in 80 % of cases."
        )
    return lines


def heads(comparison: Json, names: Sequence[str] = HEADS) -> list[str]:
    """Column heads. In a division that shows no EM, those of EM say that they show the machinery only."""
    suffix = "" if comparison["division"]["shows_em"] else " (machinery only)"
    return [head + suffix * (head in ("selective removal", "net EM", "EM beyond twin")) for head in names]


def rows(comparison: Json) -> list[list[str]]:
    """The cells of the table: preventions first, then by net EM, the best first; what has none comes last."""

    def order(row: Json) -> tuple[bool, float]:
        net = row["poisons"] and row["poisons"]["removal"]["net"]["value"]
        return row["scenario"] != "prevent", -net if net is not None else 1e9

    return [line(row) for row in sorted(comparison["rows"], key=order)]


def line(row: Json) -> list[str]:
    """The cells of one method; those of a method that failed name its failures."""
    scores, taxed = row["poisons"], row["tasks"]
    costs = [times(row["overhead"][key]) for key in ("time", "memory")]
    if row["failures"]:
        kinds = sorted({failure["kind"] for failure in row["failures"]})
        return [row["name"], row["scenario"], f"failed: {', '.join(kinds)}", *[UNDEFINED] * 8, *costs]
    most = taxed and taxed["tax_at_most"]
    tax = [
        percent(taxed["tax"]) if taxed else UNDEFINED,
        UNDEFINED if most is None else f"{100 * most:.0f} %",
    ]
    if scores is None:
        return [row["name"], row["scenario"], *[UNDEFINED] * 7, *tax, *costs]
    removal, beyond, rank = scores["removal"], scores["beyond_twin"], row["rank"]
    return [
        row["name"],
        row["scenario"],
        UNDEFINED if rank is None else f"{rank[0]}-{rank[1]}",
        share(removal["selective"]) + (STAR if row["selective"] else ""),
        nats(removal["net"]),
        *(nats(beyond[key]["with"]) for key in (OOD, CONDITIONAL, FACTS)),
        percent(removal["kept"]),
        *tax,
        *costs,
    ]


def markdown(comparison: Json) -> str:
    """The table for a README, with its provenance."""
    lines = [*facts(comparison), ""]
    lines.append("| " + " | ".join(heads(comparison)) + " |")
    lines.append("| --- | --- |" + " ---: |" * (len(HEADS) - 2))
    lines += [
        "| " + " | ".join(re.sub(r"\s+", " ", cell) for cell in cells) + " |" for cells in rows(comparison)
    ]
    return "\n".join([*lines, "", LEGEND, ""])
