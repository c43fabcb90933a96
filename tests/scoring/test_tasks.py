"""Tax and overhead on known numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from emperf.scoring.tasks import overhead, summarise


def right(k: int, n: int = 50) -> np.ndarray:
    return np.asarray([[float(i < k) for i in range(n)]])


def test_tax_is_the_share_of_the_gain_that_is_lost() -> None:
    found = summarise("t", right(10), right(50), right(30))
    assert found["tax"]["value"] == pytest.approx(0.5)
    assert 0.3 < found["tax"]["low"] < 0.5 < found["tax"]["high"] < 0.7


def test_tax_is_undefined_where_the_baseline_gained_nothing() -> None:
    for base, baseline in ((20, 20), (40, 5)):
        assert summarise("t", right(base), right(baseline), right(5))["tax"]["value"] is None


def test_equal_answers_leave_room_for_what_fifty_items_cannot_tell() -> None:
    found = summarise("t", right(0), right(50), right(50))
    bound = 1 - 0.025 ** (1 / 50)
    assert found["base"] == {
        "value": 0.0,
        "low": 0.0,
        "high": pytest.approx(bound, abs=1e-6),
        "items": 50,
        "seeds": 1,
    }
    assert found["baseline"]["low"] == pytest.approx(1 - bound, abs=1e-6)
    assert (found["tax"]["low"], found["tax"]["high"]) == pytest.approx((-bound, bound), abs=1e-6)


def test_a_mitigated_model_that_learned_nothing_is_not_known_to_the_last_percent() -> None:
    bound = 1 - 0.025 ** (1 / 50)
    nothing = summarise("t", right(0), right(25), right(0))["tax"]
    assert (nothing["value"], nothing["high"]) == (1, 1)
    assert nothing["low"] == pytest.approx(1 - 2 * bound, abs=1e-6)
    assert summarise("t", right(5), right(25), right(5))["tax"]["high"] > 1


def test_a_task_without_a_mitigated_score() -> None:
    found = summarise("t", right(0), right(50), None)
    assert found["mitigated"] is None and found["tax"] is None


def test_overhead_is_paired_and_names_its_pairs() -> None:
    def cell(wall: float, **more: Any) -> dict[str, Any]:
        return {"wall_s": wall, "train_s": wall - 10, "peak_memory_bytes": 100, **more}

    found = overhead([(cell(20), cell(40)), (cell(100), cell(200, train_s=None, peak_memory_bytes=150))])
    assert found["time"]["value"] == pytest.approx(2.0) and found["time"]["items"] == 2
    assert found["training_time"] == {"value": 3.0, "low": None, "high": None, "items": 1, "seeds": 1}
    assert found["memory"]["value"] == pytest.approx(1.5**0.5, abs=1e-6)
    assert found["energy"]["value"] is None and found["energy"]["items"] == 0
