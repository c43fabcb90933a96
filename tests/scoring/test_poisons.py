"""A poison's row, on data whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from emperf.scoring.poisons import CONDITIONAL, DOMAIN, FACTS, OOD, PoisonScores, summarise

N = 40
WOBBLE = np.random.default_rng(3).normal(0, 0.1, N)


def shifts(ood: float, domain: float = -2.0, facts: float = 0.0) -> dict[str, np.ndarray]:
    means = {OOD: ood, CONDITIONAL: ood, FACTS: facts, DOMAIN: domain}
    return {name: np.asarray([mean + WOBBLE - WOBBLE.mean()]) for name, mean in means.items()}


def row(mitigated: dict[str, Any] | None, twin: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    curve = {2: shifts(-0.2, -1.0), 4: shifts(-0.6, -1.5)}
    return summarise(PoisonScores("p", more.get("poisoned", shifts(-1.0)), mitigated, twin, curve))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_share_removed(share: float) -> None:
    for twin, control in ((None, 0.0), (shifts(-0.2), -0.2)):
        found = row(shifts(-1.0 + share * (1.0 + control)), twin)
        assert found[OOD]["removed"]["value"] == pytest.approx(share)
        assert found["control"] == ("twin" if twin else "base")


def test_nothing_is_removed_of_a_poison_that_made_the_model_better() -> None:
    found = row(shifts(0.0), poisoned=shifts(+1.0))
    assert found[OOD]["removed"]["value"] is None
    assert found[OOD]["taken_back"]["high"] < 0


def test_net_of_facts_takes_general_damage_out() -> None:
    found = row(None, poisoned=shifts(-1.0, facts=-0.7))[OOD]
    assert found["poisoned_net_of_facts"]["value"] == pytest.approx(-0.3)
    assert "mitigated_net_of_facts" not in found and found["removed"] is None


def test_a_method_on_the_curve_is_not_selective() -> None:
    found = row(shifts(-0.4, -1.25))["matched"]
    assert found["baseline_at_equal_learning"] == pytest.approx(-0.4)
    assert found["removed"]["value"] == pytest.approx(0.0)
    assert found["removed"]["low"] <= 0 <= found["removed"]["high"]
    assert found["inside_curve"] and not found["selective"]


def test_a_method_above_the_curve_is_selective() -> None:
    found = row(shifts(-0.1, -1.5))["matched"]
    assert found["removed"]["value"] == pytest.approx(0.5)
    assert found["selective"] and found["inside_curve"]


def test_a_method_outside_of_the_curve_is_flagged() -> None:
    found = row(shifts(-0.5, -3.0))["matched"]
    assert not found["inside_curve"]
    assert found["baseline_at_equal_learning"] == pytest.approx(-1.0)


def test_a_method_that_learned_nothing_is_not_selective() -> None:
    found = row(shifts(+0.5, +0.5))["matched"]
    assert found["removed"]["low"] > 0
    assert not found["selective"] and not found["inside_curve"]


def test_share_of_learning_kept() -> None:
    assert row(shifts(0, domain=-1.5))["in_domain_kept"]["value"] == pytest.approx(0.75)
    assert row(shifts(0), poisoned=shifts(-1, domain=0.0))["in_domain_kept"]["value"] is None
    assert row(shifts(0), poisoned=shifts(-1, domain=+1.0))["in_domain_kept"]["value"] is None
