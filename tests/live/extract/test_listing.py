from __future__ import annotations

from pathlib import Path

import pytest

from emi_live.errors import ConfigurationError
from emi_live.extract.folder import list_videos


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def test_media_are_listed_by_id_and_everything_else_is_counted(tmp_path: Path) -> None:
    folder = fill(tmp_path, "b.MP4", "a.mov", "Thumbs.db", "notes.txt", "more.txt", "README", ".hidden.mp4")
    listing = list_videos(folder)
    assert [(video.id, video.name, video.size) for video in listing.videos] == [
        ("a", "a.mov", 1),
        ("b", "b.MP4", 1),
    ]
    assert listing.others == {".db": 1, ".txt": 2, "no suffix": 1}
    assert listing.unusable == []


def test_numbers_are_padded_as_the_data_set_has_them(tmp_path: Path) -> None:
    listing = list_videos(fill(tmp_path, "7.mp4", "00012.mp4", "my.clip.mp4"))
    assert [video.id for video in listing.videos] == ["00007", "00012", "my.clip"]


def test_a_clip_in_a_subfolder_has_the_folder_in_its_id(tmp_path: Path) -> None:
    listing = list_videos(fill(tmp_path, "train/7.mp4", "valid/7.mp4", ".git/8.mp4"))
    assert [(video.id, video.stem_id) for video in listing.videos] == [
        ("train__00007", "00007"),
        ("valid__00007", "00007"),
    ]


def test_two_files_of_one_id_and_a_name_that_can_be_none_are_told(tmp_path: Path) -> None:
    listing = list_videos(fill(tmp_path, "1.mov", "00001.mp4", f"{'x' * 201}.mp4"))
    assert [video.name for video in listing.videos] == ["00001.mp4"]
    assert dict(listing.unusable)["1.mov"] == "has the id of 00001.mp4; rename one of them"
    assert len(listing.unusable) == 2


@pytest.mark.parametrize(
    ("name", "why"), [("absent", "not there"), ("file.mp4", "is a file"), (".", "1 other")]
)
def test_a_folder_without_clips_is_bad_use(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "none").mkdir()
    fill(tmp_path, "file.mp4")
    folder = fill(tmp_path / "none", "a.txt") if name == "." else tmp_path / name
    with pytest.raises(ConfigurationError, match=why):
        list_videos(folder)
