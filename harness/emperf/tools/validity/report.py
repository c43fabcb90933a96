"""The simulations as tables: worlds across, intervals down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from emperf.tools.validity.simulate import Rate, coverage, familywise, power
from emperf.tools.validity.worlds import World

SPREADS, SEEDS, METHODS = (0.01, 0.02, 0.03), (1, 3), 26
LEFT = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
METHOD = World(kept=0.9, left=0.5)


@dataclass(frozen=True)
class Setting:
    """A column of the tables."""

    name: str
    world: World
    seed: int


def settings() -> list[Setting]:
    found = [
        Setting(f"{spread:g} x {seeds}", replace(METHOD, seed_spread=spread, seeds=seeds), 0)
        for seeds in SEEDS
        for spread in SPREADS
    ]
    found += [
        Setting("no prior x 3", replace(METHOD, seeds=3, prior_df=0.0), 0),
        Setting("4 poisons", replace(METHOD, poisons=4), 0),
    ]
    return [replace(one, seed=number) for number, one in enumerate(found)]


def simulate(runs: int) -> dict[str, Any]:
    """Coverage of every interval, familywise false findings, and power. The last two take a fifth of the runs."""
    few = max(1, runs // 5)
    single = [one for one in settings() if one.world.poisons == 1]
    return {
        "runs": runs,
        "coverage": {one.name: shares(coverage(one.world, runs, one.seed)) for one in settings()},
        "familywise": {one.name: share(familywise(one.world, METHODS, few, one.seed)) for one in single},
        "power": {
            one.name: {
                f"{1 - left:g}": power(replace(one.world, kept=1.0, left=left), few, one.seed)
                for left in LEFT
            }
            for one in single
        },
    }


def shares(found: dict[str, Rate]) -> dict[str, dict[str, float]]:
    return {name: share(rate) for name, rate in found.items()}


def share(rate: Rate) -> dict[str, float]:
    return {"share": round(rate.share, 4), "error": round(rate.error, 4), "runs": rate.runs}


def show(found: dict[str, Any], console: Console) -> None:
    """Columns: seed spread in nats x seeds."""
    covered, false, powers = found["coverage"], found["familywise"], found["power"]
    error = max(rate["error"] for column in covered.values() for rate in column.values())
    names = list(dict.fromkeys(name for column in covered.values() for name in column))
    table = _table(f"95 % intervals that hold the truth, % of {found['runs']} runs", list(covered))
    for name in names:
        table.add_row(name, *(_percent(column.get(name), 1) for column in covered.values()))
    console.print(table)
    console.print(f"Standard error of a share that is 95 %: at most {100 * error:.1f} %.\n")
    table = _table(f"comparisons of {METHODS} null methods with a false finding, %", list(false))
    table.add_row("familywise", *(_percent(rate, 1) for rate in false.values()))
    console.print(table)
    few = next(iter(false.values()))
    console.print(f"{few['runs']} comparisons; standard error at 5 %: {100 * few['error']:.1f} %.\n")
    table = _table("runs that find a selective removal, %", list(powers))
    for removal in next(iter(powers.values())):
        table.add_row(
            f"of {removal}", *(_percent({"share": p[removal]["found"]}, 0) for p in powers.values())
        )
    table.add_row("said to be found in 80 %", *(f"{p['0.4']['smallest']:.2f}" for p in powers.values()))
    console.print(table)


def _table(title: str, columns: list[str]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold", title=title, title_justify="left")
    table.add_column("seed spread, nats x seeds")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _percent(rate: dict[str, float] | None, digits: int) -> str:
    return "\u2014" if rate is None else f"{100 * rate['share']:.{digits}f}"
