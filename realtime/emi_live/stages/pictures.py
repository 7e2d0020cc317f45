"""Pictures from a ring for a stage that looks at faces: no more a second than it wants, losses counted."""

from __future__ import annotations

from typing import Final

from emi_live.clock import NS_PER_S
from emi_live.health import Health
from emi_live.messages import NOTHING_YET, VisionPacket
from emi_live.rings import Frame, VideoReader
from emi_live.stages.stage import Promise

__all__ = ["PictureReader"]

EARLY: Final = 0.9  # a frame is taken this share of the shortest interval after the last: cameras jitter


class PictureReader:
    """Reads one ring. Live, the newest picture wins; lossless, every one is given.

    Pictures that were overwritten are counted as `camera.overwritten`; those closer together than `max_fps`
    allows are left out and counted as `face.skipped`, the others as `face.frames`.
    """

    def __init__(self, reader: VideoReader, max_fps: float, health: Health) -> None:
        self._reader = reader
        self._promise = Promise(reader)
        self._shortest_ns = round(EARLY * NS_PER_S / max_fps)
        self._health = health
        self._overwritten = 0
        self._newest_ns: int | None = None

    @property
    def newest_ns(self) -> int | None:
        """Capture time of the last picture given."""
        return self._newest_ns

    @property
    def ended(self) -> bool:
        """Whether the last picture has been given."""
        return self._reader.ended

    @property
    def more(self) -> bool:
        """Whether another picture waits."""
        return self._reader.backlog > 0

    def wait(self, timeout_s: float) -> bool:
        """Wait for a picture, for progress, or for the end."""
        return self._promise.wait(timeout_s)

    def read(self) -> Frame | None:
        """The next picture; None if there is none, or it comes too early."""
        frame = self._reader.read()
        self._health.count("camera.overwritten", self._reader.overwritten - self._overwritten)
        self._overwritten = self._reader.overwritten
        if frame is None:
            return None
        if self._newest_ns is not None and frame.t_ns - self._newest_ns < self._shortest_ns:
            self._health.count("face.skipped")
            return None
        self._newest_ns = frame.t_ns
        self._health.count("face.frames")
        return frame

    @property
    def progress_ns(self) -> int | None:
        """All pictures to come were captured at or after this; None if it is not known, or pictures wait."""
        return self._reader.progress_ns

    def promise(self) -> list[VisionPacket]:
        """A packet of progress alone if it is time for one; all pictures before must have been told of."""
        progress_ns = self._promise.due()
        if progress_ns is None:
            return []
        t_ns = NOTHING_YET if self._newest_ns is None else self._newest_ns
        return [VisionPacket(t_ns=t_ns, progress_ns=progress_ns, faces=-1, features=None)]

    def close(self) -> None:
        """Leave the ring."""
        self._reader.close()
