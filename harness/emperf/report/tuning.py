"""A tuning on one page of a terminal: a table a method, and what the rule chooses."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emperf.catalog.submissions import written
from emperf.report.comparison import heads
from emperf.report.numbers import UNDEFINED, Json, nats, percent, share, times

HEADS = ("setting", "net EM", "selective removal", "learning kept", "tax", "at most", "time", "")
CHOSEN = "chosen"
WRITE = "Write it into submission.yaml as the default, and first in its sweep."
WHY = {
    "better": f"{{}} is chosen: its net EM is certainly above the default's. {WRITE}",
    "default-unfit": f"{{}} is chosen: the default fails, keeps too little or costs too much. {WRITE}",
    "default": "The default stays: of no other setting is it certain that it is better and keeps the learning.",
    "none-fit": "The default stays: every setting fails, keeps less than half of the learning or loses half the task.",
    "failed": "The default stays: no setting has a score.",
}
NOTHING = {
    "no-em": "The baseline's EM on {} is not certain. There is nothing to tune for: defaults stay.",
    "nothing-learned": "It is not certain that the baseline learned {}. There is nothing to tune for: defaults stay.",
}
LEGEND = (
    "Chosen by rule R-008: the highest net EM (nats) of the settings whose learning kept reaches 50 % with its "
    "interval and whose tax is not certainly above 50 %; the default, the first, unless another is certainly better. "
    "Numbers are those of a comparison, with 95 % intervals."
)


def print_tuning(whole: Json, console: Console, folder: Path) -> None:
    """Print `whole` (spec/schemas/tuning.schema.json), which lies in `folder`."""
    for line in facts(whole):
        console.print(Text(line))
    for method in whole["methods"]:
        console.print(Text(f"\n{method['name']} ({method['scenario']})", "bold"))
        table = Table(box=None, padding=(0, 1), header_style="bold")
        for head in heads(whole, HEADS):
            named = head in ("setting", "")
            table.add_column(head, justify="left" if named else "right", no_wrap=named, overflow="fold")
        for cells in rows(method):
            table.add_row(*(Text(cell.replace(" [", "\n[")) for cell in cells))
        console.print(table)
        if method["why"] in WHY:
            chosen = method["settings"][method["chosen"]]["setting"]
            console.print(Text(WHY[method["why"]].format(written(chosen))))
    console.print(Text(f"\n{LEGEND}", "dim"))
    for line in nothing(whole):
        console.print(Text(line))
    console.print(Text(" ".join(whole["division"]["proxy"].split()), "italic"))
    console.print(Text(f"Record: {folder / 'tuning.json'}", overflow="fold"))


def facts(whole: Json) -> list[str]:
    """Where it was run, and what is missing."""
    cells = whole["cells"]
    said = [
        f"Tuning in {whole['division']['name']}, model {whole['model']}, {whole['created'][:10]}, EMPerf "
        f"{whole['emperf']}, runtime {whole['runtime']['runtime']}. Poisons: {', '.join(whole['poisons'])}. Tasks: "
        f"{', '.join(whole['tasks']) or 'none'}. Seeds: {', '.join(map(str, whole['seeds']))}.",
    ]
    if whole["waiting"]:
        said.append(
            f"{cells['done']} of {cells['planned']} cells are done. Still to be tried: {', '.join(whole['waiting'])}. "
            "The same command goes on."
        )
    return said


def nothing(whole: Json) -> list[str]:
    """One line where there is no EM to tune for, which is so for all methods."""
    on = " and ".join(whole["poisons"])
    return [
        words.format(on) for why, words in NOTHING.items() if any(m["why"] == why for m in whole["methods"])
    ]


def rows(method: Json) -> list[list[str]]:
    """The cells of a method's table, in the order of its sweep."""
    return [line(one, CHOSEN if i == method["chosen"] else "") for i, one in enumerate(method["settings"])]


def line(setting: Json, mark: str) -> list[str]:
    row, name = setting["row"], written(setting["setting"])
    found, taxed, time = row["poisons"], row["tasks"], times(row["overhead"]["time"])
    if found is None:
        kinds = sorted({failure["kind"] for failure in row["failures"]}) or ["no score"]
        return [name, f"failed: {', '.join(kinds)}", *[UNDEFINED] * 4, time, mark]
    removal, most = found["removal"], taxed and taxed["tax_at_most"]
    return [
        name,
        nats(removal["net"]),
        share(removal["selective"]),
        percent(removal["kept"]),
        percent(taxed["tax"]) if taxed else UNDEFINED,
        UNDEFINED if most is None else f"{100 * most:.0f} %",
        time,
        mark,
    ]
