from __future__ import annotations

import json
import logging
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from emi_models.data import open_clips
from emi_models.data.clip import WINDOW_S
from emi_models.data.feature_files import read_frames
from emi_models.data.vidmimic import VidmimicClips
from emi_models.errors import DataError
from tests.models.data.folders import make_vidmimic, vectors, write_split
from tests.models.data.pickles import Calls, dumped, write_pickle

if TYPE_CHECKING:
    from pathlib import Path

    from emi_models.data.clip import ClipSet

S = 1_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_vidmimic(tmp_path / "data")


def test_the_official_layout_is_a_set_of_clips(folder: Path) -> None:
    clips: ClipSet = VidmimicClips(folder)
    assert clips.ids("train") == ("00000", "00001")
    assert clips.ids("valid") == ("00002",)
    assert clips.ids("test") == ()
    assert clips.targets("train")[0].tolist() == pytest.approx([0.1, 0.2, 0.3, 0, 0.5, 1])
    shapes = clips.shapes
    assert (shapes.vision_frames, shapes.vision_dim) == (400, 3)
    assert (shapes.audio_frames, shapes.audio_dim) == (599, 4)
    assert shapes.text_dim == 5
    assert clips.encoders == {
        "vision": "hume-vidmimic2/vit-3",
        "audio": "hume-vidmimic2/wav2vec2-4",
        "text": "hume-vidmimic2/gte-5",
    }
    assert clips.description == "Hume-Vidmimic2: 2 train, 1 valid clips"
    assert "research only" in clips.licence
    clip = clips.load("00001")
    assert np.array_equal(clip.vision.values, vectors(30, 3, 1))
    assert np.array_equal(clip.audio.values, vectors(250, 4, 1))
    assert np.array_equal(clip.text.values, vectors(1, 5, 1))
    assert clip.vision.t_ns[:3].tolist() == [0, 166_666_667, 333_333_333]
    assert clip.audio.t_ns[:2].tolist() == [25_000_000, 45_000_000]
    assert clip.duration_ns == 5_005_000_000  # 249 hops and a frame of voice
    assert clip.text.t_ns.tolist() == [clip.duration_ns]
    assert clip.targets is not None


def test_words_are_known_only_at_the_end_so_that_prefixes_do_not_leak_them(folder: Path) -> None:
    clips = VidmimicClips(folder)
    clip = clips.load("00001")
    early = clip.window(clips.shapes, 5 * S)
    assert not early.text_present.item()
    assert early.vision_mask.sum() == 30
    assert early.audio_mask.sum() == 249
    whole = clip.window(clips.shapes, clip.duration_ns)
    assert whole.text_present.item()
    assert np.array_equal(whole.text.numpy(), vectors(1, 5, 1))


