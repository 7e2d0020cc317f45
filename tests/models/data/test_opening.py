from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from emi_models.baseline import baselines_for, normalised_clip
from emi_models.data import DataError, open_clips
from emi_models.data.clip import Clip, FeatureTrack
from emi_models.data.dataset import ClipWriter, ManifestClips
from emi_models.data.vidmimic import VidmimicClips
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.inputs import COMPACT_SHAPES
from tests.models.data.folders import INFO, make_clip, make_vidmimic, write_split

if TYPE_CHECKING:
    from pathlib import Path


def ours(folder: Path) -> Path:
    writer = ClipWriter(folder, INFO)
    for number in range(4):
        writer.write(make_clip(f"{number:05d}"))
    writer.write_manifest()
    return folder


def test_the_layout_is_found(tmp_path: Path) -> None:
    assert isinstance(open_clips(ours(tmp_path / "a")), ManifestClips)
    assert isinstance(open_clips(make_vidmimic(tmp_path / "b")), VidmimicClips)


def test_options_reach_the_reader(tmp_path: Path) -> None:
    labels = write_split(tmp_path, "train", {"1": [1.0] * 6})
    clips = open_clips(ours(tmp_path / "a"), labels=labels, valid_fraction=0.5, seed=3, progress=None)
    assert len(clips.ids("valid")) == 2
    official = open_clips(make_vidmimic(tmp_path / "b"), audio="none", cache=tmp_path / "c", labels=None)
    assert set(official.encoders) == {"vision", "text"}
    assert (tmp_path / "c" / "vit").is_dir()


def test_options_of_the_other_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="audio, vision"):
        open_clips(ours(tmp_path / "a"), vision="vit", audio="x")
    with pytest.raises(DataError, match="valid_fraction"):
        open_clips(make_vidmimic(tmp_path / "b"), valid_fraction=0.1)


def test_what_is_neither_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        open_clips(tmp_path / "none")
    with pytest.raises(DataError, match="has neither"):
        open_clips(tmp_path)


def test_clips_may_be_relative_to_a_neutral_of_one_s_own_if_their_features_are_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="compact"):  # these features are invented
        open_clips(ours(tmp_path / "a"), baseline="running")
    with pytest.raises(DataError, match="layout"):
        open_clips(make_vidmimic(tmp_path / "b"), baseline="running")


def test_a_clip_is_loaded_as_live_use_sees_it(tmp_path: Path) -> None:
    info = dataclasses.replace(INFO, encoders=dict(COMPACT_ENCODERS), shapes=COMPACT_SHAPES)  # type: ignore[arg-type]  # keys are modalities
    writer = ClipWriter(tmp_path, info)
    values = np.zeros((250, COMPACT_SHAPES.vision_dim), np.float32)
    values[:, 3] = 0.5  # browInnerUp
    track = FeatureTrack(np.arange(1, 251) * 40_000_000, values)
    clip = Clip("00001", track, FeatureTrack.empty(COMPACT_SHAPES.audio_dim), FeatureTrack.empty(384), 10**10)
    writer.write(clip)
    writer.write_manifest()
    plain, own = open_clips(tmp_path), open_clips(tmp_path, baseline="running")
    np.testing.assert_array_equal(plain.load("00001").vision.values, values)
    seen = normalised_clip(clip, baselines_for(COMPACT_ENCODERS, "running")).vision.values
    np.testing.assert_array_equal(own.load("00001").vision.values, seen)
    assert seen[-1, 3] < 0.35
