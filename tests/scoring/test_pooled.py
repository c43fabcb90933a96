"""Several poisons as one, and methods in ranges of ranks."""

from __future__ import annotations

import numpy as np
import pytest

from emperf.catalog.sets import CONDITIONAL, DOMAIN, FACTS, OOD
from emperf.scoring import poisons
from emperf.scoring.effects import ACT, Shifts
from emperf.scoring.poisons import (
    MITIGATED,
    MITIGATED_TWIN,
    POISONED,
    TWIN,
    Model,
    PoisonScores,
    removal,
    summarise,
)
from emperf.scoring.pooled import net_difference, pool, ranks

SIZES = {OOD: 30, CONDITIONAL: 12, FACTS: 8, DOMAIN: 20}
RANDOM = np.random.default_rng(2)
BASE = {name: RANDOM.normal(0.5, 1, n) for name, n in SIZES.items()}
NOISE = {name: RANDOM.normal(0, 0.05, n) for name, n in SIZES.items()}


def model(ood: float, domain: float, conditional: float = 0.0) -> Model:
    """Two seeds; items differ, and shrink by a slope of -0.3 at base margins that differ between poisons in context."""
    means = {OOD: ood, CONDITIONAL: ood + conditional, FACTS: 0.0, DOMAIN: domain}
    return {
        name: Shifts({ACT: np.stack([m + NOISE[name] - 0.3 * BASE[name]] * 2)}, BASE[name])
        for name, m in means.items()
    }


def poison(
    d: float, learned: float, *, left: float = 0.5, kept: float = 0.9, gap: float = 0.0
) -> PoisonScores:
    models = {
        POISONED: model(d, learned, gap), TWIN: model(0.0, 0.0),
        MITIGATED: model(left * d, kept * learned), MITIGATED_TWIN: model(0.0, 0.0),
    }  # fmt: skip
    return PoisonScores("p", models, {"sour": model(-0.1, 0.0)}, {1: models, 2: models})


def test_poisons_are_the_replicates() -> None:
    both = pool([poison(-1.0, -2.0), poison(-3.0, -2.5), poison(-1.4, -2.2)], "all")
    found = summarise(both)["beyond_twin"][OOD]["without"]
    means = np.array([-1.0, -3.0, -1.4])
    assert (found["value"], found["seeds"], found["items"]) == (pytest.approx(means.mean()), 3, 30)
    assert found["se"] == pytest.approx(means.std(ddof=1) / 3**0.5, rel=1e-3)
    assert found["df"] == pytest.approx(2, rel=1e-2) and both.spread is None


def test_seeds_of_a_poison_are_averaged_before() -> None:
    one = poison(-1.0, -2.0)
    one.models[POISONED][OOD].values[ACT][0] += 0.4
    both = pool([one, poison(-3.0, -2.5)], "all")
    assert both.models[POISONED][OOD].act.shape == (2, 30)
    assert (both.models[POISONED][OOD].act - both.models[TWIN][OOD].act).mean(1) == pytest.approx(
        [-0.8, -3.0]
    )


def test_items_that_are_a_poisons_own_are_their_mean() -> None:
    both = pool([poison(-1.0, -2.0), poison(-3.0, -2.5)], "all")
    domain = both.models[POISONED][DOMAIN]
    assert domain.act.shape == (2, 1)
    alike = NOISE[DOMAIN].mean() - 0.3 * BASE[DOMAIN].mean()
    assert domain.act[:, 0] == pytest.approx([-2.0 + alike, -2.5 + alike])


def test_pooled_shifts_stand_at_margin_zero_on_every_set() -> None:
    scores = [poison(-1.0, -2.0), poison(-3.0, -2.5)]
    found = summarise(pool(scores, "all"))["sets"]
    apart = [summarise(one)["sets"] for one in scores]
    for name in SIZES:
        values = [one[name]["poisoned"]["act"]["value"] for one in apart]
        assert found[name]["poisoned"]["act"]["value"] == pytest.approx(np.mean(values), abs=1e-6)


def test_the_pooled_gap_pairs_the_same_questions() -> None:
    scores = [poison(-1.0, -2.0, gap=-0.3), poison(-1.2, -2.5, gap=-0.5)]
    for one in scores:
        # The first question, and those that are not asked in context, are unlike the rest.
        one.models[POISONED][OOD].values[ACT][:, 0] -= 6.0
        one.models[POISONED][CONDITIONAL].values[ACT][:, 0] -= 6.0
        one.models[POISONED][OOD].values[ACT][:, SIZES[CONDITIONAL] :] -= 3.0
    found = poisons.gap(pool(scores, "all"))["without"]
    assert (found["value"], found["items"], found["seeds"]) == (pytest.approx(-0.4), 12, 2)


def test_one_poison_alone_is_itself() -> None:
    one = poison(-1.0, -2.0)
    assert pool([one], "p") is one


def test_a_model_or_a_checkpoint_that_one_lacks_is_lacking_in_all() -> None:
    short = poison(-1.0, -2.0)
    del short.models[MITIGATED], short.curve[1]
    both = pool([poison(-1.0, -2.0), short], "all")
    assert set(both.models) == {POISONED, TWIN, MITIGATED_TWIN} and set(both.curve) == {2}


def test_a_control_that_all_poisons_share_is_no_replicate() -> None:
    assert pool([poison(-1.0, -2.0), poison(-3.0, -2.5)], "all").controls == {}


def noisy(left: float) -> PoisonScores:
    """A method with noise of its own of 0.05 over items of the difference that counts."""
    made = poison(-1.0, -2.0, left=left, kept=1.0)
    for name in (OOD, DOMAIN):
        made.models[MITIGATED][name].values[ACT][:] += RANDOM.normal(0, 0.05, SIZES[name])
    return made


def test_clear_orders_have_exact_ranks() -> None:
    assert ranks([noisy(left) for left in (0.5, 0.1, 0.9)]) == [[2, 2], [1, 1], [3, 3]]


def test_methods_that_cannot_be_told_apart_share_a_range() -> None:
    assert ranks([noisy(left) for left in (0.5, 0.1, 0.5, 0.9)]) == [[2, 3], [1, 1], [2, 3], [4, 4]]


def test_a_method_without_a_net_has_no_rank() -> None:
    none = poison(-1.0, 0.0)
    assert removal(none).net.value is None
    assert ranks([noisy(0.1), none, noisy(0.9)]) == [[1, 1], None, [2, 2]]


def test_the_difference_of_two_nets() -> None:
    a, b = noisy(0.1), noisy(0.6)
    nets = [removal(one).net for one in (a, b)]
    found, back = net_difference(a, b), net_difference(b, a)
    assert found.value == pytest.approx(nets[0].value - nets[1].value)
    assert (back.value, back.se) == pytest.approx((-found.value, found.se))
    assert net_difference(a, a).se == pytest.approx(0)