def test_opening_again_converts_nothing_and_needs_no_pickles(folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    VidmimicClips(folder, progress=lambda *said: told.append(said))
    assert told[-1] == ("gte", 3, 3)
    assert {name for name, _, _ in told} == {"vit", "wav2vec2", "gte"}
    assert [done for name, done, _ in told if name == "vit"] == [0, 1, 2, 3]
    first = VidmimicClips(folder).load("00001")
    told.clear()
    for name in ("vit", "wav2vec2", "gte"):
        shutil.rmtree(folder / name)
    again = VidmimicClips(folder, progress=lambda *said: told.append(said)).load("00001")
    assert told == []
    assert np.array_equal(again.audio.values, first.audio.values)


def test_a_conversion_that_was_interrupted_goes_on(folder: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(name: str, done: int, total: int) -> None:
        if (name, done) == ("wav2vec2", 2):
            raise StoppedError

    with pytest.raises(StoppedError):
        VidmimicClips(folder, progress=stop)
    (folder / "emi-cache" / "wav2vec2" / ".00002.safetensors.abc.part").write_bytes(b"half")
    told: list[tuple[str, int, int]] = []
    clips = VidmimicClips(folder, progress=lambda *said: told.append(said))
    assert [said for said in told if said[0] != "gte"] == [("wav2vec2", 0, 1), ("wav2vec2", 1, 1)]
    assert np.array_equal(clips.load("00002").audio.values, vectors(50, 4, 2))


def test_a_file_that_has_changed_is_converted_again(folder: Path) -> None:
    VidmimicClips(folder)
    write_pickle(folder / "vit" / "00001.pkl", vectors(31, 3, 7))
    assert np.array_equal(VidmimicClips(folder).load("00001").vision.values, vectors(31, 3, 7))


def test_a_damaged_index_is_made_again(folder: Path) -> None:
    VidmimicClips(folder)
    index = folder / "emi-cache" / "vit" / "index.json"
    for damage in (
        "",
        "[]",
        '{"format_version": 2, "clips": {}}',
        '{"format_version": 1, "clips": {"a": {"x": 1}}}',
    ):
        index.write_text(damage)
        assert len(VidmimicClips(folder).load("00001").vision.t_ns) == 30
    (folder / "emi-cache" / "vit" / "00001.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"remove .*vit"):
        VidmimicClips(folder).load("00001")


def test_bad_files_are_listed_and_their_clips_lack_that_modality(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark = folder / "called"
    write_split(folder, "train", {str(number): [0.5] * 6 for number in (0, 1, *range(3, 9))})
    write_pickle(folder / "vit" / "3.pkl", Calls(mark.mkdir))
    write_pickle(folder / "vit" / "00004.pkl", vectors(4, 9))
    write_pickle(folder / "vit" / "00005.pkl", np.array([None]))
    (folder / "vit" / "00006.pkl").write_bytes(dumped(vectors(2, 3))[:-30])
    write_pickle(folder / "vit" / "00007.pkl", vectors(2, 3).reshape(1, 2, 3))
    write_pickle(folder / "gte" / "00008.pkl", vectors(7, 5))
    with caplog.at_level(logging.WARNING):
        clips = VidmimicClips(folder)
    assert not mark.exists()
    refused = clips.features["vision"].refused
    assert refused["00003"].startswith("3.pkl is refused: it asks for ")
    assert refused["00004"] == "clip 00004 has 9 values a frame, most others 3"
    assert "of type 'O8'" in refused["00005"]
    assert refused["00006"].startswith("00006.pkl is not a readable pickle")
    assert refused["00007"].startswith("00007.pkl has shape (1, 2, 3), not (frames, values)")
    assert clips.features["text"].refused == {
        "00008": "clip 00008 has 7 rows, not the one vector of all its words"
    }
    assert clips.shapes.vision_dim == 3
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "5 files of vit are skipped",
        "1 files of gte are skipped",
    ]
    assert str(folder) not in caplog.text
    for clip_id in refused:
        clip = clips.load(clip_id)
        assert clip.vision.values.shape == (0, 3)
    assert clips.load("00008").text.values.shape == (0, 5)


def test_the_odd_width_is_refused_even_if_it_comes_first(folder: Path) -> None:
    write_pickle(folder / "vit" / "00000.pkl", vectors(4, 9))
    clips = VidmimicClips(folder)
    assert clips.shapes.vision_dim == 3
    assert list(clips.features["vision"].refused) == ["00000"]


def test_frames_that_are_not_finite_leave_a_gap_in_time(folder: Path) -> None:
    values = vectors(12, 3)
    values[2:5] = np.nan
    write_pickle(folder / "vit" / "00000.pkl", values)
    clips = VidmimicClips(folder)
    clip = clips.load("00000")
    assert (clip.vision.t_ns * 6 / 1e9).round().astype(int).tolist() == [0, 1, 5, 6, 7, 8, 9, 10, 11]
    assert clips.features["vision"].dropped == 3
    assert clip.duration_ns == 2_005_000_000


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_clips_of_a_twentieth_of_a_second(folder: Path, frames: int) -> None:
    write_pickle(folder / "vit" / "00000.pkl", vectors(frames, 3))
    write_pickle(folder / "wav2vec2" / "00000.pkl", vectors(frames, 4))
    clips = VidmimicClips(folder)
    clip = clips.load("00000")
    assert len(clip.vision.t_ns) == len(clip.audio.t_ns) == frames
    window = clip.window(clips.shapes, clip.duration_ns)
    window.check(clips.shapes)
    assert window.vision_present.item() == window.audio_present.item() == (frames > 0)
    assert window.vision_mask.sum() == window.audio_mask.sum() == frames
    assert window.text_present.item()


def test_of_a_clip_of_twenty_minutes_twelve_seconds_are_kept(folder: Path) -> None:
    write_pickle(folder / "vit" / "00000.pkl", vectors(12_500, 3))
    write_pickle(folder / "wav2vec2" / "00000.pkl", vectors(62_495, 4))
    clips = VidmimicClips(folder)
    clip = clips.load("00000")
    assert clip.audio.values.shape == (599, 4)
    assert clip.vision.values.shape == (73, 3)
    assert clip.audio.values.base is None or clip.audio.values.base.nbytes < 20_000
    assert clip.duration_ns == 2083_333_333_333
    assert clip.text.t_ns.tolist() == [12 * S]  # the papers show all words next to the first 12 s
    window = clip.window(clips.shapes, round(WINDOW_S * 1e9))
    assert window.audio_mask.sum() == 599
    assert window.text_present.item()


def test_words_are_missing_where_there_is_no_vector_or_no_transcript(folder: Path) -> None:
    write_split(folder, "train", {str(number): [0.5] * 6 for number in (0, 1, 3, 4, 5, 6)})
    for number in (3, 4, 5, 6):
        write_pickle(folder / "gte" / f"{number:05d}.pkl", vectors(1, 5)[0])
    write_pickle(folder / "gte" / "00005.pkl", np.zeros(5, np.float32))
    write_pickle(folder / "gte" / "00006.pkl", np.full(5, np.nan))
    (folder / "gte" / "00001.pkl").unlink()
    assert [len(VidmimicClips(folder).load(f"{number:05d}").text.t_ns) for number in (0, 1, 3, 4, 5, 6)] == [
        1,
        0,
        1,
        1,
        0,
        0,
    ]
    (folder / "text").mkdir()
    for number, words in ((0, "well done"), (1, "oh"), (3, " \n"), (5, "a"), (6, "b")):
        (folder / "text" / f"{number:05d}.txt").write_text(words)  # 4 has none
    clips = VidmimicClips(folder)
    assert [len(clips.load(f"{number:05d}").text.t_ns) for number in (0, 1, 3, 4, 5, 6)] == [1, 0, 0, 0, 0, 0]
    assert (clips.transcript("00000"), clips.transcript("00003"), clips.transcript("00004")) == (
        "well done",
        "",
        "",
    )


def test_strangers_in_the_folders_are_passed_over(folder: Path) -> None:
    for place in ("vit", "gte", "."):
        (folder / place / "Thumbs.db").write_bytes(b"\xd0\xcf")
        (folder / place / ".DS_Store").write_bytes(b"")
        (folder / place / "._00000.pkl").write_bytes(b"")
        (folder / place / "readme.md").write_text("hello")
    write_pickle(folder / "vit" / "77777.pkl", vectors(2, 9))  # of a clip that no split has
    clips = VidmimicClips(folder)
    assert len(clips.features["vision"]) == 3
    assert clips.features["vision"].refused == {}


def test_names_with_and_without_padding_are_accepted_but_not_both(folder: Path) -> None:
    (folder / "vit" / "00001.pkl").rename(folder / "vit" / "1.pkl")
    assert len(VidmimicClips(folder).load("00001").vision.t_ns) == 30
    write_pickle(folder / "vit" / "00001.pkl", vectors(2, 3))
    with pytest.raises(DataError, match="one clip"):
        VidmimicClips(folder)


@pytest.mark.parametrize("below", ["test_data", "test"])
def test_the_test_split_may_lie_apart_and_is_not_rated_by_zeros(folder: Path, below: str) -> None:
    write_split(folder, "test", {"12660": [0] * 6})
    write_pickle(folder / below / "vit" / "12660.pkl", vectors(5, 3))
    (folder / below / "text").mkdir()
    (folder / below / "text" / "12660.txt").write_text("hi")
    clips = VidmimicClips(folder)
    assert clips.ids("test") == ("12660",)
    assert len(clips.load("12660").vision.t_ns) == 5
    assert clips.load("12660").targets is None
    assert clips.transcript("12660") == "hi"
    assert np.isnan(clips.targets("test")).all()
    assert clips.targets("train")[1].tolist() == [0, 0, 0, 0, 0, 0.25]
    write_split(folder, "test", {"12660": [0] * 6, "12661": [0, 0, 0, 0, 0, 1]})
    assert not np.isnan(VidmimicClips(folder).targets("test")).any()


@pytest.mark.parametrize("scored", [False, True])
def test_one_file_may_hold_the_whole_set(folder: Path, scored: bool) -> None:
    faces = {"00000": vectors(39, 6, 1), 1: vectors(2, 6, 2), "00009": vectors(2, 6)}
    write_pickle(folder / "mobilevit.pkl", [faces, {"00000": vectors(39, 8)}] if scored else faces)
    told: list[tuple[str, int, int]] = []
    clips = VidmimicClips(folder, vision="mobilevit.pkl", progress=lambda *said: told.append(said))
    assert clips.shapes.vision_dim == 6
    assert clips.encoders["vision"] == "hume-vidmimic2/mobilevit.pkl-6"
    assert np.array_equal(clips.load("00000").vision.values, vectors(39, 6, 1))
    assert np.array_equal(clips.load("00001").vision.values, vectors(2, 6, 2))
    assert len(clips.load("00002").vision.t_ns) == 0  # it is not in the file
    told.clear()
    VidmimicClips(folder, vision="mobilevit.pkl", progress=lambda *said: told.append(said))
    assert told == []
    write_pickle(folder / "list.pkl", [1.0, 2.0])
    with pytest.raises(DataError, match="holds a list"):
        VidmimicClips(folder, vision="list.pkl")


def test_folders_are_chosen_by_name(folder: Path, tmp_path: Path) -> None:
    for number in range(3):
        torch.save(torch.ones(4, 7), write_pickle(folder / "googlevit" / f"{number:05d}.pt", 0))
        np.save(write_pickle(tmp_path / "elsewhere" / "bert" / f"{number}.npy", 0), vectors(1, 8)[0])
    clips = VidmimicClips(folder, vision="googlevit", audio="none", text=str(tmp_path / "elsewhere" / "bert"))
    assert (clips.shapes.vision_dim, clips.shapes.audio_dim, clips.shapes.text_dim) == (7, 1, 8)
    assert set(clips.encoders) == {"vision", "text"}
    clip = clips.load("00001")
    assert clip.audio.values.shape == (0, 1)
    assert clip.duration_ns == round(4e9 / 6)
    clip.window(clips.shapes, clip.duration_ns).check(clips.shapes)
    assert len(list((folder / "emi-cache").iterdir())) == 2


def test_the_cache_may_be_elsewhere(folder: Path, tmp_path: Path) -> None:
    clips = VidmimicClips(folder, cache=tmp_path / "cache")
    assert len(clips.load("00001").vision.t_ns) == 30
    assert not (folder / "emi-cache").exists()
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["gte", "vit", "wav2vec2"]


def test_dataset_json_says_what_is_other_than_usual(folder: Path) -> None:
    metadata = {
        "features": {"vision": "vit", "text": "gte"},
        "encoders": {"vision": "made-up"},
        "vision_hz": 5,
        "audio_hz": 10.0,
        "description": "synthetic clips",
        "licence": "CC0",
        "notice": "for others",
    }
    (folder / "dataset.json").write_text(json.dumps(metadata))
    clips = VidmimicClips(folder)
    assert clips.description == "synthetic clips"
    assert clips.licence == "CC0"
    assert clips.encoders["vision"] == "made-up"
    assert (clips.shapes.vision_frames, clips.shapes.audio_frames) == (60, 120)
    clip = clips.load("00001")
    assert clip.vision.t_ns[:2].tolist() == [0, 200_000_000]
    assert clip.audio.t_ns[:2].tolist() == [0, 100_000_000]
    assert clip.duration_ns == 25 * S
    changes: list[dict[str, object]] = [
        {"vision_hz": 0},
        {"features": {"smell": "x"}},
        {"encoders": []},
        {"licence": 1},
    ]
    for change in changes:
        (folder / "dataset.json").write_text(json.dumps(metadata | change))
        with pytest.raises(DataError, match=r"vision_hz|features|encoders|licence"):
            VidmimicClips(folder)
    (folder / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="understood"):
        VidmimicClips(folder)


def test_the_rate_of_faces_can_be_compared_with_the_voice(folder: Path) -> None:
    clips = VidmimicClips(folder)
    assert clips.faces_hz() == pytest.approx(6.0, abs=0.05)  # 00001: 30 faces in 5.005 s; 00002 is too short
    assert VidmimicClips(folder, audio="none").faces_hz() is None


def test_what_cannot_be_opened_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dino"):
        VidmimicClips(folder, vision="dino")
    with pytest.raises(DataError, match="into vit"):
        VidmimicClips(folder, vision="none", audio="none", text="none")
    with pytest.raises(DataError, match="99999"):
        VidmimicClips(folder).load("99999")
    write_split(folder, "valid", {"00001": [0.5] * 6})
    with pytest.raises(DataError, match="train too"):
        VidmimicClips(folder)
    write_split(tmp_path / "bare", "train", {"1": [0.5] * 6})
    with pytest.raises(DataError, match="no features"):
        open_clips(tmp_path / "bare")
    write_split(tmp_path / "nobody", "train", {})
    with pytest.raises(DataError, match="train_split"):
        open_clips(tmp_path / "nobody")


def test_without_a_test_csv_the_test_splits_own_folder_lists_its_clips(folder: Path) -> None:
    for number in (9, 7):
        write_pickle(folder / "test_data" / "vit" / f"{number:05d}.pkl", vectors(4, 3, number))
    write_pickle(folder / "test_data" / "gte" / "00008.pkl", vectors(1, 5, 8)[0])
    clips = VidmimicClips(folder)
    assert clips.ids("test") == ("00007", "00008", "00009")
    assert np.isnan(clips.targets("test")).all()
    assert clips.load("00008").vision.values.shape == (0, 3)


@pytest.mark.parametrize("place", ["", "test", "test_data"])
def test_the_test_csv_may_lie_with_the_test_splits_features(folder: Path, place: str) -> None:
    write_split(folder / place, "test", {"00004": [0] * 6, "00003": [0] * 6})
    assert VidmimicClips(folder).ids("test") == ("00004", "00003")


def write_openface(path: Path, rows: list[list[object]], header: str = "") -> Path:
    names = header or "frame, face_id, timestamp, confidence, success, pose_Tx, pose_Ty, pose_Tz, pose_Rx, "
    names += "" if header else "pose_Ry, pose_Rz, AU01_r, AU45_r, AU01_c"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([names, *(", ".join(map(str, row)) for row in rows)]) + "\n")
    return path


def line(frame: int, confidence: float = 0.9, success: int = 1, unit: float = 5.0) -> list[object]:
    return [frame, 0, frame / 30, confidence, success, 100, -200, 600, 0.1, 0.2, -0.3, unit, 0, 1]


def test_a_csv_of_openface_is_motion(tmp_path: Path) -> None:
    rows = [line(1), line(2, success=0), line(4, 0.5), line(4, 0.8, unit=2.5), line(4, 0.7)]
    frames = read_frames(write_openface(tmp_path / "a.csv", rows))
    assert frames.index.tolist() == [0, 3]
    assert (frames.total, frames.dropped) == (4, 2)
    assert frames.values[0].tolist() == pytest.approx([1.0, 0.0, 0.1, -0.2, 0.6, 0.1, 0.2, -0.3])
    assert frames.values[1][0] == pytest.approx(0.5)
    empty = read_frames(write_openface(tmp_path / "b.csv", []))
    assert (empty.total, empty.values.shape) == (0, (0, 8))


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [([], "frame, timestamp", "pose_Rx"), ([[1, 2]], "", "2"), ([["x"] * 14], "", "b.csv:2")],
)
def test_another_csv_is_refused(rows: list[list[object]], header: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_frames(write_openface(tmp_path / "b.csv", rows, header))


def test_motion_lies_next_to_faces_with_its_own_times(folder: Path) -> None:
    for number in range(3):
        write_openface(folder / "openface" / f"{number:05d}.csv", [line(k + 1) for k in range(60)])
    clips = VidmimicClips(folder, motion="openface")
    assert clips.motion_dim == 8
    assert clips.motion_hz == pytest.approx((60 / 2.005 + 60 / 5.005) / 2)  # the median of two voices
    assert clips.shapes.vision_dim == 3 + 8 + 2
    assert clips.encoders["vision"] == "hume-vidmimic2/vit-3+hume-vidmimic2/openface-8"
    track = clips.load("00000").vision
    face, motion = track.values[:, -2] == 1, track.values[:, -1] == 1
    assert (face ^ motion).all()
    assert np.array_equal(track.values[face, :3], vectors(12, 3, 0))
    assert not track.values[motion, :3].any()
    assert not track.values[face, 3:11].any()
    assert track.values[motion, 3:11].shape == (60, 8)
    assert (np.diff(track.t_ns) >= 0).all()
    alone = VidmimicClips(folder, vision="none", motion="openface")
    assert (alone.shapes.vision_dim, alone.motion_dim) == (8, 8)
    assert alone.load("00000").vision.values.shape == (60, 8)
    (folder / "dataset.json").write_text('{"motion_hz": 20, "features": {"motion": "openface"}}')
    assert VidmimicClips(folder).motion_hz == 20
    (folder / "dataset.json").unlink()
    assert VidmimicClips(folder).motion_dim == 0


def test_whole_faces_are_the_first_400_of_the_clip(folder: Path) -> None:
    write_pickle(folder / "vit" / "00001.pkl", vectors(500, 3, 1))  # 83 s
    (folder / "dataset.json").write_text('{"whole_faces": true, "vision_hz": 6}')
    clips = VidmimicClips(folder)
    assert clips.shapes.vision_frames == 400
    assert clips.encoders["vision"] == "hume-vidmimic2/vit-3, 400 of the clip"
    for clip_id, count in (("00001", 400), ("00000", 12)):
        clip = clips.load(clip_id)
        assert len(clip.vision.t_ns) == count
        end_ns = min(clip.duration_ns, round(WINDOW_S * S))
        window = clip.window(clips.shapes, end_ns)
        assert int(window.vision_mask.sum()) == count
        assert clip.vision.t_ns[-1] == end_ns
    assert np.array_equal(clips.load("00001").vision.values, vectors(500, 3, 1)[:400])
    (folder / "dataset.json").write_text('{"whole_faces": 1}')
    with pytest.raises(DataError, match="whole_faces"):
        VidmimicClips(folder)
