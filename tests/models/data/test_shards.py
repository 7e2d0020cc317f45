from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emi_models.data import open_clips
from emi_models.data.clip import Clip, FeatureTrack
from emi_models.data.dataset import ClipWriter, DatasetInfo
from emi_models.data.shards import drop, pack, read_shard_clip, shard_metadata, shards_of
from emi_models.errors import DataError
from emi_models.inputs import FusionShapes

pytest.importorskip("pyarrow")
SHAPES = FusionShapes(vision_frames=20, vision_dim=3, audio_frames=50, audio_dim=2, text_dim=4)
INFO = DatasetInfo(
    bundle="fake", encoders={"vision": "fake"}, shapes=SHAPES, description="test", licence="none"
)


def clip(clip_id: str, seed: int = 0, frames: int = 7) -> Clip:
    random = np.random.default_rng(seed)

    def track(count: int, dim: int) -> FeatureTrack:
        stamps = np.arange(count, dtype=np.int64) * 500_000_000
        return FeatureTrack(stamps, random.standard_normal((count, dim), np.float32))

    return Clip(clip_id, track(frames, 3), track(5, 2), FeatureTrack.empty(4), 3_500_000_000)


def write(folder: Path, *clips: Clip) -> list[Path]:
    writer = ClipWriter(folder, INFO)
    return [writer.write(each, transcript=f"words of {each.id}", source="x.mp4") for each in clips]


def test_a_packed_clip_is_the_same_to_the_bit(tmp_path: Path) -> None:
    files = write(tmp_path, clip("a", 1), clip("b", 2, frames=0), clip("c", 3))
    ClipWriter(tmp_path, INFO).write_manifest()
    before = open_clips(tmp_path)
    kept = {name: before.load(name) for name in "abc"}
    pack(tmp_path, files, SHAPES)
    assert not any(file.exists() for file in files)
    ClipWriter(tmp_path, INFO).write_manifest()
    after = open_clips(tmp_path)
    assert after.ids("train") == ("a", "b", "c")
    for name, one in kept.items():
        other = after.load(name)
        assert other.duration_ns == one.duration_ns
        for modality in ("vision", "audio", "text"):
            ours, theirs = getattr(one, modality), getattr(other, modality)
            assert ours.t_ns.tobytes() == theirs.t_ns.tobytes()
            assert ours.values.tobytes() == theirs.values.tobytes()
            assert ours.values.shape == theirs.values.shape
    assert after.transcript("c") == "words of c"
    assert after.frames("vision", "a") == 7


def test_only_the_first_seconds_are_kept_of_a_longer_clip(tmp_path: Path) -> None:
    path = pack(tmp_path, write(tmp_path, clip("a")), SHAPES)
    assert len(read_shard_clip(path, "a", SHAPES, 1_000_000_000).vision.t_ns) == 3


def test_a_clip_that_is_packed_again_is_in_the_newer_file_alone(tmp_path: Path) -> None:
    pack(tmp_path, write(tmp_path, clip("a", 1), clip("b", 2)), SHAPES)
    newer = pack(tmp_path, write(tmp_path, clip("a", 9)), SHAPES)
    assert [[one.id for one in shard_metadata(path)] for path in shards_of(tmp_path)] == [["b"], ["a"]]
    assert np.array_equal(read_shard_clip(newer, "a", SHAPES).vision.values, clip("a", 9).vision.values)
    drop(tmp_path, ["b"])
    assert shards_of(tmp_path) == [newer]


def test_a_file_beside_a_shard_is_newer(tmp_path: Path) -> None:
    pack(tmp_path, write(tmp_path, clip("a", 1)), SHAPES)
    write(tmp_path, clip("a", 9))
    ClipWriter(tmp_path, INFO).write_manifest()
    assert np.array_equal(open_clips(tmp_path).load("a").vision.values, clip("a", 9).vision.values)


def test_a_shard_without_statistics_is_read_too(tmp_path: Path) -> None:
    from pyarrow import parquet

    path = pack(tmp_path, write(tmp_path, clip("a", 1), clip("b", 2)), SHAPES)
    table = parquet.read_table(path)
    again = tmp_path / "shards" / "part-000009.parquet"
    parquet.write_table(table, again, row_group_size=1, write_statistics=False)
    for name in "ab":
        ours, theirs = (read_shard_clip(each, name, SHAPES) for each in (path, again))
        assert np.array_equal(ours.vision.values, theirs.vision.values)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    path = pack(tmp_path, write(tmp_path, clip("a")), SHAPES)
    with pytest.raises(DataError, match="does not hold clip b"):
        read_shard_clip(path, "b", SHAPES)
    with pytest.raises(DataError, match="vision"):
        read_shard_clip(path, "a", FusionShapes(20, 9, 50, 2, 4))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        shard_metadata(path)
