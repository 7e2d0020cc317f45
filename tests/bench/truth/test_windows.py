"""A voice is judged by the windows that live use shows to the network, and by all where there are no such."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from emi_bench.truth.features import Features
from emi_bench.truth.measure import predict
from emi_models.data.clip import Clip, FeatureTrack
from emi_models.inputs import FusionInputs
from recipes.compact.sizes import SHAPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

MS = 1_000_000


class Counting:
    """Says how many of the 150 frames of voice each window has."""

    shapes = SHAPES
    header = SimpleNamespace(spans_s={"audio": 3.0})

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        frames = np.asarray(window.audio_mask).sum(axis=1) * np.asarray(window.audio_present)
        return np.repeat(frames[:, None] / 150, 6, axis=1).astype(np.float32)


def voice(seconds: float) -> Clip:
    count = round(seconds * 50)
    sound = FeatureTrack(np.arange(1, count + 1) * 20 * MS, np.ones((count, SHAPES.audio_dim), np.float32))
    words = FeatureTrack(np.zeros(1, np.int64), np.ones((1, SHAPES.text_dim), np.float32))
    return Clip("a", FeatureTrack.empty(SHAPES.vision_dim), sound, words, round(seconds * 1000) * MS)


def mean_frames(features: Features, *subset: str) -> tuple[list[float], int]:
    found = predict(Counting(), features, subset, lambda *_: None)  # type: ignore[arg-type]  # a stand-in
    return (found.means[:, 0] * 150).round(3).tolist(), found.unheard


def test_windows_before_the_voice_counts_are_left_out_where_a_file_has_others() -> None:
    counts = {0: np.array([900 * MS, 1300 * MS]), 1: np.zeros(0, np.int64)}
    features = Features({0: voice(1.4), 1: voice(1.4)}, {}, counts, 1000 * MS)
    # A hop is ten frames: from 1.0 s on 50, 60 and 70; without a voice that counts 10 to 70.
    assert mean_frames(features, "audio") == ([60.0, 40.0], 1)
    assert mean_frames(features, "text") == ([0.0, 0.0], 0)
    assert mean_frames(features, "audio", "text") == ([60.0, 40.0], 1)


def test_windows_long_after_the_voice_are_left_out() -> None:
    features = Features({0: voice(3.0)}, {}, {0: np.array([900 * MS])}, 300 * MS)
    assert mean_frames(features, "audio") == ([55.0], 0)  # those that end at 1.0 and 1.2 s
