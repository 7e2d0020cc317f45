"""Streaming resampling equals one pass over the whole, with the right times, whatever the blocks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torchaudio.functional
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.resample import StreamingResampler
from emi_live.rings import AudioBlock

RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)


def noise(samples: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)


def batch(signal: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    whole: NDArray[np.float32] = torchaudio.functional.resample(
        torch.from_numpy(signal), rate_hz, 16_000
    ).numpy()
    return whole


def stream(signal: NDArray[np.float32], rate_hz: int, cuts: list[int], start_ns: int = 0) -> list[AudioBlock]:
    resampler = StreamingResampler(rate_hz)
    blocks: list[AudioBlock] = []
    for begin, end in pairwise([0, *sorted(cuts), signal.size]):
        blocks += resampler.push(signal[begin:end], start_ns + round(begin * NS_PER_S / rate_hz))
    return blocks + resampler.flush()


@pytest.mark.parametrize("rate_hz", RATES)
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_any_split_equals_one_pass(rate_hz: int, data: st.DataObject) -> None:
    check_split(rate_hz, data)


# At this ratio, 5507:2000, one pass takes torchaudio half a second.
@given(data=st.data())
@settings(deadline=None, max_examples=4)
def test_any_split_equals_one_pass_at_an_awkward_rate(data: st.DataObject) -> None:
    check_split(44_056, data)


def check_split(rate_hz: int, data: st.DataObject) -> None:
    signal = noise(data.draw(st.integers(1, 3_000)))
    cuts = data.draw(st.lists(st.integers(0, signal.size), max_size=12))
    blocks = stream(signal, rate_hz, cuts)
    np.testing.assert_allclose(
        np.concatenate([block.samples for block in blocks]), batch(signal, rate_hz), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("rate_hz", RATES)
def test_every_block_has_the_time_of_its_first_sample(rate_hz: int) -> None:
    made = 0
    for block in stream(
        noise(rate_hz), rate_hz, list(range(0, rate_hz, rate_hz // 31)), start_ns=5 * NS_PER_S
    ):
        assert abs(block.t_ns - (5 * NS_PER_S + made * NS_PER_S / 16_000)) <= 1.5
        made += block.samples.size
    assert made == 16_000


def test_a_tone_keeps_its_level_and_has_no_clicks() -> None:
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)).astype(np.float32)
    made = np.concatenate([block.samples for block in stream(tone, 44_100, list(range(0, 44_100, 1_411)))])
    wanted = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(made - wanted)[100:-100].max() < 2e-3


def test_sound_at_16_khz_passes_unchanged() -> None:
    signal = noise(512)
    resampler = StreamingResampler(16_000)
    (block,) = resampler.push(signal, 7)
    assert block.samples is signal
    assert block.t_ns == 7
    assert resampler.flush() == []


def test_a_gap_in_the_input_stays_a_gap() -> None:
    first, second = noise(4_800, 1), noise(4_800, 2)
    resampler = StreamingResampler(48_000)
    blocks = resampler.push(first, 0) + resampler.push(second, NS_PER_S) + resampler.flush()
    before = np.concatenate([block.samples for block in blocks if block.t_ns < NS_PER_S])
    after = np.concatenate([block.samples for block in blocks if block.t_ns >= NS_PER_S])
    np.testing.assert_allclose(before, batch(first, 48_000), rtol=0, atol=1e-6)
    np.testing.assert_allclose(after, batch(second, 48_000), rtol=0, atol=1e-6)


def test_jitter_is_no_gap_and_drift_is_followed() -> None:
    resampler = StreamingResampler(48_000)
    drift = 1.001  # a device clock that is 0.1 % slow
    times: list[tuple[int, int]] = []
    made = 0
    for k in range(400):
        for block in resampler.push(noise(1_536, k), round(k * 32e6 * drift) + (k % 3) * 1_000_000):
            times.append((made, block.t_ns))
            made += block.samples.size
    index, t_ns = times[-1]
    assert abs(t_ns - index * NS_PER_S / 16_000 * drift) < 4e6
    assert made >= 400 * 512 - 10


def test_a_rate_without_a_small_ratio_is_approximated_closely() -> None:
    blocks = stream(noise(44_101), 44_101, list(range(0, 44_101, 1_411)))
    assert abs(sum(block.samples.size for block in blocks) - 16_000) <= 1
    made = 0
    for block in blocks:
        assert abs(block.t_ns - made * NS_PER_S / 16_000) < 1_000
        made += block.samples.size


def test_a_long_stream_needs_no_more_memory_than_a_short_one() -> None:
    resampler = StreamingResampler(44_100)
    for k in range(200):
        resampler.push(noise(1_411, k), k * 1_411 * NS_PER_S // 44_100)
    assert resampler._held.size < 2_000
    assert len(resampler._stamps) <= 2


def test_one_long_block_is_made_in_slices() -> None:
    signal = noise(5 * 44_100)
    blocks = StreamingResampler(44_100).push(signal, 0)
    assert max(block.samples.size for block in blocks) <= 16_000
    assert len(blocks) == 5


@pytest.mark.parametrize("rate_hz", [0, 999, 1_000_000])
def test_a_rate_that_is_no_sound_is_refused(rate_hz: int) -> None:
    with pytest.raises(ConfigurationError, match="768000 Hz"):
        StreamingResampler(rate_hz)
