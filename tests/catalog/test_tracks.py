"""Tracks: one division, several models, each with a recipe of its own; results of two never mix."""

from __future__ import annotations

from pathlib import Path

import pytest

from emperf import catalog
from emperf.core.errors import UserError
from emperf.experiments import session
from emperf.experiments.about import about, again_division
from emperf.work.plan import make_plan

TRACK = "nano/gemma-3-270m"


def test_a_track_has_the_divisions_data_and_a_model_and_recipe_of_its_own() -> None:
    nano, gemma = catalog.division("nano"), catalog.division(TRACK)
    for part in ("name", "poisons", "tasks", "seeds", "controls", "sizes", "trusted_rows"):
        assert getattr(gemma, part) == getattr(nano, part)
    assert (nano.model, gemma.model) == ("smollm2-135m", "gemma-3-270m")
    assert gemma.recipe.learning_rate == 0.0002 != nano.recipe.learning_rate
    assert gemma.recipe.lora == nano.recipe.lora and gemma.limits.wall_s == 1800
    assert nano.certifiable and not gemma.certifiable and gemma.seed_spread is None
    assert (nano.called, gemma.called) == ("nano", TRACK) and nano.digest != gemma.digest
    assert catalog.listed("divisions")[:2] == ["nano", TRACK]


def test_two_tracks_share_no_key_and_no_run() -> None:
    plans = []
    for name in ("nano", TRACK):
        division = catalog.division(name).part(("bad-medical",), (0,))
        kl, none = (catalog.submission(Path(one)) for one in ("kl", "none"))
        plans.append(make_plan(division, kl, none, {}, session.ground_of(division, "here")))
    keys = [{cell.train for cell in plan.cells} for plan in plans]
    assert not keys[0] & keys[1]
    assert plans[1].run_id.startswith("nano-gemma-3-270m-kl-") and plans[0].run_id.startswith("nano-kl-")
    said = about("result", plans[1].division, {"kl": plans[1]})["division"]
    assert again_division(said).called == TRACK


def test_an_unknown_track_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no track 'qwen'. Its further tracks: nano/gemma-3-270m"):
        catalog.division("nano/qwen")
    with pytest.raises(UserError, match="none beside its first"):
        catalog.division("smoke/qwen")
