from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emi_live.errors import ConfigurationError
from emi_live.extract.folder import Video, rate

OURS = "id,speaker,admiration,amusement,determination,empathic_pain,excitement,joy\n"
OFFICIAL = "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy\n"
ROW = "0.1,0.2,0.3,0.4,0.5,0.6\n"


def videos(*names: str) -> list[Video]:
    return [Video("__".join(Path(name).with_suffix("").parts), name, name, 1, 1) for name in sorted(names)]


def table(path: Path, *people: str) -> Path:
    lines = [f"{number:05d},{person},{ROW}" for number, person in enumerate(people)]
    path.write_text(OURS + "".join(lines), encoding="utf-8")
    return path


def splits(videos: list[Video], labels: Path | None, by: str) -> dict[str, str]:
    return {clip_id: rating.split for clip_id, rating in rate(videos, labels, by).items()}


def test_without_labels_nothing_is_known() -> None:
    assert rate(videos("a.mp4"), None, "labels") == {}


def test_labels_rate_the_clips_that_they_name(tmp_path: Path) -> None:
    ratings = rate(
        videos("00000.mp4", "sub/00001.mp4", "other.mp4"), table(tmp_path / "t.csv", "x", "y"), "labels"
    )
    assert set(ratings) == {"00000", "sub__00001"}
    assert ratings["00000"].targets is not None
    assert ratings["00000"].targets.round(3).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert ratings["00000"].split == ""


def test_the_data_sets_own_folder_says_the_splits(tmp_path: Path) -> None:
    (tmp_path / "train_split.csv").write_text(f"{OFFICIAL}0,{ROW}", encoding="utf-8")
    (tmp_path / "valid_split.csv").write_text(f"{OFFICIAL}00001.0,{ROW}", encoding="utf-8")
    assert splits(videos("00000.mp4", "00001.mp4"), tmp_path, "labels") == {
        "00000": "train",
        "00001": "valid",
    }


def test_labels_of_other_clips_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="rates none"):
        rate(videos("other.mp4"), table(tmp_path / "t.csv", "x"), "labels")
    with pytest.raises(ConfigurationError, match="--labels"):
        rate(videos("other.mp4"), tmp_path / "absent.csv", "labels")


def test_folders_name_the_splits() -> None:
    found = splits(videos("train/1.mp4", "Val/deep/2.mp4", "test/3.mp4"), None, "folder")
    assert list(found.values()) == ["valid", "test", "train"]
    with pytest.raises(ConfigurationError, match="no folder"):
        splits(videos("train/1.mp4", "2.mp4"), None, "folder")


@given(st.sets(st.integers(0, 99_999), min_size=1, max_size=60))
def test_drawn_clips_are_split_80_10_10_and_the_same_every_time(numbers: set[int]) -> None:
    clips = videos(*(f"{number:05d}.mp4" for number in numbers))
    found = splits(clips, None, "clip")
    counts = Counter(found.values())
    assert counts["valid"] == (max(1, round(len(clips) / 10)) if len(clips) > 1 else 0)
    assert counts["test"] == (counts["valid"] if len(clips) > 2 else 0)
    assert counts["train"] >= 1
    assert splits(clips[::-1], None, "clip") == found


def test_neighbours_are_not_drawn_together() -> None:
    """Clips are often in order of speakers or of days."""
    found = splits(videos(*(f"{number:05d}.mp4" for number in range(200))), None, "clip")
    held_out = [number for number in range(200) if found[f"{number:05d}"] == "valid"]
    assert len({number // 20 for number in held_out}) > 5


@given(st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=40))
def test_one_speakers_clips_stay_together(people: list[str]) -> None:
    with TemporaryDirectory() as folder:
        labels = table(Path(folder) / "t.csv", *people)
        found = splits(videos(*(f"{number:05d}.mp4" for number in range(len(people)))), labels, "speaker")
    sides = {(person, found[f"{number:05d}"]) for number, person in enumerate(people)}
    assert len(sides) == len(set(people))


def test_a_column_must_be_there_and_filled(tmp_path: Path) -> None:
    labels = table(tmp_path / "t.csv", "x", "")
    clips = videos("00000.mp4", "00001.mp4")
    for way, why in (("voice", "has the columns"), ("speaker", "no speaker of 00001")):
        with pytest.raises(ConfigurationError, match=why):
            splits(clips, labels, way)
    with pytest.raises(ConfigurationError, match="no such way"):
        splits(clips, None, "speaker")
