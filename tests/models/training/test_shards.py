"""Training on Parquet shards: the same network, to the bit, as on a file for each clip."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from emi_models.data import open_clips
from emi_models.data.batches import ClipWindows
from emi_models.data.dataset import ClipWriter, read_info, read_manifest
from emi_models.data.shards import pack, shards_of
from emi_models.training.fit import fit
from tests.live.cli.clip_folder import write_folder
from tests.models.training.sets import memory_set
from tests.models.training.small import small

pytest.importorskip("pyarrow")


def packed(folder: Path, to: Path, clips: int) -> Path:
    """The same data set in shards of so many clips."""
    shutil.copytree(folder, to)
    info = read_info(to)
    files = sorted((to / "features").glob("*.safetensors"))
    for start in range(0, len(files), clips):
        pack(to, files[start : start + clips], info.shapes)
    ratings = {row.id: row.rating for row in read_manifest(folder)}
    ClipWriter(to, info).write_manifest(ratings)
    assert not list((to / "features").glob("*.safetensors"))
    return to


def test_training_on_shards_gives_the_same_network_to_the_bit(tmp_path: Path) -> None:
    files = write_folder(tmp_path / "files", memory_set(20, 8))
    shards = packed(files, tmp_path / "shards", clips=5)
    assert len(shards_of(shards)) == 6
    one = fit("taemi", open_clips(files), tmp_path / "one", small("taemi", max_epochs=2))
    two = fit("taemi", open_clips(shards), tmp_path / "two", small("taemi", max_epochs=2))
    first, second = load_file(one.checkpoint), load_file(two.checkpoint)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert one.stages == two.stages


def test_windows_of_shards_keep_no_clip_that_has_no_room(tmp_path: Path) -> None:
    files = write_folder(tmp_path / "files", memory_set(6, 2))
    shards = packed(files, tmp_path / "shards", clips=4)
    windows = ClipWindows(open_clips(shards), "train", cache_bytes=0)
    whole = ClipWindows(open_clips(files), "train")
    for index in (5, 0, 3, 0):
        ours, theirs = windows[index][0], whole[index][0]
        assert torch.equal(ours.vision, theirs.vision)
        assert torch.equal(ours.audio, theirs.audio)
    assert windows._cached == {}
