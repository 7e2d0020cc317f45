from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from emi_models.data.clip import FeatureTrack, Rating, read_clip, read_metadata, write_clip
from emi_models.data.dataset import COLUMNS, ClipWriter, ManifestClips, read_info, read_manifest, write_info
from emi_models.errors import DataError
from emi_models.inputs import FusionShapes
from tests.models.data.folders import INFO, SHAPES, make_clip, vectors, write_split

if TYPE_CHECKING:
    from pathlib import Path

    from emi_models.data.clip import ClipSet

RATED = Rating(np.array([0.1, 0.2, 0.3, 0, 1, 0.7], np.float32), "valid")


def made(folder: Path, *ids: str) -> ClipWriter:
    writer = ClipWriter(folder, INFO)
    for seed, clip_id in enumerate(ids):
        writer.write(
            make_clip(clip_id, 2.0 + seed, seed), transcript=f"words of {clip_id}", source=f"/v/{clip_id}.mp4"
        )
    writer.write_manifest()
    return writer


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    made(tmp_path, "b", "a b, c", "00007")
    clips: ClipSet = ManifestClips(tmp_path)
    assert clips.ids("train") == ("00007", "a b, c", "b")
    assert clips.ids("valid") == clips.ids("test") == ()
    assert clips.shapes == SHAPES
    assert clips.encoders == INFO.encoders
    assert clips.licence == "CC0"
    assert clips.description == "clips of the tests: 3 train clips"
    assert np.isnan(clips.targets("train")).all()
    found, expected = clips.load("a b, c"), make_clip("a b, c", 3.0, 1)
    assert (found.id, found.duration_ns, found.targets) == ("a b, c", 3_000_000_000, None)
    for modality in ("vision", "audio", "text"):
        track: FeatureTrack = getattr(found, modality)
        assert np.array_equal(track.values, getattr(expected, modality).values)
        assert np.array_equal(track.t_ns, getattr(expected, modality).t_ns)
        assert track.values.dtype == np.float32
    assert ManifestClips(tmp_path).transcript("b") == "words of b"
    assert ManifestClips(tmp_path).durations_s("train") == (4.0, 3.0, 2.0)


def test_only_the_name_of_the_source_is_kept(tmp_path: Path) -> None:
    for source in ("/home/anna/private/x.mp4", "C:\\Users\\anna\\x.mp4", "x.mp4"):
        write_clip(tmp_path / "x.safetensors", make_clip("x"), source=source)
        assert read_metadata(tmp_path / "x.safetensors").source == "x.mp4"
        assert b"anna" not in (tmp_path / "x.safetensors").read_bytes()


def test_clips_without_any_frame_are_clips(tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path, INFO)
    writer.write(
        replace(make_clip("x", 0.064, words=False), vision=FeatureTrack.empty(3), audio=FeatureTrack.empty(4))
    )
    writer.write_manifest()
    clip = ManifestClips(tmp_path).load("x")
    assert [len(track.t_ns) for track in (clip.vision, clip.audio, clip.text)] == [0, 0, 0]
    assert clip.vision.values.shape == (0, 3)
    assert clip.duration_ns == 64_000_000


def test_of_a_long_clip_the_first_seconds_are_read(tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path, INFO)
    writer.write(make_clip("x", 1200.0))
    writer.write_manifest()
    clip = ManifestClips(tmp_path).load("x")
    assert clip.duration_ns == 1_200_000_000_000
    assert max(track.t_ns[-1] for track in (clip.vision, clip.audio, clip.text)) <= 12_000_000_000
    assert clip.audio.values.shape == (601, 4)
    assert clip.audio.values.base is None or clip.audio.values.base.nbytes == clip.audio.values.nbytes
    whole = ManifestClips(tmp_path, first_s=None).load("x")
    assert len(whole.audio.t_ns) == 60_000


def test_a_writer_goes_on_where_it_stopped(tmp_path: Path) -> None:
    made(tmp_path, "a")
    (tmp_path / "features" / ".b.safetensors.xyz.part").write_bytes(b"half")
    (tmp_path / "features" / "Thumbs.db").write_bytes(b"")
    writer = ClipWriter(tmp_path, INFO)
    assert writer.path("a").is_file()
    assert not writer.path("b").exists()
    writer.write(make_clip("b"))
    assert [row.id for row in writer.write_manifest()] == ["a", "b"]
    other = replace(INFO, encoders={**INFO.encoders, "audio": "voice@2"})
    with pytest.raises(DataError, match="voice@2"):
        ClipWriter(tmp_path, other)
    ClipWriter(tmp_path, replace(INFO, description="said otherwise"))


