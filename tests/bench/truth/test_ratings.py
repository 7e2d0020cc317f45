from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from emi_bench.truth.folders import write_ratings
from emi_bench.truth.ratings import high_ratings, pairs_of, read_ratings
from emi_live.errors import ConfigurationError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ratings.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_are_ratings_and_words_are_groups(tmp_path: Path) -> None:
    found = read_ratings(
        written(tmp_path, "File,speaker,sex,Arousal,pride,note\na.wav,03,1,2.5,,\nb.wav,08,2,,0.5,loud\n")
    )
    assert found.columns == ("arousal", "pride")
    assert found.groups == ("sex", "note")
    first, second = found.items
    assert (first.path, first.speaker, first.ratings) == (tmp_path / "a.wav", "03", {"arousal": 2.5})
    assert (second.groups, second.ratings) == ({"sex": "2", "note": "loud"}, {"pride": 0.5})
    assert [pair.name for pair in pairs_of(found, ["pride=determination"])] == [
        "excitement / arousal",
        "determination / pride",
    ]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        ("file,joy\n", "no column of numbers"),
        ("name,joy\na,1\n", "no column `file`"),
        ("file,joy\na,1,2\n", "3 cells"),
        ("file,joy,joy\na,1,1\n", "twice"),
        ("file,joy\na,1\nb,much\n", "'much'"),
        ("file,joy\na,inf\n", "finite"),
        ("file,who\na,me\n", "no column of numbers"),
        ("file,text,joy\n,,1\n", "neither a file nor a text"),
    ],
)
def test_what_is_no_table_of_ratings_is_refused(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        read_ratings(written(tmp_path, text))


@pytest.mark.parametrize(
    ("pair", "word"), [("pride", "COLUMN=EMOTION"), ("pride=anger", "anger"), ("shame=joy", "no such column")]
)
def test_a_pair_that_cannot_be_is_refused(tmp_path: Path, pair: str, word: str) -> None:
    found = read_ratings(written(tmp_path, "file,pride\na,1\n"))
    with pytest.raises(ConfigurationError, match=word):
        pairs_of(found, [pair])
    with pytest.raises(ConfigurationError, match="--pair"):
        pairs_of(found, [])


def test_high_is_half_of_a_share_or_the_upper_half_of_a_scale() -> None:
    assert high_ratings(np.array([0, 0.4, 0.5, 1])).tolist() == [False, False, True, True]
    assert high_ratings(np.array([1.0, 3.0, 4.0, 5.0])).tolist() == [False, False, True, True]


def test_ferplus_gives_shares_of_votes_and_larger_pictures(tmp_path: Path) -> None:
    header = "name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
    rows = "a.png,1,7,1,0,0,0,0,0,1,0\nb.png,0,0,0,0,0,0,0,0,2,8\n"
    (tmp_path / "valid.csv").write_text(header + rows)
    np.savez(tmp_path / "valid.npz", pictures=np.zeros((2, 48, 48), np.uint8), names=["a.png", "b.png"])
    path = write_ratings("ferplus", tmp_path / "valid.csv", tmp_path / "out", lambda *_: None)
    (item,) = read_ratings(path).items  # eight of ten saw no face in the other
    assert (item.ratings["happiness"], item.groups) == (0.7, {"majority": "happiness"})
    assert item.path is not None
    picture = cv2.imread(str(item.path))
    assert picture is not None
    assert picture.shape == (320, 320, 3)
    assert (picture[0, 0, 0], picture[160, 160, 0]) == (128, 0)  # a grey margin, as in the recipe

    # Pictures that are the same are not written again: what is kept of them would be lost.
    before = item.path.stat().st_mtime_ns
    os.utime(item.path, ns=(before - 10**9, before - 10**9))
    write_ratings("ferplus", tmp_path / "valid.csv", tmp_path / "out", lambda *_: None)
    assert item.path.stat().st_mtime_ns == before - 10**9
    np.savez(tmp_path / "valid.npz", pictures=np.ones((2, 48, 48), np.uint8), names=["a.png", "b.png"])
    write_ratings("ferplus", tmp_path / "valid.csv", tmp_path / "out", lambda *_: None)
    assert item.path.stat().st_mtime_ns > before - 10**9


def test_emodb_gives_arousal_and_what_listeners_heard(tmp_path: Path) -> None:
    lines = "file\tspeaker\tsentence\temotion\trecognised_percent\tnatural_percent\n"
    lines += "a.flac\t03\ta01\thappiness\t90.0\t75.0\nb.flac\t08\ta01\tsadness\t80.0\t75.0\n"
    (tmp_path / "emodb.tsv").write_text(lines)
    first, second = read_ratings(
        write_ratings("emodb", tmp_path / "emodb.tsv", tmp_path / "out", lambda *_: None)
    ).items
    assert first.ratings == {"arousal": 1, "valence": 1, "happiness": 0.9, "sadness": 0}
    assert second.ratings == {"arousal": 0, "valence": 0, "happiness": 0, "sadness": 0.8}
    assert (first.groups["sex"], second.groups["sex"], first.path) == ("m", "f", tmp_path / "a.flac")


def test_goemotions_gives_the_six(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("joy\ncaring\nneutral\n")
    (tmp_path / "dev.tsv").write_text("so, happy!\t0,1\tid1\nfine\t2\tid2\n")
    first, second = read_ratings(
        write_ratings("goemotions", tmp_path / "dev.tsv", tmp_path / "out", lambda *_: None)
    ).items
    assert (first.text, first.ratings["joy"], first.ratings["empathic_pain"]) == ("so, happy!", 1.0, 0.5)
    assert set(second.ratings.values()) == {0.0}


@pytest.mark.parametrize("kind", ["ferplus", "emodb", "goemotions"])
def test_another_file_is_refused_with_what_is_wanted(tmp_path: Path, kind: str) -> None:
    (tmp_path / "labels.txt").write_text("joy\n")
    wrong = tmp_path / "wrong.tsv"
    wrong.write_text("something else\n")
    for source in (wrong, tmp_path / "none"):
        with pytest.raises(ConfigurationError, match="give"):
            write_ratings(kind, source, tmp_path / "out", lambda *_: None)
