"""Invented faces: in the encoder's range, packed as windows are, and showing what they were made to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_models import EMOTIONS
from emi_models.encoders.face import BLENDSHAPES
from recipes.compact.faces import FaceWindows, blinks, face_clip, gaze, make_faces, speech
from recipes.compact.prototypes import FEATURES


def make(clips: int, seed: int, frames: int = 4, span_s: float = 0.1) -> FaceWindows:
    return make_faces(clips, frames, span_s, seed, lambda _: None)


@pytest.fixture(scope="module")
def many() -> FaceWindows:
    return make(400, seed=1)


@given(st.integers(0, 2**32))
def test_a_clip_stays_in_the_encoder_s_range(seed: int) -> None:
    t_s, features, shows = face_clip(np.random.default_rng(seed))
    assert len(t_s) == len(features) == len(shows)
    assert np.all(np.diff(t_s) > 0)
    assert np.isfinite(features).all()
    blendshapes = features[:, :BLENDSHAPES]
    assert blendshapes.min() >= 0
    assert blendshapes.max() <= 1
    assert np.abs(features[:, BLENDSHAPES : BLENDSHAPES + 3]).max() < 1.6  # radians of a head
    assert shows.min() >= 0
    assert shows.max() < 1


def test_the_same_seed_gives_the_same_windows_and_another_others() -> None:
    one, same, other = make(3, seed=5), make(3, seed=5), make(3, seed=6)
    assert np.array_equal(one.values, same.values)
    assert np.array_equal(one.shows, same.shows)
    assert not np.array_equal(one.values, other.values)


def test_windows_are_packed_to_the_front_and_never_empty(many: FaceWindows) -> None:
    counts = many.mask.sum(axis=1)
    assert counts.min() == 1  # slow cameras
    assert counts.max() == 4
    assert np.array_equal(many.mask, np.arange(4) < counts[:, None])
    assert not many.values[~many.mask].any()


def column(windows: FaceWindows, name: str) -> NDArray[np.float32]:
    return windows.values[:, 0, FEATURES.index(name)]


@pytest.mark.parametrize(
    ("emotion", "name", "rises"),
    [
        ("joy", "mouthSmileLeft", 0.4),
        ("amusement", "jawOpen", 0.1),
        ("excitement", "browOuterUpLeft", 0.2),
        ("admiration", "browInnerUp", 0.2),
        ("empathic_pain", "browInnerUp", 0.2),
        ("determination", "mouthPressLeft", 0.2),
        ("determination", "browDownLeft", 0.2),
    ],
)
def test_who_shows_an_emotion_moves_what_its_prototype_says(
    many: FaceWindows, emotion: str, name: str, rises: float
) -> None:
    shown = many.shows[:, EMOTIONS.index(emotion)]
    neutral = ~many.shows.any(axis=1)
    assert column(many, name)[shown > 0.3].mean() > column(many, name)[neutral].mean() + rises


def test_a_part_of_the_windows_shows_nothing(many: FaceWindows) -> None:
    assert 0.3 < (many.shows.max(axis=1) < 0.01).mean() < 0.8


def test_speech_blinks_and_gaze_move_what_they_should() -> None:
    t_s = np.arange(0, 60, 1 / 30)
    rng = np.random.default_rng(0)
    talking, blinking, looking = speech(t_s, rng), blinks(t_s, rng), gaze(t_s, rng)
    assert talking[:, FEATURES.index("jawOpen")].std() > 0.03
    assert not talking[:, : FEATURES.index("jawForward")].any()  # nothing above the mouth
    closed = blinking[:, FEATURES.index("eyeBlinkLeft")] > 0.3
    assert 4 <= np.diff(closed.astype(int)).clip(0).sum() <= 40
    left, right = (looking[:, FEATURES.index(f"eyeLookOut{side}")] for side in ("Left", "Right"))
    assert not (left * right).any()  # both eyes look the same way
