"""CSV files of scores: forms that are read as meant, files that are refused in one line, faults that are named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.judged import made, without, write

from emperf.catalog import scores
from emperf.core.errors import UserError

NAMES = ("ref", "digit")


def read(path: Path, *more: Path) -> scores.Scores:
    return scores.read([path, *more], NAMES)


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read(path)
    text = str(error.value)
    assert "\n" not in text and str(path) in text
    return text


@pytest.mark.parametrize(
    "form",
    [
        {"lineterminator": "\n"},
        {"lineterminator": "\r\n"},
        {"lineterminator": "\r"},
        {"encoding": "utf-8-sig"},
        {"delimiter": ";"},
        {"delimiter": "\t"},
        {"quoting": 1},
    ],
)
def test_forms_of_csv_are_read_alike(tmp_path: Path, form: dict[str, Any]) -> None:
    plain, other = write(tmp_path / "plain.csv", made(20)), write(tmp_path / "other.csv", made(20), **form)
    first, second = read(plain), read(other)
    assert first.labels == second.labels and first.faults == second.faults
    assert all(np.array_equal(first.columns[name], second.columns[name]) for name in first.columns)
    assert first.rows == 20 and set(first.labels) == {"answer", "question", "domain", "generator"}


def test_decimal_commas_are_read_where_semicolons_divide(tmp_path: Path) -> None:
    columns = made(20)
    commas = {name: [value.replace(".", ",") for value in values] for name, values in columns.items()}
    found = read(write(tmp_path / "a.csv", commas, delimiter=";"))
    assert found.columns["ref_aligned"].tolist() == [float(x) for x in columns["ref_aligned"]]


def test_an_empty_cell_is_missing_and_no_fault(tmp_path: Path) -> None:
    columns = made(20)
    columns["digit_aligned"][:5] = ["", " ", "nan", "None", "NA"]
    found = read(write(tmp_path / "a.csv", columns))
    assert [math.isnan(x) for x in found.columns["digit_aligned"][:6]] == [True] * 5 + [False]
    assert found.faults["digit"] == ()


def test_cells_that_are_no_numbers_are_counted_and_shown(tmp_path: Path) -> None:
    columns = made(20)
    columns["digit_aligned"][:3] = ["REFUSAL", "1_0", "inf"]
    found = read(write(tmp_path / "a.csv", columns))
    assert np.isnan(found.columns["digit_aligned"][:3]).all()
    assert "digit_aligned: 3 cells are not numbers (first: 'REFUSAL')" in found.faults["digit"][0]
    assert found.faults["ref"] == ()


def test_copies_are_left_out_where_there_are_answer_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", made(20), [*range(20), 3, 3, 4])
    found = read(path)
    assert found.rows == 20 and "3 rows are duplicates" in found.faults[""][0]
    assert read(path, path).rows == 20
    assert read(write(tmp_path / "b.csv", made(20))).faults[""] == ()


def test_equal_rows_without_ids_all_count_and_are_named(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.csv", without(made(20), "answer"), [*range(20), 3]))
    assert found.rows == 21 and "1 rows equal an earlier one" in found.faults[""][0]


def test_an_id_with_two_rows_that_differ_is_named(tmp_path: Path) -> None:
    columns = made(20)
    columns["answer"][4] = columns["answer"][0]
    found = read(write(tmp_path / "a.csv", columns))
    assert found.rows == 20 and found.faults[""] == ()  # another question: ids count within their question
    columns["question"][4] = columns["question"][0]
    found = read(write(tmp_path / "a.csv", columns))
    assert found.rows == 20 and "1 answer ids are duplicates with other scores" in found.faults[""][0]


def test_a_label_that_one_file_lacks_is_not_used(tmp_path: Path) -> None:
    found = read(
        write(tmp_path / "a.csv", made(20)), write(tmp_path / "b.csv", without(made(20, seed=1), "question"))
    )
    assert "question" not in found.labels and found.rows == 40
    assert "The column question is not in every file" in found.faults[""][0]


def test_a_column_called_model_is_the_generator(tmp_path: Path) -> None:
    columns = made(20)
    columns["model"] = columns.pop("generator")
    assert read(write(tmp_path / "a.csv", columns)).labels["generator"][:2] == ("g0", "g1")


def test_a_column_that_is_missing_lists_those_there(tmp_path: Path) -> None:
    text = refused(write(tmp_path / "a.csv", without(made(20), "digit_coherent")))
    assert "no column digit_coherent" in text and "ref, wide" in text
    assert "Its columns are: x, y" in refused(write(tmp_path / "b.csv", {"x": [1], "y": [2]}))


def test_no_such_file_and_a_folder(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path / "none.csv")
    assert "no plain file" in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n\n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not UTF-8 text"),
        ("answer,réf_aligned\n".encode("latin-1"), "is not UTF-8 text"),
        ("ref_aligned,ref_coherent\n1,2\n".encode("utf-16"), "is not UTF-8 text"),
        ("ref_aligned,ref_coherent\n1,2\n".encode("utf-16-le"), "is not UTF-8 text"),
        (b"just words\nand more\n", "single column"),
        (b"ref_aligned,ref_coherent,digit_aligned,digit_coherent\n", "no answers"),
        (b"ref_aligned,ref_coherent,digit_aligned,digit_coherent\n1,2,3,4\n1,2,3\n", "line 3, has 3 cells"),
        (b'ref_aligned,ref_coherent,digit_aligned,digit_coherent\n"1,2,3,4\n', "is not valid CSV"),
        (b"ref_aligned,ref_coherent,ref_aligned\n1,2,3\n", "two columns 'ref_aligned'"),
    ],
)
def test_what_is_no_table_of_scores_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    assert said in refused(path)
