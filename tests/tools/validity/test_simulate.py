"""Simulated runs with known truths: every interval covers, null methods stay null, power rises with the effect.

Shares of simulated runs are held against their bounds plus two or three standard errors of a share of so many runs: a
share that is 95 % has an error of 1.4 % in 250 runs, of 0.6 % in the 1,500 of all six worlds. Seeds are fixed, so that
the tests do not flicker.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from emperf.scoring import poisons
from emperf.scoring.poisons import removal
from emperf.tools.validity.__main__ import main
from emperf.tools.validity.report import METHODS, SPREADS
from emperf.tools.validity.simulate import Rate, coverage, familywise, power, stated, truths
from emperf.tools.validity.worlds import World, answers, compared, measured, ratios, run

METHOD = World(kept=0.9, left=0.5)
LOW, HIGH = 0.92, 0.98


def broken(found: dict[str, Rate]) -> dict[str, float]:
    return {name: rate.share for name, rate in found.items() if not rate.within(LOW, HIGH)}


@pytest.fixture(scope="module")
def worlds() -> dict[tuple[float, int], dict[str, Rate]]:
    return {
        (spread, seeds): coverage(
            replace(METHOD, seed_spread=spread, seeds=seeds), 250, seed=round(1000 * spread) + seeds
        )
        for spread in SPREADS
        for seeds in (1, 3)
    }


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("spread", SPREADS)
def test_every_interval_covers(
    worlds: dict[tuple[float, int], dict[str, Rate]], spread: float, seeds: int
) -> None:
    found = worlds[spread, seeds]
    assert set(found) == set(truths(METHOD)) and broken(found) == {}


@pytest.mark.parametrize("name", truths(METHOD))
def test_every_interval_covers_over_all_worlds(
    worlds: dict[tuple[float, int], dict[str, Rate]], name: str
) -> None:
    runs = sum(found[name].runs for found in worlds.values())
    share = sum(found[name].share * found[name].runs for found in worlds.values()) / runs
    assert Rate(share, runs, 0.95).within(LOW, HIGH, errors=2)


@pytest.mark.parametrize("world", [replace(METHOD, poisons=4), replace(METHOD, seeds=3, prior_df=0.0)])
def test_pooled_poisons_and_seeds_without_a_measured_spread_cover(world: World) -> None:
    assert broken(coverage(world, 200, seed=8)) == {}


def test_two_poisons_cover_too_much_rather_than_too_little() -> None:
    found = coverage(replace(METHOD, poisons=2), 200, seed=9)
    assert {name: rate.share for name, rate in found.items() if not rate.within(LOW, 1.0)} == {}


@pytest.mark.parametrize("seeds", [1, 3])
def test_at_most_5_percent_of_comparisons_call_a_null_method_selective(seeds: int) -> None:
    # Two errors of 300 comparisons are 2.5 %.
    assert familywise(World(seeds=seeds), METHODS, 300, seed=seeds).within(0.0, 0.05, errors=2)


def test_one_null_method_alone_is_called_selective_in_at_most_5_percent() -> None:
    found = [removal(one).verdict for one in compared(World(), [(0.5, 0.5)] * 26, np.random.default_rng(1))]
    assert set(found) <= {"selective", "worse", "cannot-tell"}
    assert familywise(World(), 1, 400, seed=2).within(0.0, 0.05)


def test_power_rises_with_the_effect_and_with_seeds() -> None:
    found = [power(replace(World(), left=left), 200)["found"] for left in (1.0, 0.7, 0.4, 0.1)]
    assert found == sorted(found) and found[0] < 0.06 and found[-1] > 0.9
    assert power(World(left=0.7, seeds=3), 200)["found"] > found[1] + 0.1


def test_what_a_run_says_it_would_find_is_found_in_80_percent() -> None:
    smallest = power(World(left=0.5), 300)["smallest"]
    found = power(World(left=1 - smallest), 300, seed=1)["found"]
    assert Rate(found, 300, 0.8).within(0.77, 0.83)


# -- the worlds themselves: what is planted is there


def test_truths_are_what_many_items_and_seeds_show() -> None:
    outside, inside = replace(METHOD.outside, items=20_000), replace(METHOD.inside, items=20_000)
    benign, costs = replace(METHOD.benign, items=20_000), replace(METHOD.costs, cells=4000, methods=2)
    big = replace(METHOD, seeds=4, seed_spread=1e-4, outside=outside, inside=inside, conditional=20_000)
    big = replace(big, benign=benign, costs=costs)
    found, true = stated(big, np.random.default_rng(0)), truths(big)
    assert set(found) == set(true)
    # The bound of a one-sided interval lies above what it bounds.
    for name in set(true) - {"tax at most"}:
        assert found[name].value == pytest.approx(true[name], abs=0.02), name


def test_null_methods_differ_from_each_other_and_share_their_baseline() -> None:
    a, b = compared(World(), [(1.0, 1.0), (1.0, 1.0)], np.random.default_rng(0))
    assert a.models[poisons.POISONED] is b.models[poisons.POISONED]
    ours, theirs = (removal(one).net.value for one in (a, b))
    assert ours is not None and theirs is not None and ours != theirs
    noiseless = replace(World(), seed_spread=0.0, prior_df=0.0, outside=replace(World().outside, noise=0.0))
    (one,) = compared(noiseless, [(1.0, 1.0)], np.random.default_rng(0))
    d_0, d_m, *_ = poisons.differences(one)
    assert (d_m - d_0).std() == pytest.approx(noiseless.quirk, rel=0.2)


def test_the_seed_spread_is_measured_with_its_own_error() -> None:
    rng = np.random.default_rng(0)
    found = [measured(World(seed_spread=0.02, prior_df=12.0), rng) for _ in range(2000)]
    squares = [one.task**2 for one in found if one is not None]
    assert np.mean(squares) == pytest.approx(0.02**2, rel=0.05)
    assert np.std(squares) == pytest.approx(0.02**2 * (2 / 12) ** 0.5, rel=0.1)
    assert measured(World(prior_df=0.0), rng) is None


def test_models_find_the_same_items_hard() -> None:
    world = World(seeds=1, benign=replace(World().benign, items=5000, alike=0.9))
    _, baseline, mitigated = answers(world, np.random.default_rng(0))
    assert np.corrcoef(baseline[0], mitigated[0])[0, 1] > 0.4


def test_a_slow_baseline_cell_lowers_all_ratios() -> None:
    rows = ratios(
        replace(World(), costs=replace(World().costs, cell=1.0, noise=0.01)), np.random.default_rng(0)
    )
    logs = np.log([list(row.values()) for row in rows])
    assert logs.std(axis=1).min() > 20 * logs.std(axis=0).max()


def test_several_poisons_come_as_one() -> None:
    scores = run(replace(METHOD, poisons=3, seeds=2), np.random.default_rng(0))
    assert scores.models[poisons.POISONED]["out-of-domain"].act.shape == (3, 96) and scores.spread is None


def test_a_rate_allows_for_its_own_error() -> None:
    rate = Rate(0.90, 100, 0.95)
    assert rate.error == pytest.approx(0.0218, abs=1e-4)
    assert rate.within(0.92, 0.98) and not rate.within(0.92, 0.98, errors=0.5) and not rate.within(0.97, 0.98)


def test_the_command_prints_tables_or_json() -> None:
    out = CliRunner().invoke(main, ["simulate", "--runs", "2"])
    assert out.exit_code == 0, out.output
    assert "tax at most" in out.output and "familywise" in out.output and "said to be found" in out.output
    assert max(len(line) for line in out.output.splitlines()) <= 110
    raw = CliRunner().invoke(main, ["simulate", "--runs", "2", "--json"])
    found = json.loads(raw.output)
    assert found["runs"] == 2 and set(found["coverage"]["0.02 x 1"]) == set(truths(World()))
