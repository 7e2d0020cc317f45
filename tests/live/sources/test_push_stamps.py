"""Pushed media: stamps that are no stamps of ours are refused or moved, counted, and said."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.media import PixelFormat
from emi_live.rings import AudioRing, VideoRing
from emi_live.sources.push import PushSource
from tests.support.fakes import FakeClock

FRAME = np.zeros((4, 6, 3), np.uint8)
BLOCK = np.zeros(320, np.float32)  # 20 ms
NOW_NS = 5_000 * NS_PER_S  # of a machine that was started a good hour ago


class Pushing:
    """A push source that holds its door open, on a clock that moves by hand."""

    def __init__(self, *, exact: bool = False, audio: bool = True) -> None:
        self.clock = FakeClock(NOW_NS)
        self.health = Health()
        video, sound = VideoRing(4), AudioRing(30.0)
        self.video, self.sound = video.reader(), sound.reader()
        lead_s = 1.0 if exact else None
        self.source = PushSource(audio=audio, lead_s=lead_s, clock=self.clock, health=self.health)
        self._intake = Intake(video, sound, self.health, clock=self.clock)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.source.run, args=(self._intake, self._stop))

    def __enter__(self) -> Pushing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    @property
    def counters(self) -> dict[str, int]:
        return self.health.snapshot().counters

    def stamp(self) -> int | None:
        """Of the frame that was taken last."""
        frame = self.video.read()
        return None if frame is None else frame.t_ns

    def blocks(self) -> list[tuple[int, bool]]:
        """Start and gap of each run of sound."""
        found = []
        while (block := self.sound.read(10**9)) is not None:
            found.append((block.t_ns, block.gap_before))
        return found


@pytest.fixture
def pushing() -> Iterator[Pushing]:
    with Pushing() as open_door:
        yield open_door


def test_without_a_stamp_a_frame_is_of_now(pushing: Pushing) -> None:
    pushing.source.push_frame(FRAME)
    assert pushing.stamp() == NOW_NS


@pytest.mark.parametrize("pixel_format", ["rgb24", "bgr24"])
def test_a_program_may_use_its_picture_again(pushing: Pushing, pixel_format: PixelFormat) -> None:
    mine = np.full((4, 6, 3), 7, np.uint8)
    pushing.source.push_frame(mine, None, pixel_format)
    mine[:] = 0
    got = pushing.video.read()
    assert got is not None
    assert (got.rgb == 7).all()


def test_sound_without_stamps_is_one_run_however_unevenly_it_comes(pushing: Pushing) -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        pushing.clock.advance(20 * NS_PER_MS)
        jitter = int(random.integers(0, 300)) * NS_PER_MS
        pushing.clock.advance(jitter)
        pushing.source.push_audio(BLOCK)
        pushing.clock.advance(-jitter)
    [(first_ns, gap)] = pushing.blocks()[:1]
    assert not gap
    assert abs(first_ns - NOW_NS) < 300 * NS_PER_MS
    assert "audio.out_of_order" not in pushing.counters
    assert not any(gap for _, gap in pushing.blocks())


def test_sound_without_stamps_that_stops_for_a_while_has_a_gap(pushing: Pushing) -> None:
    for pause_s in (0, 3):
        pushing.clock.advance(pause_s * NS_PER_S)
        for _ in range(10):
            pushing.clock.advance(20 * NS_PER_MS)
            pushing.source.push_audio(BLOCK)
    assert [gap for _, gap in pushing.blocks()] == [False, True]


@pytest.mark.parametrize(
    ("t_ns", "looks"),
    [
        (time.time_ns(), r"looks like time\.time_ns\(\)"),
        (time.time_ns() // 1_000, r"microseconds of time\.time\(\)"),
        (time.time_ns() // 10**6, r"milliseconds of time\.time\(\)"),
        (int(time.time()), r" seconds of time\.time\(\)"),
        (NOW_NS // NS_PER_S, r" seconds of time\.monotonic\(\)"),
        (NOW_NS // NS_PER_MS, r"milliseconds of time\.monotonic\(\)"),
        (NOW_NS // 1_000, r"microseconds of time\.monotonic\(\)"),
        (0, "time since a recording began"),
        (40 * NS_PER_S, "time since a recording began"),
        (NOW_NS + 90 * NS_PER_S, r"is 90 s ahead of time\.monotonic_ns\(\)"),
        (NOW_NS - 90 * NS_PER_S, r"is 90 s behind time\.monotonic_ns\(\)"),
        (-NOW_NS, r"behind time\.monotonic_ns\(\)"),
    ],
    ids=str.split("ns us ms s monotonic_s monotonic_ms monotonic_us zero media ahead behind negative"),
)
def test_a_first_stamp_that_is_not_ours_is_refused_by_its_name(
    pushing: Pushing, t_ns: int, looks: str
) -> None:
    for push in (
        lambda: pushing.source.push_frame(FRAME, t_ns),
        lambda: pushing.source.push_audio(BLOCK, t_ns),
    ):
        with pytest.raises(ConfigurationError, match=looks):
            push()
    assert pushing.counters["video.stamps_refused"] == pushing.counters["audio.stamps_refused"] == 1
    assert pushing.stamp() is None
    pushing.source.push_frame(FRAME, np.int64(NOW_NS))  # the remedy works
    assert pushing.stamp() == NOW_NS


@pytest.mark.parametrize(
    ("jump_s", "says"), [(3600, "stamps are in the future"), (-60, "stamps are 60 s in")]
)
def test_stamps_that_jump_are_left_out_then_moved_and_the_reason_says_so(
    pushing: Pushing, jump_s: int, says: str
) -> None:
    """And nothing with such a stamp is kept: no frame goes on before its time is known."""
    taken, reasons = [], set()
    for index in range(60):
        pushing.clock.advance(33 * NS_PER_MS)
        offset_ns = 0 if index < 5 else jump_s * NS_PER_S
        pushing.source.push_frame(FRAME, pushing.clock.now_ns() + offset_ns)
        taken.append(pushing.stamp())
        reasons |= set(pushing.source.why_late().values())
    assert pushing.counters["video.stamps_rebased"] == 1
    assert 5 <= pushing.counters["video.stamps_refused"] <= 20
    assert all(stamp is not None for stamp in taken[30:])
    assert all(stamp <= pushing.clock.now_ns() for stamp in taken if stamp is not None)
    assert any(reason.startswith(says) for reason in reasons)
    assert pushing.source.why_late() == {}
    pushing.source.push_frame(FRAME, pushing.clock.now_ns() + 1)  # they are as before: no offset any more
    assert pushing.stamp() == pushing.clock.now_ns() + 1


def test_single_wrong_stamps_cost_their_frame_alone(pushing: Pushing) -> None:
    for index in range(40):
        pushing.clock.advance(33 * NS_PER_MS)
        wrong_ns = 10**15 * (index % 10 == 9)
        pushing.source.push_frame(FRAME, pushing.clock.now_ns() + wrong_ns)
    assert pushing.counters == {"video.frames": 36, "video.stamps_refused": 4}


def test_media_that_come_late_are_taken_and_the_reason_says_how_late(pushing: Pushing) -> None:
    pushing.source.push_frame(FRAME, NOW_NS - 3 * NS_PER_S)
    pushing.source.push_audio(BLOCK, NOW_NS - 4 * NS_PER_S)
    assert pushing.source.why_late() == {"video": "frames come 3 s late", "audio": "sound comes 4 s late"}
    assert pushing.stamp() == NOW_NS - 3 * NS_PER_S
    pushing.clock.advance(3 * NS_PER_S)
    assert pushing.source.why_late() == {}  # nothing comes at all: "no frames" says it


def test_sound_that_goes_back_is_left_out_and_counted(pushing: Pushing) -> None:
    for offset_ms in (0, 20, -2_000, 40):
        pushing.source.push_audio(BLOCK, NOW_NS + offset_ms * NS_PER_MS)
    assert pushing.counters["audio.out_of_order"] == 1
    assert len(pushing.blocks()) == 1


def frame(pts: int, *, base: Fraction = Fraction(1, 90_000)) -> Any:
    made = av.VideoFrame.from_ndarray(FRAME, format="rgb24")
    made.pts, made.time_base = pts, base
    return made


def test_live_the_stamps_of_pyav_frames_are_mapped_to_the_fastest_arrival(pushing: Pushing) -> None:
    stamps = []
    for index, delay_ms in enumerate([50, 80, 20, 90, 40, 60]):
        pushing.clock.advance(delay_ms * NS_PER_MS)
        pushing.source.push_frame(frame(7_000_000 + index * 9_000))  # 100 ms apart, from anywhere
        stamps.append(pushing.stamp())
        pushing.clock.advance((100 - delay_ms) * NS_PER_MS)
    ideal = [NOW_NS + (20 + 100 * index) * NS_PER_MS for index in range(6)]
    assert all(stamp is not None for stamp in stamps)
    errors = [abs((stamp or 0) - want) for stamp, want in zip(stamps, ideal, strict=True)]
    assert max(errors[2:]) < NS_PER_MS


def test_a_jump_of_pts_is_moved_to_the_clock_and_counted(pushing: Pushing) -> None:
    for index in range(20):
        pushing.clock.advance(100 * NS_PER_MS)
        pushing.source.push_frame(frame(index * 9_000 + (index >= 10) * 10**9))
        stamp = pushing.stamp()
        assert stamp is not None
        assert abs(stamp - pushing.clock.now_ns()) < 2 * NS_PER_MS
    assert pushing.counters["video.stamps_rebased"] == 1


def test_in_exact_mode_pts_are_the_capture_times_and_stamps_may_begin_anywhere() -> None:
    with Pushing(exact=True) as pushing:
        pushing.source.push_frame(frame(45_000))
        assert pushing.stamp() == NS_PER_S // 2
        pushing.source.push_frame(frame(0), 700)
        assert pushing.counters["video.out_of_order"] == 1
    with Pushing(exact=True) as pushing:
        pushing.source.push_frame(FRAME, time.time_ns())
        assert pushing.stamp() is not None


def test_exact_mode_needs_stamps_and_refuses_hours_of_nothing() -> None:
    with Pushing(exact=True) as pushing:
        with pytest.raises(ConfigurationError, match="give t_ns"):
            pushing.source.push_frame(FRAME)
        pushing.source.push_frame(FRAME, 0)
        pushing.source.push_frame(FRAME, 100 * NS_PER_S)  # a slide show
        with pytest.raises(ConfigurationError, match="3600 s"):
            pushing.source.push_frame(FRAME, 3_700 * NS_PER_S)
        assert pushing.counters == {"video.frames": 2, "video.stamps_refused": 1}


def test_after_the_end_nothing_is_taken_or_counted(pushing: Pushing) -> None:
    pushing.source.push_frame(FRAME)
    pushing.source.push_audio(BLOCK)
    before = pushing.counters
    pushing.source.end_video()
    with pytest.raises(ConfigurationError, match="push_frame"):
        pushing.source.push_frame(FRAME)
    pushing.source.push_audio(BLOCK)
    pushing.source.end()
    with pytest.raises(ConfigurationError, match="push_audio"):
        pushing.source.push_audio(BLOCK)
    assert pushing.counters == before


def test_sound_for_an_engine_without_is_refused() -> None:
    with Pushing(audio=False) as pushing, pytest.raises(ConfigurationError, match="no audio comes"):
        pushing.source.push_audio(BLOCK)


def test_many_threads_may_push_at_once(pushing: Pushing) -> None:
    def push(count: int) -> None:
        for _ in range(count):
            pushing.source.push_frame(FRAME)
            pushing.source.push_audio(BLOCK, rate_hz=48_000.0)

    threads = [threading.Thread(target=push, args=(50,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    counters = pushing.counters
    assert counters["video.frames"] + counters.get("video.out_of_order", 0) == 200
