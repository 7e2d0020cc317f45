from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor
from hypothesis import given, settings
from hypothesis import strategies as st

from emi_models.speech.log_mel import LogMel, mel_filters
from tests.models.encoders.media import read_sound

NOISE = (0.1 * np.random.default_rng(0).standard_normal(20_000)).astype(np.float32)


@pytest.mark.parametrize("bands", [80, 128])
def test_the_filters_are_those_of_the_reference(bands: int) -> None:
    np.testing.assert_array_equal(mel_filters(bands).T, FeatureExtractor(feature_size=bands).mel_filters)


@pytest.mark.assets
def test_speech_gives_the_features_of_the_reference(assets: Path) -> None:
    sound = read_sound(assets / "speech/jfk.flac")
    mel = LogMel()
    mel.push(sound)
    expected = FeatureExtractor(feature_size=80)(sound)[:, : mel.frames]
    assert mel.frames == 1100
    np.testing.assert_allclose(mel.window(1100), expected, atol=1e-5)


@settings(deadline=None)
@given(
    size=st.integers(0, NOISE.size),
    cuts=st.lists(st.integers(0, NOISE.size), max_size=9),
    asked=st.booleans(),
)
def test_however_the_sound_is_cut_the_features_are_the_same(size: int, cuts: list[int], asked: bool) -> None:
    whole, parts = LogMel(), LogMel()
    whole.push(NOISE[:size])
    for start, end in pairwise([0, *sorted(min(cut, size) for cut in cuts), size]):
        parts.push(NOISE[start:end])
        if asked:
            parts.window(200)
    assert parts.frames == whole.frames == size // 160
    np.testing.assert_allclose(parts.window(200), whole.window(200), atol=1e-5)
    if size >= 400:
        expected = FeatureExtractor(feature_size=80)(NOISE[:size])[:, : whole.frames]
        np.testing.assert_allclose(whole.window(200)[:, : whole.frames], expected, atol=1e-5)


def test_behind_the_sound_there_is_silence() -> None:
    mel = LogMel()
    mel.push(NOISE[:16_000])
    window = mel.window(500)
    assert window.shape == (80, 500)
    assert np.unique(window[:, 100:]).size == 1
    assert window[0, 200] == pytest.approx(window[:, :100].max() - 2.0)  # 80 dB below the loudest, over 4
    assert LogMel().window(100).max() == pytest.approx(-1.5)


def test_more_than_whisper_s_window_is_refused_and_clear_begins_again() -> None:
    mel = LogMel()
    mel.push(np.zeros(30 * 16_000, np.float32))
    with pytest.raises(ValueError, match="30 s"):
        mel.push(NOISE[:1])
    mel.clear()
    mel.push(NOISE)
    fresh = LogMel()
    fresh.push(NOISE)
    np.testing.assert_array_equal(mel.window(200), fresh.window(200))
