"""A camera that runs in a thread while a test checks it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from emi_live.clock import NS_PER_S, MonotonicClock
from emi_live.config import CameraConfig
from emi_live.errors import SourceError
from emi_live.health import Health
from emi_live.sources.camera import CameraSource
from tests.live.sources.fakes import RecordingIntake


class Watch:
    """One camera, watched in a thread until the end of `watching`."""

    def __init__(self, url: str, config: CameraConfig) -> None:
        self.health, self.stop = Health(), threading.Event()
        self.intake = RecordingIntake(self.health)
        self.error: Exception | None = None
        self._source = CameraSource(url, config, MonotonicClock(), self.health)
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._source.run(self.intake, self.stop)
        except SourceError as error:
            self.error = error

    def count(self, name: str) -> int:
        """A counter of its health."""
        return self.health.snapshot().counters.get(name, 0)

    @property
    def state(self) -> str:
        """The state of the camera, as the health report has it."""
        return self.health.status("camera").state

    @property
    def frames(self) -> int:
        """The number of frames so far."""
        return len(self.intake.frames)

    @property
    def seconds(self) -> float:
        """The time from the first frame to the last."""
        times = [t_ns for _, t_ns in self.intake.frames]
        return (times[-1] - times[0]) / NS_PER_S


@contextmanager
def watching(url: str, config: CameraConfig, *, ends_s: float = 2.0) -> Iterator[Watch]:
    """A camera that is watched; it must let go within `ends_s` of the end."""
    watch = Watch(url, config)
    watch.thread.start()
    try:
        yield watch
    finally:
        watch.stop.set()
        watch.thread.join(ends_s)
    assert not watch.thread.is_alive()
    assert watch.intake.events[-1] == "end_video"
