from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from emi_models.data.bah import is_bah, read_bah
from emi_models.data.vidmimic import BAH_FACES_HZ, face_pictures
from emi_models.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

ONE = "82579_Question_1_2024-10-02_16-03-28_Video"
TWO = "82595_Question_7_2024-10-30_16-15-26_Video-DESKTOP-NQ55E0P"


def spaced(name: str) -> str:
    return name.replace("2024-10-02_16", "2024-10-02 16")


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def challenge(folder: Path) -> Path:
    """As the challenge gives it: folders with underscores, annotations with spaces."""
    put(folder / "default-split" / "train.txt", f"videos/82579/Visite_1/{ONE}.mp4,1,Well, I\u2028do, yes\n\n")
    put(folder / "default-split" / "val.txt", f"videos/82595/Visite_1/{TWO}.mp4,0,\n")
    for person, name in (("82579", ONE), ("82595", TWO)):
        put(folder / "videos" / person / "Visite_1" / f"{name}.mp4")
        for number in (0, 2, 10):
            faces = folder / "cropped-aligned-faces" / person / "Visite_1" / f"{name}.mp4"
            put(faces / f"frame-{number}.jpg")
        put(faces / "Thumbs.db")
        words = folder / "transcription" / person / "Visite_1" / f"{name}.mp4"
        put(words / f"{name}.yml", yaml.safe_dump({"text": f" said by {person} ", "language": "en"}))
    labels = [[f"Visite 1/{spaced(ONE)}.mp4/frame-{k}.jpg", label] for k, label in ((10, 1), (0, 0), (2, 1))]
    put(
        folder / "annotation.yml",
        yaml.safe_dump({f"82579/Visite 1/{spaced(ONE)}.mp4": {"frame_annotation": labels}}),
    )
    return folder


def test_the_challenges_layout(tmp_path: Path) -> None:
    one, two = read_bah(challenge(tmp_path))
    assert (one.id, one.split, one.shows) == (ONE, "train", True)
    assert one.transcript == "Well, I\u2028do, yes"  # commas and odd separators are part of it
    assert one.frames.tolist() == [0, 2, 10]
    assert one.labels.tolist() == [0, 1, 1]
    assert one.video is not None
    assert one.video.is_file()
    assert one.faces is not None
    assert [path.name for _, path in face_pictures(one.faces, BAH_FACES_HZ)] == [
        "frame-0.jpg",
        "frame-2.jpg",
        "frame-10.jpg",
    ]
    assert (two.id, two.split, two.shows) == (TWO, "valid", False)
    assert two.transcript == "said by 82595"  # none in the split, one in the transcripts
    assert two.frames.shape == two.labels.shape == (0,)


def test_words_have_times_where_the_release_gives_them(tmp_path: Path) -> None:
    folder = challenge(tmp_path)
    place = folder / "transcription" / "82579" / "Visite_1" / f"{ONE}.mp4" / f"{ONE}.yml"
    put(
        place,
        "text: ' so it is'\nchunks:\n- text: ' so it'\n  timestamp: !!python/tuple [0.5, 1.5]\n"
        "- {text: ' is', timestamp: [8.0, null]}\n",
    )
    one, two = read_bah(folder)
    assert [(word.text, word.start_ns / 1e9, word.end_ns / 1e9) for word in one.words] == [
        ("so", 0.5, 1.0),
        ("it", 1.0, 1.5),
        ("is", 8.0, 8.0),
    ]
    assert two.words == ()
    assert one.place == f"82579/Visite_1/{ONE}.mp4"
    for wrong in ("[{text: a}]", "[{text: a, timestamp: [2, 1]}]", "so", "[{text: a, timestamp: [x, 1]}]"):
        put(place, f"text: a\nchunks: {wrong}\n")
        with pytest.raises(DataError, match=r"\.yml"):
            read_bah(folder)


def test_the_layout_is_recognised_by_names(tmp_path: Path) -> None:
    assert is_bah(challenge(tmp_path / "BAH"))
    assert not is_bah(tmp_path)
    (tmp_path / "test" / "videos").mkdir(parents=True)
    assert not is_bah(tmp_path / "test")
    (tmp_path / "test" / "transcription").mkdir()
    assert is_bah(tmp_path / "test")  # the challenge's test data have no splits


def test_the_public_layout(tmp_path: Path) -> None:
    splits = tmp_path / "dataset-splits" / "frame-level" / "BAH_DB" / "split-0"
    put(splits / "train.txt", f"Videos/82579/Visite_1/{spaced(ONE)}.mp4,1,I usually get up, then shower\n")
    put(splits / "test.txt", f"Videos/82595/Visite_1/{TWO}.mp4,0,No\n")
    put(splits / "class_id.yaml", "With A-H: 1\nNo A-H: 0\n")
    put(tmp_path / "Videos" / "82579" / "Visite_1" / f"{ONE}.mp4")
    rows = [[f"x/frame-{k}.jpg", k % 2] for k in range(3)]
    put(tmp_path / "video_annotation.yaml", yaml.safe_dump({f"Videos/{ONE}.mp4": {"frame_annotation": rows}}))
    one, two = read_bah(tmp_path)
    assert (one.id, one.split, one.shows, one.transcript) == (
        ONE,
        "train",
        True,
        "I usually get up, then shower",
    )
    assert one.video is not None
    assert one.labels.tolist() == [0, 1, 0]
    assert (two.split, two.video, two.faces) == ("test", None, None)


def test_a_folder_without_splits_is_for_testing(tmp_path: Path) -> None:
    put(tmp_path / "videos" / "1" / "Visite_1" / f"{TWO}.mp4")
    put(tmp_path / "videos" / "1" / "Visite_1" / f"{ONE}.MP4")
    put(tmp_path / "videos" / "1" / "notes.txt")
    assert [(video.id, video.split, video.shows) for video in read_bah(tmp_path)] == [
        (ONE, "test", None),
        (TWO, "test", None),
    ]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("default-split/train.txt", "videos/a.mp4,2,hi\n", "train.txt:1"),
        ("default-split/train.txt", f"videos/{ONE}.mp4,1,hi\nand more\n", "train.txt:2"),
        ("default-split/val.txt", f"videos/{ONE}.mp4,1,hi\n", f"val.txt:1 has {ONE}, which is in train"),
        ("annotation.yml", "- 1\n- 2\n", "table"),
        ("annotation.yml", "a: [1\n", "YAML"),
        ("annotation.yml", "a.mp4: 1\n", "frame_annotation"),
        ("annotation.yml", "a.mp4: {frame_annotation: [[x.jpg, 1]]}", "['x.jpg', 1]"),
        (
            "annotation.yml",
            "a.mp4: {frame_annotation: [[frame-1.jpg, 3]]}",
            "0 or 1",
        ),
        ("annotation.yml", "a: !!python/object/apply:os.system [ls]\n", "YAML"),
        (f"transcription/82595/Visite_1/{TWO}.mp4/{TWO}.yml", "words: hi\n", "has no text"),
    ],
)
def test_what_is_not_bahs_is_refused(tmp_path: Path, file: str, text: str, words: str) -> None:
    put(challenge(tmp_path) / file, text)
    with pytest.raises(DataError) as caught:
        read_bah(tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_anything_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no videos"):
        read_bah(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        read_bah(tmp_path / "none")
