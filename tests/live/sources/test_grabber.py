"""The thread that reads a camera: newest wins, a hang holds nothing up, the device is always released."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_live.errors import SourceError
from emi_live.health import Health
from emi_live.sources import DeviceLostError, FeedEndedError
from emi_live.sources.camera import Grabber, Pacer
from tests.support.fakes import FakeClock


class Camera:
    """A capture whose frames come when the test lets them; each takes 30 ms of the fake clock."""

    def __init__(self, clock: FakeClock, *, buffered: int = 0) -> None:
        self._clock = clock
        self._buffered = buffered
        self._allowed = threading.Semaphore(0)
        self._grabbed = 0
        self.waiting = threading.Semaphore(0)  # released each time `grab` begins
        self.released = threading.Event()
        self.unplugged = False
        self.damaged = False

    def let(self, frames: int) -> None:
        """Let so many grabs return, and wait until the reader asks for the one after them."""
        for _ in range(frames):
            self._allowed.release()
        for _ in range(frames):
            assert self.waiting.acquire(timeout=5)

    length_ns = 0
    media_ns: int | None = None

    def grab(self) -> bool:
        self.waiting.release()
        self._allowed.acquire()
        self._grabbed += 1
        if self._grabbed > self._buffered:
            self._clock.advance(30 * NS_PER_MS)
        return not self.unplugged

    def rgb(self) -> NDArray[np.uint8] | None:
        return None if self.damaged else np.full((2, 2, 3), self._grabbed, np.uint8)

    def release(self) -> None:
        self.released.set()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def start(camera: Camera, clock: FakeClock, health: Health | None = None, max_damaged: int = 30) -> Grabber:
    grabber = Grabber(lambda: camera, clock, health or Health(), max_damaged=max_damaged)
    assert camera.waiting.acquire(timeout=5)
    return grabber


def finish(grabber: Grabber, camera: Camera) -> None:
    closing = threading.Thread(target=grabber.close)
    closing.start()
    camera.unplugged = True
    camera._allowed.release()
    closing.join(5)
    assert camera.released.wait(5)


def test_the_newest_frame_wins_and_the_others_are_counted(clock: FakeClock) -> None:
    camera, health = Camera(clock), Health()
    grabber = start(camera, clock, health)
    camera.let(3)
    frame = grabber.next(1.0)
    assert frame is not None
    assert frame.t_ns == 90 * NS_PER_MS
    assert frame.rgb[0, 0, 0] == 3
    assert grabber.next(0.0) is None
    assert health.snapshot().counters["camera.overwritten"] == 2
    finish(grabber, camera)


def test_frames_that_waited_in_a_buffer_are_left_out(clock: FakeClock) -> None:
    camera, health = Camera(clock, buffered=5), Health()
    grabber = start(camera, clock, health)
    camera.let(6)
    frame = grabber.next(1.0)
    assert frame is not None
    assert frame.rgb[0, 0, 0] == 6
    assert health.snapshot().counters == {"camera.buffered": 5}
    finish(grabber, camera)


def test_damaged_frames_are_counted(clock: FakeClock) -> None:
    camera, health = Camera(clock), Health()
    grabber = start(camera, clock, health)
    camera.damaged = True
    camera.let(2)
    assert grabber.next(0.0) is None
    assert health.snapshot().counters["camera.damaged"] == 2
    finish(grabber, camera)


def test_too_many_damaged_frames_in_a_row_are_a_loss(clock: FakeClock) -> None:
    camera, health = Camera(clock), Health()
    grabber = start(camera, clock, health, max_damaged=2)
    camera.damaged = True
    camera.let(2)
    camera.damaged = False
    camera.let(1)
    camera.damaged = True
    camera.let(2)
    assert grabber.next(0.0) is not None
    camera._allowed.release()
    assert camera.released.wait(5)
    with pytest.raises(DeviceLostError, match="3 damaged frames"):
        grabber.next(1.0)
    assert health.snapshot().counters["camera.damaged"] == 5
    grabber.close()


class Recording(Camera):
    """A server that sends frames of a recording, half a second of it each, as fast as they are taken."""

    length_ns = 2 * NS_PER_S

    def __init__(self, clock: FakeClock, frames: int) -> None:
        super().__init__(clock)
        self._frames = frames

    def grab(self) -> bool:
        if self._grabbed == self._frames:
            return False
        self.media_ns = self._grabbed * NS_PER_S // 2
        self._grabbed += 1
        return True


def play(recording: Recording, clock: FakeClock, health: Health) -> Grabber:
    grabber = Grabber(lambda: recording, clock, health)
    assert recording.released.wait(5)
    return grabber


def test_a_recording_is_paced_by_its_stamps_and_ends(clock: FakeClock) -> None:
    health = Health()
    grabber = play(Recording(clock, 4), clock, health)
    assert clock.waits == [0, NS_PER_S // 2, NS_PER_S, 3 * NS_PER_S // 2]
    frame = grabber.next(1.0)
    assert frame is not None
    assert grabber.recorded
    assert frame.t_ns == 3 * NS_PER_S // 2
    with pytest.raises(FeedEndedError):
        grabber.next(1.0)
    assert "camera.buffered" not in health.snapshot().counters


def test_a_recording_that_breaks_off_is_no_end(clock: FakeClock) -> None:
    recording = Recording(clock, 2)
    grabber = play(recording, clock, Health())
    assert grabber.next(1.0) is not None
    with pytest.raises(SourceError, match=r"0\.5 s of 2\.0 s"):
        grabber.next(1.0)


def test_a_pacer_takes_a_server_that_sends_minutes_at_once_for_a_recording() -> None:
    pacer, due = Pacer(), list[int | None]()
    for second in range(100):  # at 20 times its pace, of no stated length
        due.append(pacer.due_ns(second * NS_PER_S, 0, second * NS_PER_S // 20))
    assert due[:60] == [None] * 60
    assert due[60:] == [second * NS_PER_S for second in range(60, 100)]


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
def test_a_pacer_takes_a_fast_or_slow_camera_for_a_camera(speed: float) -> None:
    pacer = Pacer()
    assert all(
        pacer.due_ns(second * NS_PER_S, 0, round(second * NS_PER_S / speed)) is None
        for second in range(9_000)
    )


def test_a_pacer_lets_a_playlist_begin_with_what_the_server_holds() -> None:
    pacer = Pacer()
    assert all(pacer.due_ns(k * NS_PER_S, 0, max(0, k - 30) * NS_PER_S) is None for k in range(3_600))


def test_a_stream_that_outlives_its_stated_length_is_a_camera() -> None:
    pacer = Pacer()
    due = [pacer.due_ns(k * NS_PER_S // 10, NS_PER_S, k * NS_PER_S // 10) for k in range(100)]
    assert due[:21] == [k * NS_PER_S // 10 for k in range(21)]
    assert due[21:] == [None] * 79


def test_a_recording_is_not_hurried_after_a_stall_nor_held_up_by_a_wrong_stamp() -> None:
    pacer = Pacer()
    hour = 3_600 * NS_PER_S
    assert pacer.due_ns(0, hour, 0) == 0
    assert pacer.due_ns(NS_PER_S, hour, 5 * NS_PER_S) == 5 * NS_PER_S  # stalled for 4 s
    assert pacer.due_ns(2 * NS_PER_S, hour, 5 * NS_PER_S) == 6 * NS_PER_S
    assert pacer.due_ns(1_000 * NS_PER_S, hour, 6 * NS_PER_S) == 6 * NS_PER_S
    assert pacer.due_ns(3 * NS_PER_S, hour, 6 * NS_PER_S) == 6 * NS_PER_S
    assert pacer.due_ns(None, hour, 6 * NS_PER_S) is None


def test_a_camera_that_ends_is_lost_after_its_last_frame(clock: FakeClock) -> None:
    camera = Camera(clock)
    grabber = start(camera, clock)
    camera.let(1)
    camera.unplugged = True
    camera._allowed.release()
    assert camera.released.wait(5)
    assert grabber.next(1.0) is not None
    with pytest.raises(DeviceLostError, match="no frame"):
        grabber.next(1.0)
    grabber.close()


def test_a_camera_that_cannot_be_opened_is_lost(clock: FakeClock) -> None:
    def refuse() -> Camera:
        raise DeviceLostError("it cannot be opened")

    grabber = Grabber(refuse, clock, Health())
    with pytest.raises(DeviceLostError, match="opened"):
        grabber.next(5.0)
    grabber.close()


def test_an_error_of_the_driver_is_a_loss(clock: FakeClock) -> None:
    class Broken(Camera):
        def grab(self) -> bool:
            raise RuntimeError("ioctl failed")

    camera = Broken(clock)
    grabber = Grabber(lambda: camera, clock, Health())
    with pytest.raises(DeviceLostError, match="ioctl failed"):
        grabber.next(5.0)
    assert camera.released.wait(5)
    grabber.close()


@pytest.mark.parametrize("hang_where", ["grab", "open"])
def test_a_hang_holds_nothing_up_and_the_device_is_released_when_it_ends(
    clock: FakeClock, hang_where: str
) -> None:
    camera, opening = Camera(clock), threading.Event()

    def connect() -> Camera:
        if hang_where == "open":
            opening.wait(30)
        return camera

    grabber = Grabber(connect, clock, Health())
    assert grabber.next(0.0) is None
    closed = threading.Event()
    closing = threading.Thread(target=_then(grabber.close, closed.set))
    closing.start()
    assert closed.wait(5)  # close gives up waiting by itself
    assert not camera.released.is_set()
    opening.set()
    camera._allowed.release()
    assert camera.released.wait(5)
    closing.join(5)


def _then(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        first()
        second()

    return both
