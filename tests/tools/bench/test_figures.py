"""The bench's arithmetic, on turns made up so that the ratios are plain."""

import pytest

from emperf.tools.bench import figures
from emperf.tools.bench.overhead import Pair
from emperf.tools.bench.turns import Turn, best, median_rate

PARAMETERS = {"base": 100, "head": 20, "adapter": 10}


def turns(*rates: int) -> list[Turn]:
    return [
        Turn(tokens=rate * 2, seconds=2.0, cpu_s=4.0, peak=1e6, positions=rate, heads=10) for rate in rates
    ]


def test_one_slow_turn_moves_no_rate() -> None:
    assert median_rate(turns(100, 100, 3)) == 100


def test_trl_counts_with_its_fastest_setting() -> None:
    found = {"EMPerf": turns(150, 160), "TRL, a": turns(40), "TRL, b": turns(80, 120)}
    assert best({name: found[name] for name in ("TRL, a", "TRL, b")}) == "TRL, b"
    assert figures.of_training(found, PARAMETERS)["trainer_over_trl"] == pytest.approx(1.55)


def test_shares_of_peak_count_the_plain_and_the_real_work() -> None:
    (turn,) = turns(500)
    # 500 tokens a second x (4 x 100 + 6 x 10) FLOP over 1e6 FLOP/s.
    assert figures.share_of_peak(turn, PARAMETERS) == pytest.approx(0.23)
    # Over 2 s: 500 positions x (4 x 80 + 60) + 10 heads x 4 x 20.
    assert figures.share_done(turn, PARAMETERS) == pytest.approx((500 * 380 + 800) / 2e6)


def test_sampling_is_held_against_one_at_a_time_and_the_fastest_batch() -> None:
    found = {
        "EMPerf, batch of 64": turns(240), "EMPerf, batch of 128": turns(300),
        "generate, one at a time": turns(15), "generate, batch of 8": turns(60), "generate, batch of 32": turns(100),
    }  # fmt: skip
    ratios = figures.of_sampling(found)
    assert ratios == pytest.approx({"evaluation_over_one_at_a_time": 20, "evaluation_over_best_batch": 3})


@pytest.mark.parametrize(
    ("harness_s", "expected"), [(101.0, True), (102.9, True), (103.1, False), (99.0, True), (100.0, True)]
)
def test_overhead_may_be_two_percent_and_a_second(harness_s: float, expected: bool) -> None:
    ratios = figures.of_overhead([Pair(100.0, harness_s, 0.2)])
    assert ratios["harness_overhead"] == pytest.approx((harness_s - 100) / 100)
    reached = figures.met(dict.fromkeys(figures.GOALS, 0.0) | ratios)
    assert reached["harness_overhead"] is reached["harness_overhead_s_per_cell"] is expected


def test_overhead_is_taken_within_pairs() -> None:
    pairs = [Pair(10.0, 10.4, 0.2), Pair(20.0, 20.5, 0.2), Pair(12.0, 30.0, 0.2)]
    assert figures.of_overhead(pairs)["harness_overhead_s_per_cell"] == pytest.approx(0.5)


def test_a_goal_is_met_at_its_limit() -> None:
    at_limit = {name: goal.limit for name, goal in figures.GOALS.items()}
    assert all(figures.met(at_limit).values())
    assert not figures.met({**at_limit, "trainer_over_trl": 1.49})["trainer_over_trl"]
