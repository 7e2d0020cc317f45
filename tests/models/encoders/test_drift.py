from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from emi_models.encoders.wav2vec import (
    compare_features,
    compare_intensities,
    frame_cosines,
    with_voice,
)
from emi_models.inputs import FusionInputs, FusionShapes, InputError

SHAPES = FusionShapes(vision_frames=3, vision_dim=2, audio_frames=4, audio_dim=3, text_dim=2)


def array(*rows: list[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(rows, np.float32)


def test_cosines_of_known_frames() -> None:
    found = array([1, 0], [0, 2], [1, 1], [-3, 0], [0, 0], [0, 0], [1e-30, 0])
    reference = array([5, 0], [1, 0], [1, 0], [1, 0], [0, 0], [1, 0], [1e-30, 0])
    expected = [1, 0, math.sqrt(0.5), -1, 1, 0, 1]
    np.testing.assert_allclose(frame_cosines(found, reference), expected, atol=1e-7)


def test_figures_of_known_cosines() -> None:
    drift = compare_features(np.linspace(0, 1, 101))
    assert (drift.frames, drift.worst) == (101, 0.0)
    assert drift.mean == pytest.approx(0.5)
    assert drift.p5 == pytest.approx(0.05)
    with pytest.raises(InputError, match="no frame"):
        compare_features(frame_cosines(np.empty((0, 3), np.float32), np.empty((0, 3), np.float32)))


def test_figures_of_known_intensities() -> None:
    drift = compare_intensities(array([0.1, 0.5], [0.2, 0.5]), array([0.1, 0.9], [0.0, 0.5]))
    assert drift.windows == 2
    assert drift.mean == pytest.approx(0.15)
    assert drift.worst == pytest.approx(0.4)
    assert drift.by_emotion == pytest.approx((0.1, 0.2))
    with pytest.raises(InputError, match="no window"):
        compare_intensities(np.empty((0, 6), np.float32), np.empty((0, 6), np.float32))


def test_runs_of_other_shapes_are_not_compared() -> None:
    with pytest.raises(InputError, match="compared"):
        frame_cosines(array([1, 0]), array([1, 0], [1, 0]))
    with pytest.raises(InputError, match="same windows"):
        compare_intensities(array([1, 0]), array([1, 0], [1, 0]))


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_a_window_takes_the_last_frames_and_keeps_the_rest(count: int) -> None:
    window = FusionInputs.empty(SHAPES)
    window.text[:] = 0.5
    frames = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    heard = with_voice(window, frames)
    heard.check(SHAPES)
    assert heard.text is window.text
    assert bool(heard.audio_present) == (count > 0)
    assert int(heard.audio_mask.sum()) == min(count, 4)
    assert torch.equal(heard.audio[heard.audio_mask], torch.from_numpy(frames[-4:]))
    assert not window.audio_mask.any()


def test_frames_of_another_width_do_not_fit() -> None:
    with pytest.raises(InputError, match="do not fit"):
        with_voice(FusionInputs.empty(SHAPES), np.zeros((2, 5), np.float32))
    with pytest.raises(InputError, match="for one window"):
        with_voice(FusionInputs.empty(SHAPES, batch=2), np.zeros((2, 3), np.float32))
