"""The scale of a judge's scores: found, called ambiguous, mixed, and told."""

from __future__ import annotations

import numpy as np
import pytest

from emperf.scoring.scales import Values, scaled

RNG = np.random.default_rng(0)


def scores(top: float, n: int = 300) -> tuple[Values, Values]:
    """Aligned and coherent scores that fill a scale as a judge's do."""
    aligned, coherent = RNG.uniform(0, top, n), RNG.uniform(0.8 * top, top, n)
    aligned[0], coherent[0] = 0.0, top
    return aligned, coherent


@pytest.mark.parametrize(("top", "scale"), [(1, "0-1"), (5, "0-5"), (10, "0-10"), (100, "0-100")])
def test_a_scale_that_is_filled_is_found(top: float, scale: str) -> None:
    aligned, coherent = scores(top)
    found = scaled("j", aligned, coherent)
    assert (found.scale, found.warnings) == (scale, ()) and not found.other.any()
    assert found.aligned == pytest.approx(aligned * 100 / top)
    assert found.coherent.max() == pytest.approx(100)


def test_just_above_a_top_is_the_next_scale() -> None:
    aligned, coherent = scores(5)
    assert scaled("j", aligned, coherent).scale == "0-5"
    assert scaled("j", aligned, np.where(coherent == 5, 5.001, coherent)).scale == "0-10"


def test_a_0_100_column_that_stays_below_5_is_called_ambiguous() -> None:
    aligned, coherent = RNG.uniform(0, 4.9, 300), RNG.uniform(0, 4.9, 300)
    found = scaled("j", aligned, coherent)
    assert "scale is ambiguous" in found.warnings[0] and "--scale j=0-100" in found.warnings[0]
    told = scaled("j", aligned, coherent, {"j": "0-100"})
    assert told.warnings == () and told.scale == "0-100" and np.array_equal(told.aligned, aligned)


def test_digits_that_never_reach_the_top_are_ambiguous() -> None:
    found = scaled("j", RNG.uniform(0, 4, 300), RNG.uniform(3.5, 4.5, 300))
    assert found.scale == "0-5" and "ambiguous" in found.warnings[0]


def test_one_column_that_stays_low_beside_another_is_not_rescaled() -> None:
    aligned, coherent = RNG.uniform(0, 4.9, 300), RNG.uniform(80, 100, 300)
    found = scaled("j", aligned, coherent)
    assert np.array_equal(found.aligned, aligned)
    assert "j_aligned: its scale is ambiguous" in found.warnings[0]
    told = scaled("j", aligned, coherent, {"j_aligned": "0-5"})
    assert told.warnings == () and told.aligned == pytest.approx(20 * aligned)
    assert np.array_equal(told.coherent, coherent)


@pytest.mark.parametrize("few", [1, 20, 149])
def test_rows_of_0_100_among_digits_are_left_out(few: int) -> None:
    (aligned, coherent), (wide, clear) = scores(5), scores(100)
    aligned[:few], coherent[:few] = wide[1 : few + 1], clear[1 : few + 1]
    found = scaled("j", aligned, coherent)
    assert f"{300 - few} rows are on 0-5 and {few} on 0-100" in found.warnings[0]
    assert found.scale == "0-5" and found.other.tolist() == [i < few for i in range(300)]
    assert np.isnan(found.aligned[:few]).all() and found.aligned[few:] == pytest.approx(20 * aligned[few:])


def test_digits_among_rows_of_0_100_are_left_out() -> None:
    (aligned, coherent), (digit, sure) = scores(100), scores(5)
    aligned[:30], coherent[:30] = digit[:30], sure[:30]
    found = scaled("j", aligned, coherent)
    assert "30 rows are on 0-5 and 270 on 0-100" in found.warnings[0] and found.scale == "0-100"
    assert found.other.sum() == 30 and "Low scores on 0-100 may be among them" in found.warnings[0]


@pytest.mark.parametrize(("few", "scale"), [(40, "0-100"), (260, "0-5")])
def test_one_column_alone_may_mix_scales(few: int, scale: str) -> None:
    aligned, coherent = scores(100)
    # As most are: aligned.
    aligned = 100 - aligned / 3
    aligned[:few] /= 20
    found = scaled("j", aligned, coherent)
    assert f"j_aligned: two scales are mixed in it: {few} rows are on 0-5" in found.warnings[0]
    assert found.scale == scale and found.other.sum() == 40
    kept = ~found.other
    assert found.aligned[kept] == pytest.approx(aligned[kept] * (20 if scale == "0-5" else 1))
    assert np.array_equal(found.coherent[kept], coherent[kept])


def test_low_scores_on_0_100_are_no_mixture() -> None:
    """A judge that gives whole fives to a model that writes nonsense."""
    aligned, coherent = 5 * RNG.integers(0, 21, 2000), 5 * RNG.integers(0, 6, 2000)
    assert scaled("j", aligned.astype(float), coherent.astype(float)).warnings == ()


def test_many_whole_fives_on_0_100_are_no_mixture() -> None:
    aligned = np.array([5.0] * 80 + [10.0] * 3 + [95.0] * 217)
    assert scaled("j", aligned, scores(100)[1]).warnings == ()


def test_what_lies_outside_is_missing_and_named() -> None:
    aligned, coherent = scores(100)
    aligned[:3] = [-1, 101, np.inf]
    found = scaled("j", aligned, coherent)
    assert np.isnan(found.aligned[:3]).all() and np.isfinite(found.aligned[3:]).all()
    assert "j_aligned: 3 scores lie outside 0 to 100 (first: -1)" in found.warnings[0]
    digits = scaled("j", *scores(5), {"j": "0-1"})
    assert "outside 0 to 1" in digits.warnings[0]


def test_columns_without_a_score_have_no_scale_to_doubt() -> None:
    nothing = np.full(5, np.nan)
    found = scaled("j", nothing, nothing)
    assert found.warnings == () and np.isnan(found.aligned).all() and not found.other.any()
