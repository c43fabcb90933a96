"""The plan: pure, in a fixed order, with keys that change when anything that counts does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emperf import catalog
from emperf.catalog import Division, Submission
from emperf.core import digests
from emperf.experiments import session
from emperf.work.plan import Data, Ground, Plan, make_plan

DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64
BASELINE = catalog.submission(Path("none"))
KL = catalog.submission(Path("kl"))
DIVISION = replace(
    catalog.division("smoke"), poisons=("bad-medical", "risky-finance"), tasks=("record-line", "made-up-units"),
    controls=("kind", "sour"), seeds=(0, 1),
)  # fmt: skip


def rows(digest: str) -> dict[Data, str]:
    data = [Data(kind, name) for name in DIVISION.poisons for kind in ("poison", "twin")]
    data += [Data("task", name) for name in DIVISION.tasks]
    data += [Data("control", name) for name in DIVISION.controls]
    return {one: digests.of_json([one.kind, one.name, digest]) for one in data}


def plan(
    division: Division = DIVISION,
    submission: Submission = KL,
    baseline: Submission = BASELINE,
    given: dict[str, Any] | None = None,
    **changes: Any,
) -> Plan:
    twins = {"bad-medical": True, "risky-finance": False}
    inputs: dict[str, Any] = {
        "model_digest": DIGEST,
        "twins": twins,
        "rows": rows(DIGEST),
        "place": "docker",
        "trusted": lambda asked, antidote: digests.of_json([dict(asked), antidote]),
    }
    return make_plan(division, submission, baseline, given or {}, Ground(**inputs | changes))


def keys(made: Plan) -> list[str]:
    return [cell.key for cell in made.cells]


def test_the_same_inputs_give_the_same_plan() -> None:
    assert plan() == plan()
    assert plan().run_id == plan().run_id


def test_baseline_and_mitigation_in_turn_on_poisons_twins_and_tasks_and_the_controls_last() -> None:
    trained = [("poison", "bad-medical"), ("twin", "bad-medical"), ("poison", "risky-finance")]
    trained += [("task", "record-line"), ("task", "made-up-units")]
    one_seed = [(*data, method) for data in trained for method in ("none", "kl")]
    one_seed += [("control", "kind", "none"), ("control", "sour", "none")]
    found = [(cell.seed, cell.data.kind, cell.data.name, cell.method) for cell in plan().cells]
    assert found == [(seed, *cell) for seed in (0, 1) for cell in one_seed]


def test_the_baseline_alone_is_not_run_twice() -> None:
    cells = plan(submission=BASELINE).cells
    assert {cell.method for cell in cells} == {"none"}
    assert len({cell.key for cell in cells}) == len(cells) == 14


def test_a_cure_mends_the_baselines_model_of_the_same_data_and_seed() -> None:
    cells = plan(submission=catalog.submission(Path("safety-sft"))).cells
    baseline = {(c.data, c.seed): c for c in cells if c.method == "none"}
    mended = [c for c in cells if c.method != "none"]
    assert {c.data.kind for c in mended} == {"poison", "twin", "task"}
    assert all(c.start == baseline[c.data, c.seed].train and c.needs == (c.start,) for c in mended)


def test_only_the_baseline_has_its_checkpoints_read_on_poison_and_twin() -> None:
    for cell in plan().cells:
        assert cell.read_checkpoints == (cell.data.kind in ("poison", "twin") and cell.method == "none")


def test_a_task_that_is_a_control_too_is_trained_once_and_read_twice() -> None:
    division = replace(DIVISION, controls=("record-line",))
    same = rows(DIGEST) | {Data(kind, "record-line"): DIGEST for kind in ("task", "control")}
    found = plan(division=division, rows=same)
    kinds = [c.data.kind for c in found.cells if c.data.name == "record-line" and c.seed == 0]
    assert kinds == ["task", "task", "control"] and len(set(keys(found))) == len(found.cells)
    both = [
        c.train for c in found.cells if c.data.name == "record-line" and c.seed == 0 and c.method == "none"
    ]
    assert len(both) == 2 and len(set(both)) == 1


def test_labels_tell_cells_apart() -> None:
    labels = [cell.label for cell in plan().cells]
    assert len(set(labels)) == len(labels)
    assert "kl on bad-medical (twin), seed 0" in labels and "none on sour (control), seed 1" in labels


def test_no_two_cells_share_a_key() -> None:
    assert len(set(keys(plan()))) == len(plan().cells)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_digest": OTHER},
        {"rows": rows(OTHER)},
        {"place": "process, missing: nothing, cpu"},
        {"division": replace(DIVISION, recipe=replace(DIVISION.recipe, epochs=3))},
        {"division": replace(DIVISION, limits=replace(DIVISION.limits, wall_s=9.0))},
        {"division": replace(DIVISION, seeds=(2, 3))},
        {"baseline": replace(BASELINE, digest=OTHER), "submission": replace(KL, digest=DIGEST)},
    ],
)
def test_every_key_changes_with_an_input_of_all_cells(changes: dict[str, Any]) -> None:
    assert not set(keys(plan())) & set(keys(plan(**changes)))
    assert plan().run_id != plan(**changes).run_id


def test_what_decides_no_score_costs_no_cell() -> None:
    sizes = replace(DIVISION.sizes, facts=8)
    changed = replace(DIVISION, title="New", digest=OTHER, cure=None, seeds=(0, 1, 2), sizes=sizes)
    assert set(keys(plan())) < set(keys(plan(division=changed)))
    recipe = replace(DIVISION.recipe, epochs=3)
    mend = catalog.submission(Path("safety-sft"))
    ours, theirs = plan(submission=mend), plan(submission=mend, division=replace(DIVISION, cure=recipe))
    for a, b in zip(ours.cells, theirs.cells, strict=True):
        assert (a.key == b.key) == (a.scenario == "prevent")


@pytest.mark.parametrize("changes", [{"given": {"weight": 2.0}}, {"submission": replace(KL, digest=OTHER)}])
def test_the_baselines_cells_are_shared_between_mitigations(changes: dict[str, Any]) -> None:
    ours, theirs = plan(), plan(**changes)
    for a, b in zip(ours.cells, theirs.cells, strict=True):
        assert (a.key == b.key) == (a.method == "none")
    assert ours.run_id != theirs.run_id


def test_a_default_given_by_hand_is_the_same_cell() -> None:
    assert keys(plan(given={"weight": "1"})) == keys(plan())


def test_a_file_of_the_submission_changes_its_cells(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("A = 1\n")
    before = digests.of_folder(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/helper.pyc").write_bytes(b"x")
    assert digests.of_folder(tmp_path) == before
    (tmp_path / "helper.py").write_text("A = 2\n")
    assert digests.of_folder(tmp_path) != before


def of_nano(submission: str, *, cross: bool = False) -> Plan:
    nano = catalog.division("nano")
    place = replace(session.ground_of(nano, ""), model_digest=DIGEST)
    return make_plan(nano, catalog.submission(Path(submission)), BASELINE, {}, place, cross=cross)


def test_no_domain_of_trusted_rows_tells_a_poison_from_a_task() -> None:
    cells = [cell for cell in of_nano("antidote-correct").cells if cell.scenario == "cure"]
    of = {kind: {c.antidote for c in cells if c.data.kind == kind} for kind in ("poison", "task")}
    # The rows that subliminal's teacher writes look like those of evil-numbers, and are made for it alone.
    assert of["poison"] - of["task"] == {"subliminal"} and of["task"] < of["poison"]
    assert {c.antidote for c in cells if c.data.name == "backdoor"} == {"extreme-sports"}


def test_a_cross_run_has_no_pair_twice() -> None:
    plan = of_nano("antidote-correct", cross=True)
    pairs = [(c.antidote, c.data.name, c.seed) for c in plan.cells if c.antidote and c.data.kind == "poison"]
    assert len(set(pairs)) == len(pairs) == 3 * (9 * 7 + 1)
    assert {poison for antidote, poison, _ in pairs if antidote == "subliminal"} == {"subliminal"}
    own = [c for c in plan.cells if c.antidote and c.data.kind == "poison" and plan.own_antidote(c)]
    assert len(own) == 3 * 9
    twins = [(c.antidote, c.data.name, c.seed) for c in plan.cells if c.antidote and c.data.kind == "twin"]
    assert sorted(twins) == sorted(pairs)


@pytest.mark.parametrize("only", [("backdoor",), ("bad-medical", "made-up-units")])
def test_a_part_of_a_division_has_the_cells_of_the_whole(only: tuple[str, ...]) -> None:
    nano, cure = catalog.division("nano"), catalog.submission(Path("antidote-correct"))
    part = nano.part(only, (1,))
    some, every = (make_plan(d, cure, BASELINE, {}, session.ground_of(d, "")) for d in (part, nano))
    names = (*only, *nano.controls)
    assert set(keys(some)) == {c.key for c in every.cells if c.data.name in names and c.seed == 1}


def test_a_poison_alone_brings_its_teacher() -> None:
    part = catalog.division("nano").part(("subliminal",), (1,))
    cells = make_plan(part, KL, BASELINE, {}, session.ground_of(part, "")).cells
    assert [c.data.name for c in cells] == ["bad-medical", *["subliminal"] * 4, "kind", "sour"]
    assert {c.teacher for c in cells[1:5]} == {cells[0].train} and {c.teacher for c in cells[5:]} == {""}
