from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from emi_models import EMOTIONS
from emi_models.data.clip import OFFICIAL_HEADER, csv_rows, read_ratings, read_split, stack_targets
from emi_models.errors import DataError
from tests.models.data.folders import write_split

if TYPE_CHECKING:
    from pathlib import Path

ROW = [0.1, 0.2, 0.3, 0.4, 0.5, 1]
HEADER = ",".join(OFFICIAL_HEADER)


def test_the_official_header_is_the_vocabulary_in_order() -> None:
    assert [name.lower().replace(" ", "_") for name in OFFICIAL_HEADER[1:]] == list(EMOTIONS)


def test_a_split_is_read_in_its_order_with_ids_as_text(tmp_path: Path) -> None:
    path = write_split(tmp_path, "train", {"00010": ROW, "2": ROW, "3.0": [""] * 6, "00004.mp4": [0] * 6})
    found = read_split(path)
    assert list(found) == ["00010", "00002", "00003", "00004"]
    assert found["00010"].targets is not None
    assert np.array_equal(found["00010"].targets, np.array(ROW, np.float32))
    assert found["00003"].targets is None


def test_a_byte_order_mark_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "train_split.csv"
    path.write_text(f"\ufeff{HEADER}\r\n\r\n00001,0,0,0,0,0,1\r\n,,,,,,\r\n", encoding="utf-8", newline="")
    assert list(read_split(path)) == ["00001"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "train_split.csv:1 has the header '', not 'Filename,Admiration"),
        (HEADER.replace("Empathic Pain", "Empathic_Pain") + "\n", ":1 has the header"),
        (
            HEADER.replace("Joy,", "").replace("Admiration,Amusement", "Amusement,Admiration"),
            ":1 has the header",
        ),
        (f"{HEADER}\n1,0,0,0,0,0\n", ":2 has 6 cells"),
        (f"{HEADER}\n1,0,0,0,0,0,1.01\n", "'1.01' for joy"),
        (f"{HEADER}\n1,0,0,0,-0.1,0,1\n", "'-0.1' for empathic_pain"),
        (f"{HEADER}\n1,nan,0,0,0,0,1\n", "'nan' for admiration"),
        (f"{HEADER}\n1,0,0,x,0,0,1\n", ":2 has 'x' for determination"),
        (f"{HEADER}\n00001,0,0,0,0,0,1\n\n1.0,0,0,0,0,0,1\n", ":4 rates clip 00001"),
        (f"{HEADER}\na/b,0,0,0,0,0,1\n", "'a/b'"),
        (f'{HEADER}\n"1,0,0,0,0,0,1\n', "UTF-8"),
    ],
)
def test_anything_else_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "train_split.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_split(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_ratings(tmp_path / "x.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_ratings(tmp_path / "none.csv")


def test_ratings_may_have_our_columns_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    names = [*reversed(EMOTIONS), "note", "split", "id"]
    path.write_text(f"{','.join(names)}\n.1,.2,.3,.4,.5,.6,ok,valid,7\n,,,,,,,,clip\n")
    found = read_ratings(path)
    assert found["00007"].split == "valid"
    assert found["00007"].targets is not None
    assert found["00007"].targets.tolist() == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert (found["clip"].split, found["clip"].targets) == ("", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,joy\n", "column 'admiration'"),
        (f"id,id,{','.join(EMOTIONS)}\n", "column 'id'"),
        (
            f"id,split,{','.join(EMOTIONS)}\na,dev,,,,,,\n",
            ":2 has the split 'dev'",
        ),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        read_ratings(tmp_path / "x.csv")
    assert words in str(caught.value)


def test_a_folder_of_splits_says_which_split(tmp_path: Path) -> None:
    write_split(tmp_path, "train", {"1": ROW})
    write_split(tmp_path, "valid", {"2": ROW})
    assert {clip_id: rating.split for clip_id, rating in read_ratings(tmp_path).items()} == {
        "00001": "train",
        "00002": "valid",
    }
    write_split(tmp_path, "valid", {"1": ROW})
    with pytest.raises(DataError, match="valid and train"):
        read_ratings(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"train_split\.csv"):
        read_ratings(tmp_path / "empty")


def test_unrated_rows_are_nan() -> None:
    stacked = stack_targets([None, np.ones(6, np.float32)])
    assert stacked.dtype == np.float32
    assert np.isnan(stacked[0]).all()
    assert (stacked[1] == 1).all()
    assert stack_targets([]).shape == (0, 6)


def test_a_line_without_an_end_is_refused_and_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    with path.open("wb") as file:
        file.write(b"Filename,")
        file.truncate(1 << 30)  # sparse: a gigabyte of zeros without a line break
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="1048576"):
            list(csv_rows(path))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
