from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emi_models.speech.incremental import RATE_HZ, SoundBuffer


@given(st.lists(st.tuples(st.integers(0, 9000), st.floats(-1, 3)), max_size=12))
def test_it_holds_the_newest_sound_and_never_more_than_its_limit(steps: list[tuple[int, float]]) -> None:
    buffer = SoundBuffer(1.0)
    said = np.arange(200_000, dtype=np.float32)
    end = 0
    for size, cut_s in steps:
        taken = min(size, buffer.room)
        buffer.append(said[end : end + taken], 0)
        end += taken
        buffer.cut(buffer.start_s + cut_s)
        assert buffer.duration_s <= 1.0
        start = round(buffer.start_s * RATE_HZ)
        np.testing.assert_array_equal(buffer.samples, said[start:end])
        assert buffer.end_s == end / RATE_HZ


def test_more_than_there_is_room_for_is_an_error() -> None:
    with pytest.raises(ValueError, match="room for 16000"):
        SoundBuffer(1.0).append(np.zeros(16_001, np.float32), 0)


def test_it_knows_where_there_was_voice() -> None:
    buffer = SoundBuffer(2.0)
    for voiced in (0, 1600, 1600, 0):
        buffer.append(np.zeros(1600, np.float32), voiced)
    assert not buffer.any_between(0.0, 0.1)
    assert buffer.any_between(0.05, 0.15)
    assert buffer.any_between(0.25, 9.0)
    assert not buffer.any_between(0.3, 0.4)
    buffer.cut(0.35)
    assert not buffer.any_between(0.0, 9.0)
