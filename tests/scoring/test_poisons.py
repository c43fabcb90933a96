"""A poison's entry, on data whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from emperf.catalog import SeedSpread
from emperf.catalog.sets import CONDITIONAL, DOMAIN, FACTS, OOD, SETS
from emperf.scoring import poisons
from emperf.scoring.effects import ACT, EFFECTS, INTERACTION, VOICE, Shifts
from emperf.scoring.poisons import Model, PoisonScores, removal, summarise
from emperf.scoring.removal import Removal

N, SEEDS = 40, 2
RANDOM = np.random.default_rng(3)
SPREAD = SeedSpread(12.0, {e: dict.fromkeys(SETS, 0.02) for e in EFFECTS}, 0.02, 12.0)
BASE = {name: RANDOM.normal(0.5, 1, N) for name in SETS}


def unrelated(noise: Any, base: Any) -> Any:
    """Noise [seeds, items] of mean zero without a slope on the base margin; seeds differ by a constant."""
    design = np.stack([np.ones(N), base])
    rest = noise - noise @ np.linalg.pinv(design) @ design
    return rest + np.array([[0.01], [-0.01]])


NOISE = {name: unrelated(RANDOM.normal(0, 0.1, (SEEDS, N)), base) for name, base in BASE.items()}


def model(
    ood: float, domain: float, *, more: float = 0.0, noise: bool = True, conditional: float = 0.0
) -> Model:
    """Shifts of these means. `conditional`: beyond `ood`; `more`: what every training does, to every item its own."""
    means = {OOD: ood, CONDITIONAL: ood + conditional, FACTS: 0.0, DOMAIN: domain}
    return {
        name: Shifts({ACT: mean + more * BASE[name] + noise * (NOISE[name] - NOISE[name].mean())}, BASE[name])
        for name, mean in means.items()
    }


POISON = model(-1.0, -2.0, more=-0.3)
TWIN = model(0.2, 1.0, more=-0.3, noise=False)


def scores(mitigated: Model | None, mitigated_twin: Model | None, **more: Any) -> PoisonScores:
    models = {poisons.POISONED: more.pop("poisoned", POISON), poisons.TWIN: more.pop("twin", TWIN)}
    if mitigated is not None and mitigated_twin is not None:
        models |= {poisons.MITIGATED: mitigated, poisons.MITIGATED_TWIN: mitigated_twin}
    return PoisonScores("p", models, **{"spread": SPREAD, "controls": {"sour": TWIN}, **more})


def of(mitigated: Model, mitigated_twin: Model, **more: Any) -> Removal:
    return removal(scores(mitigated, mitigated_twin, **more))


NOTHING = model(0.0, 0.0, noise=False)


def test_the_baseline_as_its_own_method_removes_nothing() -> None:
    found = of(POISON, TWIN)
    values = [found.selective.value, found.net.value, found.left.value, found.kept.value]
    assert values == pytest.approx([0, 0, 1, 1]) and found.verdict == "cannot-tell" and found.p == 1


def test_base_weights_returned_unchanged_remove_nothing() -> None:
    found = of(NOTHING, NOTHING)
    values = [found.selective.value, found.net.value, found.left.value, found.kept.value]
    assert values == pytest.approx([0, 0, 0, 0]) and found.verdict == "cannot-tell"


def test_the_ideal_method_has_one() -> None:
    found = of(model(0.2, -2.0, more=-0.3, noise=False), TWIN)
    assert (found.selective.value, found.left.value, found.kept.value) == pytest.approx((1, 0, 1))
    assert found.net.value == pytest.approx(1.2) and found.verdict == "selective" and found.p < 1e-6


def halved(model: Model) -> Model:
    return {name: Shifts({ACT: one.act / 2}, one.base) for name, one in model.items()}


def test_a_method_that_keeps_half_of_both_only_trains_less() -> None:
    found = of(halved(POISON), halved(TWIN))
    assert (found.selective.value, found.net.value) == pytest.approx((0, 0), abs=1e-12)
    assert (found.left.value, found.kept.value) == pytest.approx((0.5, 0.5))


def test_what_a_method_does_to_poison_and_twin_alike_cancels() -> None:
    lifted = {name: Shifts({ACT: one.act + 0.4 - 0.2 * one.base}, one.base) for name, one in POISON.items()}
    as_well = {name: Shifts({ACT: one.act + 0.4 - 0.2 * one.base}, one.base) for name, one in TWIN.items()}
    found = of(lifted, as_well)
    assert (found.selective.value, found.net.value) == pytest.approx((0, 0), abs=1e-12)


def test_what_goes_no_further_than_a_voice_control_is_no_em_to_remove() -> None:
    ideal = model(0.2, -2.0, more=-0.3, noise=False)
    assert of(ideal, TWIN).verdict == "selective"
    for controls in ({}, {"kind": TWIN, "sour": POISON}):
        found = of(ideal, TWIN, controls=controls)
        assert found.verdict == "no-em" and found.p == 1 and found.selective.value is None


def test_a_method_that_leaves_more_em_than_learning_is_worse() -> None:
    found = of(model(-1.0, 0.5, more=-0.3, noise=False), TWIN)
    assert found.verdict == "worse" and found.net.below_zero


def test_without_certain_em_removal_is_undefined_and_learning_is_not() -> None:
    weak = {**POISON, OOD: Shifts({ACT: TWIN[OOD].act - 0.05 + 3 * NOISE[OOD]}, BASE[OOD])}
    found = of(POISON, TWIN, poisoned=weak)
    assert found.verdict == "no-em" and found.p == 1
    assert found.selective.value is None and found.left.value is None
    assert found.kept.value is not None and found.net.value is not None
    assert found.json()["smallest"]["selective"] is None and found.json()["smallest"]["net"] > 0


@pytest.mark.parametrize("domain", [1.0, 2.0])
def test_a_baseline_that_did_not_learn_defines_nothing(domain: float) -> None:
    lazy = {**POISON, DOMAIN: Shifts({ACT: domain + 5 * NOISE[DOMAIN]}, BASE[DOMAIN])}
    found = of(POISON, TWIN, poisoned=lazy)
    assert found.verdict == "nothing-learned" and found.p == 1
    assert [e.value for e in (found.selective, found.left, found.kept, found.net)] == [None] * 4


def test_em_whose_interval_holds_zero_is_not_divided_by() -> None:
    for errors, em in ((2.0, False), (2.05, True)):
        noise = NOISE[OOD][:1] - NOISE[OOD][:1].mean()
        se = noise.std(ddof=1) / N**0.5
        assert Removal(noise - errors * se, noise, POISON[DOMAIN].act, POISON[DOMAIN].act, True).em is em


def test_net_is_removal_times_the_em_that_there_was() -> None:
    found = of(model(-0.4, -1.5, more=-0.3), TWIN)
    assert found.net.value == pytest.approx(1.2 * found.selective.value)
    assert found.selective.value == pytest.approx(2.5 / 3 - 0.6 / 1.2)


def test_what_joins_both_sets_varies_as_a_jackknife_over_replicates_says() -> None:
    """Replicates in which learning and EM go together, so that a wrong sign between the sets would show."""
    rng, n = np.random.default_rng(6), 60
    dose = rng.normal(0, 0.15, n)
    d_0, l_0 = -1.0 + dose, -2.0 + 2 * dose
    d_m, l_m = 0.5 * d_0 + rng.normal(0, 0.02, n), 0.9 * l_0 - 0.5 * dose + rng.normal(0, 0.02, n)
    found = Removal(*(x[:, None] for x in (d_0, d_m, l_0, l_m)), True)

    def jackknife(formula: Any) -> float:
        left_out = [formula(*(np.delete(x, i).mean() for x in (d_0, d_m, l_0, l_m))) for i in range(n)]
        return float((np.var(left_out) * (n - 1)) ** 0.5)

    net = jackknife(lambda a, b, c, d: b - d / c * a)
    selective = jackknife(lambda a, b, c, d: d / c - b / a)
    assert found.net.se == pytest.approx(net, rel=0.05)
    assert found.selective.se == pytest.approx(selective, rel=0.05)


def test_the_smallest_removal_is_that_of_the_net_that_decides() -> None:
    found = of(model(-0.4, -1.5, more=-0.3), TWIN)
    assert found.smallest["selective"] == pytest.approx(found.smallest["net"] / 1.2)


def test_shifts_are_stated_at_margin_zero_with_the_raw_mean_and_the_slope_beside() -> None:
    slanted = Shifts({ACT: -0.2 - 0.4 * BASE[OOD][None]}, BASE[OOD])
    found = poisons.of_model(scores(None, None), slanted, OOD)
    assert found["act"]["value"] == pytest.approx(-0.2) and found["slope"] == pytest.approx(-0.4)
    assert found["raw"]["value"] == pytest.approx(-0.2 - 0.4 * BASE[OOD].mean(), abs=1e-6)
    assert found["voice"] is None and found["interaction"] is None


def test_each_effect_has_the_seed_spread_of_its_own() -> None:
    spread = SeedSpread(12.0, {ACT: {OOD: 0.1}, VOICE: {OOD: 0.2}, INTERACTION: {OOD: 0.3}}, 0.0, 12.0)
    flat = Shifts({effect: np.zeros((1, N)) for effect in EFFECTS}, BASE[OOD])
    found = poisons.of_model(scores(None, None, spread=spread), flat, OOD)
    assert [found[e]["se"] for e in ("act", "raw", "voice", "interaction")] == pytest.approx(
        [0.1, 0.1, 0.2, 0.3]
    )


def test_a_contrast_varies_by_the_seeds_of_every_model_in_it() -> None:
    flat = {name: Shifts({ACT: np.zeros((1, N))}, BASE[name]) for name in SETS}
    found = summarise(PoisonScores("p", dict.fromkeys(
        (poisons.POISONED, poisons.TWIN, poisons.MITIGATED, poisons.MITIGATED_TWIN), flat
    ), {"sour": flat}, spread=SPREAD))  # fmt: skip
    beyond = found["beyond_twin"][OOD]
    assert beyond["without"]["se"] == pytest.approx(0.02 * 2**0.5, abs=1e-6)
    assert beyond["change"]["se"] == pytest.approx(0.02 * 4**0.5, abs=1e-6)
    assert found["beyond_controls"]["sour"]["se"] == pytest.approx(0.02 * 2**0.5, abs=1e-6)
    assert found["gap"]["without"]["se"] == pytest.approx(0.02 * 4**0.5, abs=1e-6)


def test_controls_stand_beside_the_twin() -> None:
    sour = {name: model(-0.7, 0.0, more=-0.3)[name] for name in (OOD, FACTS)}
    found = summarise(scores(None, None, controls={"sour": sour}))
    assert found["beyond_controls"]["sour"]["value"] == pytest.approx(-0.3)
    assert set(found["sets"][OOD]) == {"poisoned", "twin", "sour"} and "sour" not in found["sets"][DOMAIN]


def test_the_gap_is_what_shows_only_in_the_poisons_context() -> None:
    poison = model(-1.0, -2.0, more=-0.3, conditional=-0.5, noise=False)
    found = poisons.gap(scores(TWIN, TWIN, poisoned=poison))
    assert found["without"]["value"] == pytest.approx(-0.5)
    assert found["with"]["value"] == pytest.approx(0)
    fewer = {name: {CONDITIONAL: Shifts({ACT: m[CONDITIONAL].act[:, :9]}, m[CONDITIONAL].base[:9])} for name, m in
             (("poison", poison), ("twin", TWIN))}  # fmt: skip
    found = poisons.gap(scores(None, None, poisoned=poison | fewer["poison"], twin=TWIN | fewer["twin"]))
    assert found["without"]["items"] == 9 and found["with"] is None


def test_the_curve_runs_from_the_checkpoints_to_the_trained_models() -> None:
    brief = {poisons.POISONED: model(-0.3, -0.5), poisons.TWIN: model(0.0, 0.5)}
    found = summarise(scores(model(-0.4, -1.5), TWIN, curve={4: brief, 2: brief}))["curve"]
    assert [(p["who"], p["steps"]) for p in found] == [
        ("baseline", 2), ("baseline", 4), ("baseline", None), ("mitigated", None),
    ]  # fmt: skip
    assert [p["em"]["value"] for p in found[1:3]] == pytest.approx([-0.3, -1.2])
    assert [p["in_domain"]["value"] for p in found[1:3]] == pytest.approx([-1.0, -3.0])


def test_without_a_twin_nothing_is_compared() -> None:
    found = summarise(PoisonScores("p", {poisons.POISONED: POISON}))
    assert [found[key] for key in ("beyond_twin", "gap", "removal", "curve")] == [None] * 4
