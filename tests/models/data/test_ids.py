from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emi_models.data.clip import check_id, normal_id
from emi_models.errors import DataError


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("00001", "00001"),
        ("1", "00001"),
        ("1.0", "00001"),
        (" 00012.0 ", "00012"),
        ("00001.mp4", "00001"),
        ("1.pkl", "00001"),
        ("17245", "17245"),
        ("123456", "123456"),
        ("interview 3.MP4", "interview 3"),
        ("a.b", "a"),
        ("-1", "-1"),
    ],
)
def test_an_id_means_the_same_however_it_is_written(written: str, meant: str) -> None:
    assert normal_id(written) == meant
    assert normal_id(meant) == meant


@given(st.integers(0, 99_999), st.sampled_from(["{}", "{:05d}", "{}.0", "{:05d}.0", "{}.mp4", "{:05d}.pkl"]))
def test_numbers_are_padded(number: int, form: str) -> None:
    assert normal_id(form.format(number)) == f"{number:05d}"


@pytest.mark.parametrize(
    "bad", ["", " ", ".", "..", ".pkl", "a/b", "../a", "a\\b", "a\nb", "a\x00b", "x" * 201]
)
def test_what_can_be_no_files_name_is_refused(bad: str) -> None:
    with pytest.raises(DataError, match="clip id"):
        check_id(bad)
    with pytest.raises(DataError, match="clip id"):
        normal_id(bad)
