from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.extract.recorder import FOREVER, EarlyEnd, Recorder, WholeSoundStage
from emi_live.messages import END_OF_STREAM
from emi_live.rings import AudioRing
from emi_models import Modality
from emi_models.data.clip import FeatureTrack
from emi_models.encoders.wav2vec import frames_for
from tests.live.stages.fakes import run_stage

MS = 1_000_000
RATE_HZ = 16_000
DIMS: dict[Modality, int] = {"vision": 2, "audio": 2, "text": 1}


class FirstSamples:
    """A speech model whose frames are the first and the last sample that they cover."""

    def __init__(self) -> None:
        self.heard = np.empty(0, np.float32)

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        self.heard = samples
        starts = 320 * np.arange(frames_for(samples.size))
        return np.stack((samples[starts], samples[starts + 399]), axis=1).astype(np.float32)


def heard(
    blocks: list[tuple[NDArray[np.float32], int]], until_ns: int = FOREVER
) -> tuple[FeatureTrack, int, NDArray[np.float32]]:
    """What a recorder keeps of the packets, how long it says the sound was, and what the model heard."""
    ring, encoder = AudioRing(60.0), FirstSamples()
    stage = WholeSoundStage(EarlyEnd(ring, until_ns), encoder)
    for samples, t_ns in blocks:
        ring.write(samples, t_ns)
    ring.close()
    packets = run_stage(stage)
    assert packets[-1].progress_ns == END_OF_STREAM
    recorder = Recorder(DIMS, ["audio"], until_ns)
    for packet in packets:
        recorder.add(packet)
    recording = recorder.finish()
    return recording.tracks["audio"], recording.duration_ns, encoder.heard


def ramp(count: int) -> NDArray[np.float32]:
    return np.linspace(0.1, 0.9, count, dtype=np.float32)


def test_sound_is_encoded_in_one_piece_with_the_stamps_of_its_frames() -> None:
    sound = ramp(13 * RATE_HZ)
    track, duration_ns, _ = heard([(sound[:5000], 7 * MS), (sound[5000:], 7 * MS + 312_500_000)])
    assert len(track.t_ns) == frames_for(sound.size) == 649  # in two packets
    assert track.t_ns[:2].tolist() == [32 * MS, 52 * MS]
    assert np.array_equal(track.values[:, 0], sound[::320][:649])
    assert duration_ns == 13 * NS_PER_S + 7 * MS


@given(st.integers(0, 40_000), st.lists(st.integers(1, 9000), min_size=1, max_size=4))
@settings(deadline=None)
def test_however_the_sound_is_cut_it_is_the_same(count: int, sizes: list[int]) -> None:
    sound = ramp(count)
    blocks: list[tuple[NDArray[np.float32], int]] = []
    offset = 0
    while offset < count:
        size = sizes[len(blocks) % len(sizes)]
        blocks.append((sound[offset : offset + size], offset * NS_PER_S // RATE_HZ))
        offset += size
    track, _, _ = heard(blocks)
    whole, _, _ = heard([(sound, 0)])
    assert np.array_equal(track.values, whole.values)
    assert np.array_equal(track.t_ns, whole.t_ns)


def test_a_gap_is_filled_with_silence_so_that_stamps_stay_right() -> None:
    sound = ramp(RATE_HZ)
    track, duration_ns, samples = heard([(sound, 0), (sound, 2 * NS_PER_S)])
    assert samples.size == 3 * RATE_HZ
    assert not samples[RATE_HZ : 2 * RATE_HZ].any()
    assert duration_ns == 3 * NS_PER_S
    first_after = int(np.searchsorted(track.t_ns, 2 * NS_PER_S + 25 * MS))
    assert track.values[first_after, 0] == sound[0]


@pytest.mark.parametrize("until_ms", [0, 24, 25, 999, 1000, 1500])
def test_what_comes_after_the_end_is_not_heard(until_ms: int) -> None:
    sound = ramp(4 * RATE_HZ)
    track, duration_ns, samples = heard([(sound, 0)], until_ms * MS)
    assert samples.size == until_ms * 16
    assert len(track.t_ns) == frames_for(until_ms * 16)
    assert duration_ns == until_ms * MS


def test_nobody_waits_for_what_comes_after_the_end() -> None:
    ring = AudioRing(60.0)  # which stays open, as that of a clip that goes on
    reader = EarlyEnd(ring, NS_PER_S)
    ring.write(ramp(RATE_HZ + 1), 0)
    block = reader.read(2 * RATE_HZ)
    assert block is not None
    assert block.samples.size == RATE_HZ
    assert reader.wait(0.0)
    assert reader.ended
    ring.write(ramp(RATE_HZ), NS_PER_S + 62_500)
    assert reader.read(RATE_HZ) is None


def test_a_gap_is_known_to_the_end_alone_however_far_it_reaches() -> None:
    def until(known_ns: int, *, over: bool) -> int | None:
        ring = AudioRing(60.0, lossless=True)
        reader = EarlyEnd(ring, NS_PER_S)
        ring.advance(known_ns)
        if over:
            ring.write(ramp(160), 5 * NS_PER_S)
            assert reader.read(RATE_HZ) is None
        return reader.progress_ns

    assert until(NS_PER_S // 2, over=False) == NS_PER_S // 2
    assert until(5 * NS_PER_S, over=False) == until(5 * NS_PER_S, over=True) == NS_PER_S + 1


def test_no_sound_is_no_frame() -> None:
    track, duration_ns, _ = heard([])
    assert (len(track.t_ns), duration_ns) == (0, 0)
