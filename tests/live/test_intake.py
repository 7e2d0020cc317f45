"""The one door for media: what is taken in whatever form, what is left out and counted, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchaudio.functional
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError, StalledError
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.rings import AudioReader, AudioRing, VideoReader, VideoRing


class Door:
    """An intake with a reader on each ring."""

    def __init__(self, *, lossless: bool = False, timeout_s: float | None = None) -> None:
        self.health = Health()
        video, audio = VideoRing(4, lossless=lossless), AudioRing(2.0, lossless=lossless)
        self.video: VideoReader = video.reader()
        self.audio: AudioReader = audio.reader()
        self.intake = Intake(video, audio, self.health, push_timeout_s=timeout_s)

    @property
    def counters(self) -> dict[str, int]:
        return self.health.snapshot().counters

    def heard(self) -> NDArray[np.float32]:
        blocks = []
        while (block := self.audio.read(10**9)) is not None:
            blocks.append(block.samples)
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def rgb(value: int = 0) -> NDArray[np.uint8]:
    return np.full((4, 6, 3), value, np.uint8)


def test_a_frame_arrives_as_it_was_pushed() -> None:
    door = Door()
    door.intake.push_frame(rgb(9), 1_000)
    frame = door.video.read()
    assert frame is not None
    assert frame.t_ns == 1_000
    np.testing.assert_array_equal(frame.rgb, rgb(9))
    assert door.counters["video.frames"] == 1


@pytest.mark.parametrize("t_ns", [1_000, 999, 0])
def test_a_frame_that_is_not_newer_is_left_out_and_counted(t_ns: int) -> None:
    door = Door()
    door.intake.push_frame(rgb(1), 1_000)
    door.intake.push_frame(rgb(2), t_ns)
    frame = door.video.read()
    assert frame is not None
    assert frame.rgb[0, 0, 0] == 1
    assert door.counters == {"video.frames": 1, "video.out_of_order": 1}


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 6), np.uint8),
        np.zeros((4, 6, 4), np.uint8),
        np.zeros((4, 6, 3)),
        np.zeros((0, 6, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_frame_is_refused(picture: Any) -> None:
    with pytest.raises(ConfigurationError, match="uint8"):
        Door().intake.push_frame(picture, 0)


@pytest.mark.parametrize(
    ("pcm", "value"),
    [
        (np.full(320, 0.25, np.float32), 0.25),
        (np.full(320, 0.25, np.float64), 0.25),
        (np.full(320, 2**13, np.int16), 0.25),
        (np.full(320, 2**29, np.int32), 0.25),
        (np.full((320, 2), -(2**15), np.int16), -1.0),
        (np.tile(np.array([0.5, -0.25], np.float32), (320, 1)), 0.125),
    ],
)
def test_every_type_comes_out_at_the_same_scale(pcm: Any, value: float) -> None:
    door = Door()
    door.intake.push_audio(pcm, 0)
    heard = door.heard()
    assert heard.dtype == np.float32
    np.testing.assert_allclose(heard, np.full(320, value), atol=1e-6)


def test_sound_of_another_rate_is_resampled_across_blocks() -> None:
    door = Door()
    signal = np.random.default_rng(0).uniform(-1, 1, 44_100).astype(np.float32)
    for start in range(0, signal.size, 1_411):
        door.intake.push_audio(signal[start : start + 1_411], start * NS_PER_S // 44_100, 44_100)
    door.intake.end_audio()
    whole = torchaudio.functional.resample(torch.from_numpy(signal), 44_100, 16_000).numpy()
    np.testing.assert_allclose(door.heard(), whole, rtol=0, atol=1e-6)
    assert door.audio.ended


def test_a_change_of_rate_loses_nothing() -> None:
    door = Door()
    door.intake.push_audio(np.zeros(8_000, np.float32), 0, 8_000)
    door.intake.push_audio(np.zeros(24_000, np.float32), NS_PER_S // 1, 48_000)
    door.intake.end_audio()
    assert door.heard().size == 16_000 + 8_000


def test_samples_that_are_not_finite_become_silence_and_are_counted() -> None:
    door = Door()
    pcm = np.array([0.5, np.nan, np.inf, -np.inf, 1e300, 0.5])
    door.intake.push_audio(pcm, 0)
    np.testing.assert_array_equal(door.heard(), np.array([0.5, 0, 0, 0, 0, 0.5], np.float32))
    door.intake.push_audio(np.array([[np.inf, -np.inf], [0.5, 0.5]], np.float32), NS_PER_S)
    assert door.counters["audio.not_finite"] == 5


@pytest.mark.parametrize(
    ("pcm", "rate_hz"),
    [
        (np.zeros(8, np.uint8), 16_000),
        (np.zeros(8, np.complex64), 16_000),
        (np.zeros((2, 2, 2), np.float32), 16_000),
        (np.zeros(8, np.float32), 0),
        (np.zeros(8, np.float32), 12),
    ],
)
def test_what_is_no_sound_is_refused(pcm: Any, rate_hz: int) -> None:
    with pytest.raises(ConfigurationError, match=r"block of sound|12 Hz"):
        Door().intake.push_audio(pcm, 0, rate_hz)


@pytest.mark.parametrize("pcm", [np.zeros(0, np.float32), np.zeros((0, 2), np.int16)])
def test_an_empty_block_is_nothing(pcm: Any) -> None:
    door = Door()
    door.intake.push_audio(pcm, 0)
    assert door.heard().size == 0
    assert door.intake.first_ns is None


def test_the_first_media_of_either_kind_is_remembered() -> None:
    door = Door()
    door.intake.push_audio(np.zeros(16, np.float32), 500)
    door.intake.push_frame(rgb(), 400)
    assert door.intake.first_ns == 500


@pytest.mark.parametrize("value", [1e15, -1e15, 3e38])
def test_what_no_sample_format_can_hold_is_silence_and_counted(value: float) -> None:
    door = Door()
    door.intake.push_audio(np.array([0.5, value, 0.5], np.float32), 0)
    np.testing.assert_array_equal(door.heard(), np.array([0.5, 0.0, 0.5], np.float32))
    assert door.counters["audio.clipped"] == 1


def test_sound_out_of_range_is_clipped_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    door = Door()
    for index in range(3):  # int16 values, as floats
        door.intake.push_audio(
            np.array([0.5, 12_000.0, -32_768.0, 1.0], np.float32), index * NS_PER_S // 4_000
        )
    np.testing.assert_array_equal(door.heard(), np.tile(np.array([0.5, 1, -1, 1], np.float32), 3))
    assert door.counters["audio.clipped"] == 6
    [record] = caplog.records
    assert "goes up to 32768" in record.message
    assert "divide it by 32768" in record.message


def test_a_block_pushed_may_be_used_again_by_its_owner() -> None:
    door = Door()
    mine = np.full(16, 0.5, np.float32)
    door.intake.push_audio(mine, 0)
    mine[:] = -1
    np.testing.assert_array_equal(door.heard(), np.full(16, 0.5, np.float32))


def test_ending_closes_both_streams_and_may_be_repeated() -> None:
    door = Door()
    door.intake.push_audio(np.zeros(480, np.float32), 0, 48_000)
    for _ in range(2):
        door.intake.end_video()
        door.intake.end_audio()
    assert door.video.ended
    assert door.heard().size == 160
    assert door.audio.ended


def test_media_pushed_that_nobody_consumes_is_an_error_with_a_remedy() -> None:
    door = Door(lossless=True, timeout_s=0.01)
    for k in range(4):
        door.intake.push_frame(rgb(), k)
    with pytest.raises(StalledError, match="estimates"):
        door.intake.push_frame(rgb(), 4)
    with pytest.raises(StalledError, match="estimates"):
        door.intake.push_audio(np.zeros(40_000, np.float32), 0)


@pytest.mark.parametrize(
    ("waited", "told"),
    [
        (("vision", 2 * NS_PER_S), "frames.*end_video"),
        (("audio", 2 * NS_PER_S), "sound.*end_audio"),
        (("vision", 3), "frames.*slower"),
    ],
)
def test_a_stall_names_the_stream_that_is_waited_for(waited: tuple[str, int], told: str) -> None:
    door = Door(lossless=True, timeout_s=0.01)
    door.intake.waits_for = lambda: waited
    for k in range(4):
        door.intake.push_frame(rgb(), k)
    with pytest.raises(StalledError, match=told):
        door.intake.push_frame(rgb(), 4)


def test_how_far_a_stream_was_read_is_known_once_all_of_it_has_been_taken() -> None:
    door = Door(lossless=True)
    door.intake.push_audio(np.zeros(4800, np.float32), 0, 48_000)
    assert door.audio.progress_ns is None
    door.intake.advance_audio(NS_PER_S)
    assert door.audio.progress_ns is None  # the sound before comes first, with what the resampler held
    assert door.heard().size == 1600
    assert door.audio.progress_ns == NS_PER_S
    door.intake.advance_audio(NS_PER_S // 2)
    assert door.audio.progress_ns == NS_PER_S
    door.intake.push_audio(np.zeros(4800, np.float32), 2 * NS_PER_S, 48_000)
    assert door.heard().size < 1600


def test_progress_wakes_a_reader_once_and_a_live_ring_keeps_none() -> None:
    exact, live = Door(lossless=True), Door()
    for door in (exact, live):
        door.intake.advance_video(5)
    assert exact.video.wait(0.0)
    assert not exact.video.wait(0.0)
    assert not live.video.wait(0.0)
    assert live.video.progress_ns is None


def test_a_stall_at_the_end_still_closes_the_stream() -> None:
    door = Door(lossless=True, timeout_s=0.01)
    door.intake.push_audio(np.zeros(96_006, np.float32), 0, 48_000)  # what the resampler holds will not fit
    with pytest.raises(StalledError):
        door.intake.end_audio()
    while door.audio.read(10**9) is not None:
        pass
    assert door.audio.ended