def test_a_new_manifest_keeps_ratings_and_takes_given_ones(tmp_path: Path) -> None:
    writer = made(tmp_path, "1", "2", "3")
    writer.write_manifest({"00001": RATED, "00009": RATED})
    writer.write_manifest({"00002": Rating(RATED.targets)})
    rows = {row.id: row.rating for row in read_manifest(tmp_path)}
    assert (rows["1"].split, rows["2"].split, rows["3"].split) == ("valid", "", "")
    assert rows["3"].targets is None
    for name in ("1", "2"):
        targets = rows[name].targets
        assert targets is not None
        assert targets.tobytes() == np.asarray(RATED.targets).tobytes()  # to the last bit


@given(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6))
def test_ratings_survive_the_table(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    folder = tmp_path_factory.mktemp("data")
    rating = Rating(np.array(values, np.float32))
    made(folder, "x").write_manifest({"x": rating})
    assert np.array_equal(ManifestClips(folder).targets("train"), np.array([values], np.float32))


def test_labels_are_joined_from_another_file(tmp_path: Path) -> None:
    made(tmp_path / "data", "00001", "2", "3")
    write_split(tmp_path / "official", "train", {"1": [1, 0, 0, 0, 0, 0]})
    write_split(tmp_path / "official", "valid", {"00002": [0, 1, 0, 0, 0, 0], "9": [0] * 6})
    clips = ManifestClips(tmp_path / "data", labels=tmp_path / "official")
    assert (clips.ids("train"), clips.ids("valid")) == (("00001", "3"), ("2",))
    assert clips.targets("valid").tolist() == [[0, 1, 0, 0, 0, 0]]
    assert np.isnan(clips.targets("train")[1]).all()
    targets = clips.load("2").targets
    assert targets is not None
    assert targets.tolist() == [0, 1, 0, 0, 0, 0]
    writer = ClipWriter(tmp_path / "data", INFO)
    writer.write_manifest({"00003": RATED})
    one = write_split(tmp_path / "official", "train", {"1": [1] * 6, "3": [1] * 6})
    kept = ManifestClips(tmp_path / "data", labels=one)  # which says no split, so the manifest's counts
    assert kept.ids("valid") == ("3",)
    assert kept.targets("valid").tolist() == [[1] * 6]
    write_split(tmp_path / "other", "train", {"77": [0] * 6})
    with pytest.raises(DataError, match="rates no clip"):
        ManifestClips(tmp_path / "data", labels=tmp_path / "other")


def test_clips_to_validate_are_drawn_by_id_and_seed(tmp_path: Path) -> None:
    writer = made(tmp_path, *(f"{number:05d}" for number in range(20)))
    clips = ManifestClips(tmp_path, valid_fraction=0.25, seed=1)
    drawn = set(clips.ids("valid"))
    assert len(drawn) == 5
    assert drawn | set(clips.ids("train")) == {f"{number:05d}" for number in range(20)}
    assert not drawn & set(clips.ids("train"))
    assert "0.25 of the clips drawn to validate with seed 1" in clips.description
    assert set(ManifestClips(tmp_path, valid_fraction=0.25, seed=1).ids("valid")) == drawn
    assert set(ManifestClips(tmp_path, valid_fraction=0.25, seed=2).ids("valid")) != drawn
    for clip_id in sorted(set(clips.ids("train")))[:5]:
        writer.path(clip_id).unlink()
    writer.write_manifest()
    assert set(ManifestClips(tmp_path, valid_fraction=0.25, seed=1).ids("valid")) <= drawn
    writer.write_manifest({"00019": RATED})
    named = ManifestClips(tmp_path, valid_fraction=0.25, seed=1)
    assert named.ids("valid") == ("00019",)  # clips named for it are the only ones
    assert "drawn" not in named.description
    with pytest.raises(DataError, match=r"valid_fraction is 1\.0"):
        ManifestClips(tmp_path, valid_fraction=1.0)


def bad(track: str) -> FeatureTrack:
    good = make_clip("x").vision
    values, t_ns = good.values.copy(), good.t_ns.copy()
    match track:
        case "nan":
            values[3, 1] = np.nan
        case "back":
            t_ns[3] = 0
        case "short":
            t_ns = t_ns[1:]
        case "flat":
            values = values[:, 0]
        case "double":
            return FeatureTrack(t_ns, values.astype(np.float64))
    return FeatureTrack(t_ns, values)


@pytest.mark.parametrize("track", ["nan", "back", "short", "flat", "double"])
def test_a_clip_that_is_not_sound_is_not_written(tmp_path: Path, track: str) -> None:
    with pytest.raises(DataError, match="vision"):
        write_clip(tmp_path / "x.safetensors", replace(make_clip("x"), vision=bad(track)))
    assert list(tmp_path.iterdir()) == []


def test_a_clip_that_is_not_sound_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_clip(path, make_clip("x"))
    with pytest.raises(DataError, match="shape"):
        read_clip(path, FusionShapes(400, 3, 599, 9, 5))
    whole = path.read_bytes()
    for damage in (whole[:40], whole[:-9], b""):
        path.write_bytes(damage)
        with pytest.raises(DataError, match=r"x\.safetensors"):
            read_clip(path, SHAPES)
    save_file({"vision": vectors(2, 3)}, path)
    with pytest.raises(DataError, match="not a clip"):
        read_clip(path, SHAPES)
    with pytest.raises(DataError, match=r"none\.safetensors"):
        read_metadata(tmp_path / "none.safetensors")


def test_a_file_under_another_clips_name_is_refused(tmp_path: Path) -> None:
    writer = made(tmp_path, "a", "b")
    writer.path("b").replace(writer.path("a"))
    with pytest.raises(DataError, match="clip b"):
        ManifestClips(tmp_path).load("a")
    with pytest.raises(DataError, match="cannot be read"):
        ManifestClips(tmp_path).load("b")
    with pytest.raises(DataError, match="clip 'z'"):
        ManifestClips(tmp_path).load("z")


LINE = "a,train,1.0,features/a.safetensors,,,,,,"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,split\n", ":1 has the header 'id,split', not 'id,split,duration_s,features,admiration"),
        (f"{LINE[:-1]}\n", ":2 has 9 cells, not 10"),
        (f"{LINE}\n\n{LINE}\n", ":4 has clip a a second"),
        (LINE.replace("train", "dev"), ":2 has the split 'dev'"),
        (LINE.replace("1.0", "-1"), ":2 has '-1' for duration_s"),
        (LINE.replace("1.0", "inf"), "'inf' for duration_s"),
        (LINE.replace("1.0", "long"), "'long' for duration_s"),
        (LINE.replace("features/a", "/etc/a"), "'/etc/a.safetensors'"),
        (LINE.replace("features/a", "../a"), "'../a.safetensors'"),
        (LINE.replace("features/a", "x\\..\\a"), ":2 has features at"),
        (LINE.replace("a,train", "../a,train"), "clip id"),
        (LINE[:-1] + ",1.5", ":2 has '1.5' for joy"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    write_info(tmp_path, INFO)
    (tmp_path / "manifest.csv").write_text(text if text.startswith("id") else f"{','.join(COLUMNS)}\n{text}")
    with pytest.raises(DataError) as caught:
        ManifestClips(tmp_path)
    assert words in str(caught.value)


def test_the_description_is_read_back_or_refused(tmp_path: Path) -> None:
    write_info(tmp_path, INFO)
    assert read_info(tmp_path) == INFO
    path = tmp_path / "dataset.json"
    metadata = json.loads(path.read_text())
    for change, words in (
        ({"format_version": 2}, "format version 2, this emi-live reads 1"),
        ({"encoders": {"smell": "x"}}, "encoders {'smell': 'x'}"),
        ({"encoders": {"text": 1}}, "1 is not text"),
        ({"shapes": {"vision_frames": 0}}, "missing 4 required"),
        ({"shapes": {**metadata["shapes"], "text_dim": 0}}, "text_dim is 0"),
        ({"extra": 1}, "unexpected keyword"),
    ):
        path.write_text(json.dumps(metadata | change))
        with pytest.raises(DataError) as caught:
            read_info(tmp_path)
        assert words in str(caught.value)
    for text in ("[]", "{", "null"):
        path.write_text(text)
        with pytest.raises(DataError, match="cannot be understood"):
            read_info(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read_info(tmp_path)
