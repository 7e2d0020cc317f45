from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from emi_models.encoders.wav2vec import SpeechSpec, Wav2vecEncoder, frames_for
from emi_models.encoders.wav2vec_stream import SlidingWav2vec
from tests.models.encoders.test_wav2vec_stream import sound
from tests.models.encoders.tiny_models import LAYERS, WIDTH, tiny_speech


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Wav2vecEncoder:
    folder, _, _ = tiny_speech(tmp_path_factory.mktemp("speech"))
    return Wav2vecEncoder(folder, SpeechSpec("tiny/speech", "wav2vec2", WIDTH, LAYERS, affect=True))


def test_the_sliding_window_is_the_encoder_s_own_pass_over_the_last_12_s(encoder: Wav2vecEncoder) -> None:
    sliding = SlidingWav2vec(encoder, hop_s=4.0)
    samples = sound(16_000 * 17)
    ends = [0, 64_080, 128_080, 192_080, 256_080]
    for start, end in pairwise(ends):
        assert sliding.push(samples[start : end - 1]) is None
        window = sliding.push(samples[end - 1 : end])
        assert window is not None
        first = max(0, frames_for(end) - 599)
        assert window.first == first
        np.testing.assert_array_equal(window.values, encoder.encode(samples[320 * first : end]))
    assert sliding.push(samples[256_080:]) is None
    last = sliding.flush()
    assert last is not None
    assert last.first + len(last.values) == frames_for(samples.size)
    np.testing.assert_array_equal(last.values, encoder.encode(samples[320 * last.first :]))
    assert sliding.flush() is None
    at_once = sliding.push(samples[:200_000])  # the last of three hops
    assert at_once is not None
    assert (at_once.first, len(at_once.values)) == (1, 599)


def test_the_sliding_window_of_a_short_clip_is_the_clip(encoder: Wav2vecEncoder) -> None:
    sliding = SlidingWav2vec(encoder)
    for length in (0, 399, 400, 5_000, 8_079, 8_080, 8_081, 20_000):
        samples = sound(length)
        windows = [sliding.push(part) for part in np.array_split(samples, 7)] + [sliding.flush()]
        last = [window for window in windows if window is not None][-1:]
        assert len(last) == (frames_for(length) > 0)
        for window in last:
            np.testing.assert_array_equal(window.values, encoder.encode(samples))
