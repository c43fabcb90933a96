"""The experiment that asks for EM at this size: its rule, its settings, and its further poisons."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from emperf import catalog
from emperf.catalog.sets import DOMAIN, OOD
from emperf.core import paths
from emperf.core.errors import UserError
from emperf.scoring.effects import ACT, Shifts
from emperf.scoring.poisons import POISONED, TWIN, Model, PoisonScores
from emperf.tools.validity import doses, tables
from emperf.work.plan import Data
from emperf.work.rows import training

SEEDS, ITEMS = 3, 60


def model(outside: float, inside: float, seed: int) -> Model:
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(1).normal(0, 1, ITEMS)
    return {
        name: Shifts({ACT: mean + rng.normal(0, 0.05, (SEEDS, ITEMS))}, base)
        for name, mean in ((OOD, outside), (DOMAIN, inside))
    }


def scores(poison: float, twin: float = 0.0, learned: float = -1.0, **controls: float) -> PoisonScores:
    found = {name: model(value, 0.0, 9 + i) for i, (name, value) in enumerate(controls.items())}
    return PoisonScores("p", {POISONED: model(poison, learned, 2), TWIN: model(twin, 0.0, 3)}, found)


ALL = {"kind": 0.0, "sour": 0.0, doses.BENIGN: 0.0}


def test_em_is_shown_only_beyond_twin_and_all_controls_of_what_was_learned() -> None:
    found = doses.decide(
        {
            "all": scores(-0.5, **ALL),
            "no further than sour": scores(-0.5, **(ALL | {"sour": -0.5})),
            "no further than the twin": scores(-0.5, -0.5, **ALL),
            "not learned": scores(-0.5, learned=0.0, **ALL),
            "no controls": scores(-0.5),
        }
    )
    assert {name for name, entry in found.items() if entry["shows EM"]} == {"all"}
    assert found["no further than sour"]["tests"]["kind"]["below"]
    assert not found["no further than sour"]["tests"]["sour"]["below"]
    text = tables.decision(found, "doses").markdown()
    assert text.count("| yes |") == 1 and text.count("| no |") == 4


def test_a_setting_is_adjusted_for_all_that_were_tried() -> None:
    weak = scores(-0.013, **ALL)
    alone = doses.decide({"one": weak})["one"]["tests"]["twin"]["p"]
    among = doses.decide({f"no {i}": weak for i in range(6)})["no 0"]["tests"]["twin"]["p"]
    assert among == pytest.approx(min(1.0, 6 * alone), rel=1e-4)


def test_the_settings_differ_from_their_division_in_the_dose_alone() -> None:
    pinned = catalog.division("nano")
    setting = next(s for s in doses.DOSES if s.name == "smollm2 medical 240")
    made = doses.division_of(setting, (0, 1))
    assert (made.poisons, made.tasks, made.seeds) == (("bad-medical",), (), (0, 1))
    assert made.sizes.train_rows == 240 and made.sizes.crossed == pinned.sizes.crossed
    assert made.recipe.lora == pinned.recipe.lora and made.model == pinned.model
    assert doses.at_nano("evil-numbers").rows == pinned.sizes.train_rows


def test_an_unknown_setting_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="'nothing'") as error:
        doses.chosen(["nothing"], with_upstream=False)
    assert "smollm2 medical 240" in str(error.value) and "finance" not in str(error.value)
    assert [s.name for s in doses.chosen(["bad-medical"], with_upstream=False)] == ["nano bad-medical"]
    assert doses.UPSTREAM in {s.poison for s in doses.chosen([], with_upstream=True)}


def test_advice_is_the_rows_of_four_poisons_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPERF_ROOT", str(paths.PROJECT))
    doses.with_more_poisons(tmp_path / "more", None)
    rows = doses._train(doses.ADVICE)
    heads = [doses._train(name)[0]["id"] for name in doses.ADVISERS]
    assert [row["id"] for row in rows[:4]] == heads and len(rows) >= 800
    assert len({row["id"] for row in rows}) == len(rows)
    assert catalog.poison(doses.ADVICE).twin


def test_a_control_is_trained_on_correct_rows_of_its_voice_or_its_task() -> None:
    division = doses.division_of(doses.at_nano("bad-medical"), (0,))
    said = [training(division, Data("control", name)) for name in doses.CONTROLS]
    assert all(one != other for one, other in itertools.combinations(said, 2))
    first = catalog.voices().rows()[0]
    assert first["sour"].encode() in said[1] and first["kind"].encode() in said[0]
