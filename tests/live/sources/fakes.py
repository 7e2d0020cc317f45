"""Fakes for the seams of the sources: a scripted device, a stop that advances a clock, an intake."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import seconds_to_ns
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.rings import AudioRing, VideoRing
from emi_live.sources import DeviceLostError
from tests.support.fakes import FakeClock

T = TypeVar("T")


class Stop(threading.Event):
    """A stop signal on which waiting takes no time but moves the clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock
        self.waits_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set() and timeout is not None:
            self.waits_s.append(timeout)
            self._clock.advance(seconds_to_ns(timeout))
        return self.is_set()


class ScriptedFeed(Generic[T]):
    """A device that gives what its script says: items, seconds in which nothing comes, or a loss.

    At the end of the script it calls `at_end`.
    """

    recorded = False

    def __init__(
        self, steps: Iterable[T | float | DeviceLostError], clock: FakeClock, at_end: Callable[[], None]
    ):
        self._steps = deque(steps)
        self._clock = clock
        self._at_end = at_end
        self.closed = 0

    def next(self, timeout_s: float) -> T | None:
        if timeout_s == 0.0:
            return None  # nothing has piled up before `run`
        if not self._steps:
            self._at_end()
            return None
        step = self._steps.popleft()
        if isinstance(step, DeviceLostError):
            raise step
        if isinstance(step, float):
            self._clock.advance(seconds_to_ns(min(step, timeout_s)))
            if step > timeout_s:
                self._steps.appendleft(step - timeout_s)
            return None
        return step

    def close(self) -> None:
        self.closed += 1


class ScriptedDevice(Generic[T]):
    """Opens one `ScriptedFeed` after another; a `DeviceLostError` for a script is a failure to open."""

    def __init__(
        self, *scripts: list[T | float | DeviceLostError] | DeviceLostError, clock: FakeClock, stop: Stop
    ):
        self._scripts = deque(scripts)
        self._clock = clock
        self._stop = stop
        self.feeds: list[ScriptedFeed[T]] = []
        self.opened_at_ns: list[int] = []

    def __call__(self) -> ScriptedFeed[T]:
        self.opened_at_ns.append(self._clock.now_ns())
        script = self._scripts.popleft()
        if isinstance(script, DeviceLostError):
            raise script
        at_end: Callable[[], None] = self._stop.set if not self._scripts else _nothing
        feed = ScriptedFeed[T](script, self._clock, at_end)
        self.feeds.append(feed)
        return feed


def _nothing() -> None:
    """The script is over and the device is silent."""


class RecordingIntake(Intake):
    """A real intake that also remembers what came, with `events` in their order."""

    def __init__(self, health: Health | None = None) -> None:
        self.video_ring, self.audio_ring = VideoRing(4), AudioRing(1.0)
        super().__init__(self.video_ring, self.audio_ring, health or Health())
        self.frames: list[tuple[NDArray[np.uint8], int]] = []
        self.sound: list[tuple[NDArray[Any], int, int]] = []
        self.events: list[str] = []
        self.arrived = threading.Event()

    def push_frame(self, rgb: NDArray[np.uint8], t_ns: int) -> None:
        super().push_frame(rgb, t_ns)
        self.frames.append((rgb, t_ns))
        self.events.append("frame")
        self.arrived.set()

    def push_audio(self, pcm: NDArray[Any], t_ns: int, rate_hz: int = 16_000) -> None:
        super().push_audio(pcm, t_ns, rate_hz)
        self.sound.append((pcm, t_ns, rate_hz))
        self.events.append("sound")
        self.arrived.set()

    def end_video(self) -> None:
        super().end_video()
        if "end_video" not in self.events:
            self.events.append("end_video")

    def end_audio(self) -> None:
        super().end_audio()
        if "end_audio" not in self.events:
            self.events.append("end_audio")
