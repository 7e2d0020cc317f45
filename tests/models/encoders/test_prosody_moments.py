from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emi_models.encoders.prosody import RunningMoments


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(1, 6), st.floats(-1e3, 1e3))
def test_they_are_those_of_the_last_spans_together(sizes: list[int], spans: int, offset: float) -> None:
    generator = np.random.default_rng(sum(sizes))
    parts = [generator.normal(offset, 0.1, (3, size)).astype(np.float32) for size in sizes]
    moments = RunningMoments(spans)
    for part in parts:
        moments.add(part)
    kept = [part for part in parts if part.shape[1]][-spans:]
    if not kept:
        return
    together = np.concatenate(kept, axis=1).astype(np.float64)
    mean, variance = moments.moments()
    np.testing.assert_allclose(mean, together.mean(axis=1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(variance, together.var(axis=1), rtol=1e-9, atol=1e-15)


def test_a_loud_span_leaves_nothing_behind() -> None:
    quiet = np.random.default_rng(0).normal(0, 1e-4, (1, 8_000))
    moments = RunningMoments(4)
    moments.add(np.full((1, 8_000), 0.9) * np.resize([1, -1], 8_000))
    for _ in range(4):
        moments.add(quiet)
    np.testing.assert_allclose(moments.moments()[1], quiet.var(), rtol=1e-12)


def test_speech_after_a_minute_of_silence_is_raised_by_no_more_than_the_window_holds_of_it() -> None:
    """By the whole stream's variance it would come out eleven times too loud, and the more the longer."""
    moments = RunningMoments(24)  # 12 s
    for _ in range(120):
        moments.add(np.zeros((1, 8_000)))
    speech = np.random.default_rng(1).normal(0, 0.2, (1, 8_000))
    moments.add(speech)
    loud = speech.std() / np.sqrt(moments.moments()[1][0])
    assert 4.8 < loud < np.sqrt(24) * 1.01
    for _ in range(23):
        moments.add(speech)
    np.testing.assert_allclose(speech.std() / np.sqrt(moments.moments()[1][0]), 1.0, rtol=1e-9)
