"""A tuning in a terminal: a table for each method, and what the rule chooses."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from emperf.catalog.submissions import written
from emperf.report.comparison import heads
from emperf.report.numbers import UNDEFINED, Json, nats, percent, share, times
from emperf.report.tables import Column, FittedTable

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
    "Rule R-008 chooses. Fit are settings whose learning kept reaches 50 % with its interval, and whose tax is not "
    "certainly above 50 %. Of these it takes the highest net EM (nats), where that is certainly better than "
    "the default's, else the default, which stands first. Brackets: 95 % intervals; `emperf compare` explains the "
    "columns."
)


def print_tuning(tuning: Json, console: Console, folder: Path) -> None:
    """Print `tuning` (spec/schemas/tuning.schema.json), which lies in `folder`."""
    for line in facts(tuning):
        console.print(Text(line))
    for method in tuning["methods"]:
        console.print(Text(f"\n{method['name']} ({method['scenario']})", "bold"))
        columns = [Column(head, number=head not in ("setting", "")) for head in heads(tuning, HEADS)]
        console.print(FittedTable(columns, rows(method)))
        if method["why"] in WHY:
            chosen = method["settings"][method["chosen"]]["setting"]
            console.print(Text(WHY[method["why"]].format(written(chosen))))
    console.print(Text(f"\n{LEGEND}", "dim"))
    for line in nothing(tuning):
        console.print(Text(line))
    console.print(Text(" ".join(tuning["division"]["proxy"].split()), "italic"))
    console.print(Text(f"Record: {folder / 'tuning.json'}", overflow="fold"))


def facts(tuning: Json) -> list[str]:
    """Lines above the tables: where it was run, and what is still to be tried."""
    cells = tuning["cells"]
    lines = [
        f"Tuning in {tuning['division']['name']}, model {tuning['model']}, {tuning['created'][:10]}, EMPerf "
        f"{tuning['emperf']}, runtime {tuning['runtime']['runtime']}. Poisons: {', '.join(tuning['poisons'])}. Tasks: "
        f"{', '.join(tuning['tasks']) or 'none'}. Seeds: {', '.join(map(str, tuning['seeds']))}.",
    ]
    if tuning["waiting"]:
        lines.append(
            f"{cells['done']} of {cells['planned']} cells are done. Still to be tried: {', '.join(tuning['waiting'])}. "
            "The same command goes on."
        )
    return lines


def nothing(tuning: Json) -> list[str]:
    """A line where there is nothing to tune for: that holds for all methods alike."""
    on = " and ".join(tuning["poisons"])
    return [
        words.format(on) for why, words in NOTHING.items() if any(m["why"] == why for m in tuning["methods"])
    ]


def rows(method: Json) -> list[list[str]]:
    """The cells of a method's table, in the order of its sweep."""
    return [line(one, CHOSEN if i == method["chosen"] else "") for i, one in enumerate(method["settings"])]


def line(setting: Json, mark: str) -> list[str]:
    """The cells of one setting, `mark` in the last; those of one that failed name its failures."""
    row, name = setting["row"], written(setting["setting"])
    scores, taxed, time = row["poisons"], row["tasks"], times(row["overhead"]["time"])
    if scores is None:
        kinds = sorted({failure["kind"] for failure in row["failures"]}) or ["no score"]
        return [name, f"failed: {', '.join(kinds)}", *[UNDEFINED] * 4, time, mark]
    removal, most = scores["removal"], taxed and taxed["tax_at_most"]
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
