from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from emi_live.errors import ConfigurationError, SourceError
from emi_live.extract.folder import LEDGER, Entry, claimed, leave_note, list_videos, rate
from emi_live.extract.pool import Job, Ready, Refused, Written
from emi_live.extract.run import Report, extract
from emi_models.data import open_clips
from emi_models.data.clip import Clip, FeatureTrack
from emi_models.data.dataset import ClipWriter, DatasetInfo
from emi_models.inputs import FusionShapes
from tests.live.extract.bodies import entry_of

INFO = DatasetInfo(
    bundle="fake",
    encoders={"vision": "fake"},
    shapes=FusionShapes(vision_frames=400, vision_dim=1, audio_frames=599, audio_dim=1, text_dim=1),
    description="test",
    licence="none",
)


class Writing:
    """Workers that write a clip of one picture, whose feature is the size of the file."""

    def __init__(self, out: Path, settings: str) -> None:
        self._out = out
        self._settings = settings

    def __enter__(self) -> Writing:
        self._writer = ClipWriter(self._out, INFO)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ready(self) -> Ready:
        return Ready(encoders={"vision": "fake"}, recognizer="", settings=self._settings)

    def run(self, jobs: Iterable[Job]) -> Iterator[Written | Refused]:
        for job in jobs:
            content = Path(job.path).read_bytes()
            if b"bad" in content:
                yield Refused(id=job.id, reason=f"{job.path}: it is bad")
                continue
            track = FeatureTrack(np.zeros(1, np.int64), np.full((1, 1), job.size, np.float32))
            clip = Clip(job.id, track, FeatureTrack.empty(1), FeatureTrack.empty(1), 2_000_000_000)
            self._writer.write(clip, source=job.name)
            leave_note(self._out, entry := entry_of(job, self._settings))
            yield Written(entry=entry, damaged=int(b"damaged" in content))


class Quiet:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.counts = (0, 0)
        self.told: list[str] = []

    def ready(self, what: Ready, done: int, todo: int) -> None:
        self.counts = (done, todo)

    def wrote(self, entry: Entry) -> None:
        self.told.append(entry.id)

    def refused(self, name: str, reason: str) -> None:
        self.told.append(f"{name}: {reason}")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for size, name in enumerate(("a.mp4", "b.mp4", "c.mp4"), start=1):
        (folder / name).write_bytes(b"x" * size)
    return folder


def run(videos: Path, watcher: Quiet | None = None, *, settings: str = "s", strict: bool = False) -> Report:
    listing, out = list_videos(videos), videos.parent / "out"
    ratings = rate(listing.videos, None, "clip")
    return extract(listing, ratings, out, Writing(out, settings), watcher or Quiet(), strict=strict)


def feature(videos: Path, clip_id: str) -> float:
    return float(load_file(videos.parent / "out/features" / f"{clip_id}.safetensors")["vision"][0, 0])


def test_a_folder_becomes_a_data_set(videos: Path) -> None:
    watcher = Quiet()
    report = run(videos, watcher)
    assert watcher.counts == (0, 3)
    assert sorted(watcher.told) == ["a", "b", "c"]
    assert [row.id for row in report.rows] == ["a", "b", "c"]
    clips = open_clips(videos.parent / "out")
    assert [len(clips.ids(split)) for split in ("train", "valid", "test")] == [1, 1, 1]
    assert clips.load("c").vision.values.tolist() == [[3.0]]


def test_what_is_done_is_left_alone_until_its_file_or_the_settings_change(videos: Path) -> None:
    run(videos)
    watcher = Quiet()
    assert len(run(videos, watcher).kept) == 3
    assert watcher.counts == (3, 0)
    (videos / "b.mp4").write_bytes(b"xxxxxxx")
    (videos / "d.mp4").write_bytes(b"x")
    run(videos, watcher)
    assert (watcher.counts, sorted(watcher.told)) == ((2, 2), ["b", "d"])
    assert feature(videos, "b") == 7.0
    os.utime(videos / "a.mp4", ns=(1, 1))
    (videos.parent / "out/features/c.safetensors").unlink()
    run(videos, watcher)
    assert watcher.counts == (2, 2)
    run(videos, watcher, settings="other")
    assert watcher.counts == (0, 4)


def test_a_bad_file_is_told_left_out_and_tried_again(videos: Path) -> None:
    run(videos)
    (videos / "b.mp4").write_bytes(b"bad")
    (videos / "1.mp4").touch()
    (videos / "00001.mov").touch()
    report = run(videos)
    assert dict(report.refused) == {
        "b.mp4": "it is bad",
        "1.mp4": "has the id of 00001.mov; rename one of them",
    }
    assert [row.id for row in report.rows] == ["00001", "a", "c"]  # what b was before is not what it is
    (videos / "b.mp4").write_bytes(b"good")
    assert [entry.id for entry in run(videos).written] == ["b"]


@pytest.mark.parametrize("shards", [False, True])
def test_a_folder_that_the_workers_do_not_share_is_said(videos: Path, shards: bool) -> None:
    out, theirs = videos.parent / "out", Writing(videos.parent / "elsewhere", "s")
    with pytest.raises(ConfigurationError, match="not the same folder on every machine"):
        extract(list_videos(videos), {}, out, theirs, Quiet(), shards=shards, patience_s=0)
    assert not (out / LEDGER).exists()


def test_strict_fails_on_the_first_bad_file_and_keeps_what_is_done(videos: Path) -> None:
    (videos / "b.mp4").write_bytes(b"bad")
    with pytest.raises(SourceError, match=r"b\.mp4: it is bad"):
        run(videos, strict=True)
    assert not (videos.parent / "out/manifest.csv").exists()
    assert [entry.id for entry in run(videos).kept] == ["a"]


def test_clips_of_other_files_stay_and_are_counted(videos: Path) -> None:
    run(videos)
    (videos / "a.mp4").rename(videos / "z.mp4")
    report = run(videos)
    assert report.strangers == 1
    assert [row.id for row in report.rows] == ["a", "b", "c", "z"]


def test_what_a_killed_run_was_writing_is_swept_away(videos: Path) -> None:
    (videos.parent / "out/features").mkdir(parents=True)
    part = videos.parent / "out/features/.a.safetensors.xyz.part"
    part.write_bytes(b"half")
    run(videos)
    assert not part.exists()
    assert feature(videos, "a") == 1.0


def test_two_runs_do_not_write_to_one_folder(videos: Path) -> None:
    with claimed(videos.parent / "out"), pytest.raises(ConfigurationError, match="another"):
        run(videos)


def test_a_damaged_file_is_kept_and_told(videos: Path) -> None:
    (videos / "b.mp4").write_bytes(b"damaged")
    report = run(videos)
    assert report.damaged == {"b.mp4": 1}
    assert len(report.written) == 3


def test_nothing_usable_is_no_data_set(videos: Path) -> None:
    for path in videos.iterdir():
        path.write_bytes(b"bad")
    report = run(videos)
    assert (len(report.refused), report.rows) == (3, [])
    assert not (videos.parent / "out/manifest.csv").exists()
