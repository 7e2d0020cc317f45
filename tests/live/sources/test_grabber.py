"""The thread that reads a camera: newest wins, a hang holds nothing up, the device is always released."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_live.clock import NS_PER_MS
from emi_live.health import Health
from emi_live.sources.device import DeviceLostError
from emi_live.sources.grabber import Grabber
from tests.fakes import FakeClock


class Camera:
    """A capture whose pictures come when the test lets them; each takes 30 ms of the fake clock."""

    def __init__(self, clock: FakeClock, *, buffered: int = 0) -> None:
        self._clock = clock
        self._buffered = buffered
        self._allowed = threading.Semaphore(0)
        self._grabbed = 0
        self.waiting = threading.Semaphore(0)  # released each time `grab` begins
        self.released = threading.Event()
        self.unplugged = False
        self.damaged = False

    def let(self, pictures: int) -> None:
        """Let so many grabs return, and wait until the reader asks for the one after them."""
        for _ in range(pictures):
            self._allowed.release()
        for _ in range(pictures):
            assert self.waiting.acquire(timeout=5)

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


def start(camera: Camera, clock: FakeClock, health: Health | None = None) -> Grabber:
    grabber = Grabber(lambda: camera, clock, health or Health())
    assert camera.waiting.acquire(timeout=5)
    return grabber


def finish(grabber: Grabber, camera: Camera) -> None:
    closing = threading.Thread(target=grabber.close)
    closing.start()
    camera.unplugged = True
    camera._allowed.release()
    closing.join(5)
    assert camera.released.wait(5)


def test_the_newest_picture_wins_and_the_others_are_counted(clock: FakeClock) -> None:
    camera, health = Camera(clock), Health()
    grabber = start(camera, clock, health)
    camera.let(3)
    picture = grabber.next(1.0)
    assert picture is not None
    assert picture.t_ns == 90 * NS_PER_MS
    assert picture.rgb[0, 0, 0] == 3
    assert grabber.next(0.0) is None
    assert health.snapshot().counters["camera.overwritten"] == 2
    finish(grabber, camera)


def test_pictures_that_waited_in_a_buffer_are_left_out(clock: FakeClock) -> None:
    camera, health = Camera(clock, buffered=5), Health()
    grabber = start(camera, clock, health)
    camera.let(6)
    picture = grabber.next(1.0)
    assert picture is not None
    assert picture.rgb[0, 0, 0] == 6
    assert health.snapshot().counters == {"camera.buffered": 5}
    finish(grabber, camera)


def test_damaged_pictures_are_counted(clock: FakeClock) -> None:
    camera, health = Camera(clock), Health()
    grabber = start(camera, clock, health)
    camera.damaged = True
    camera.let(2)
    assert grabber.next(0.0) is None
    assert health.snapshot().counters["camera.damaged"] == 2
    finish(grabber, camera)


def test_a_camera_that_ends_is_lost_after_its_last_picture(clock: FakeClock) -> None:
    camera = Camera(clock)
    grabber = start(camera, clock)
    camera.let(1)
    camera.unplugged = True
    camera._allowed.release()
    assert camera.released.wait(5)
    assert grabber.next(1.0) is not None
    with pytest.raises(DeviceLostError, match="the camera gave no picture"):
        grabber.next(1.0)
    grabber.close()


def test_a_camera_that_cannot_be_opened_is_lost(clock: FakeClock) -> None:
    def refuse() -> Camera:
        raise DeviceLostError("it cannot be opened")

    grabber = Grabber(refuse, clock, Health())
    with pytest.raises(DeviceLostError, match="it cannot be opened"):
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
