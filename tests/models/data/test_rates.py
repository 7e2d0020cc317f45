from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emi_models.data.feature_files import WAV2VEC2, FrameRate

RATES = st.one_of(st.just(WAV2VEC2), st.floats(0.5, 200).map(FrameRate.of))


def test_wav2vec2s_frames_are_those_of_its_convolutions() -> None:
    assert WAV2VEC2.stamps(np.array([0, 1, 598])).tolist() == [25_000_000, 45_000_000, 11_985_000_000]
    assert WAV2VEC2.count(12_000_000_000) == 599 == (12 * 16_000 - 400) // 320 + 1
    assert [WAV2VEC2.length_ns(frames) for frames in (0, 1, 2, 599)] == [
        0,
        25_000_000,
        45_000_000,
        11_985_000_000,
    ]


def test_pictures_last_until_the_next_would_come() -> None:
    rate = FrameRate.of(6.0)
    assert rate.stamps(np.array([0, 1, 6])).tolist() == [0, 166_666_667, 1_000_000_000]
    assert [rate.length_ns(frames) for frames in (0, 1, 6)] == [0, 166_666_667, 1_000_000_000]
    assert rate.count(12_000_000_000) == 73  # the one at 12 s is known at 12 s


@given(rate=RATES, until_ns=st.integers(0, 20_000_000_000))
def test_as_many_are_counted_as_have_stamps_by_then(rate: FrameRate, until_ns: int) -> None:
    count = rate.count(until_ns)
    stamps = rate.stamps(np.arange(count + 1))
    assert count == 0 or stamps[count - 1] <= until_ns
    assert stamps[count] > until_ns
    assert (np.diff(stamps) > 0).all()
