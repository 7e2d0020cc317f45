from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emi_models.data.vidmimic import BAH_FACES_HZ, face_pictures
from emi_models.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_pictures_come_in_order_of_their_numbers_six_a_second(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in (10, 2, 0, 1, 12)]
    found = list(
        face_pictures(touch(tmp_path, *names, "Thumbs.db", "x.jpg", "3.txt", ".4.jpg", "5.jpg.part"))
    )
    assert [path.name for _, path in found] == ["0.jpg", "1.jpg", "2.jpg", "10.jpg", "12.jpg"]
    assert [t_ns for t_ns, _ in found] == [0, 166_666_667, 333_333_333, 1_666_666_667, 2_000_000_000]


def test_bahs_names_and_rate(tmp_path: Path) -> None:
    found = list(face_pictures(touch(tmp_path, "frame-24.jpg", "frame-3.JPG", "frame-0.png"), BAH_FACES_HZ))
    assert [(t_ns, path.name) for t_ns, path in found] == [
        (0, "frame-0.png"),
        (125_000_000, "frame-3.JPG"),
        (1_000_000_000, "frame-24.jpg"),
    ]


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert list(face_pictures(touch(tmp_path, "Thumbs.db"))) == []


def test_two_pictures_of_one_moment_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one moment"):
        face_pictures(touch(tmp_path, "1.jpg", "01.jpg"))


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="listed"):
        face_pictures(tmp_path / "none")
