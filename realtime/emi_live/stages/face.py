"""The face stage: pictures in, face features out, one packet for every picture analysed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from emi_live.clock import NS_PER_S
from emi_live.config import FaceConfig
from emi_live.health import Health
from emi_live.messages import Packet, VisionPacket, end_of_stream
from emi_live.rings import VideoReader

if TYPE_CHECKING:
    from emi_live.bundle import FaceReader

__all__ = ["FaceStage"]

EARLY: Final = 0.9  # a frame is taken this share of the shortest interval after the last: cameras jitter


class FaceStage:
    """Follows the largest face. Live, the newest picture wins; lossless, every one is looked at.

    Pictures closer together than `max_fps` allows are left out and counted as `face.skipped`.
    """

    name = "face"
    topic = "vision"

    def __init__(self, reader: VideoReader, encoder: FaceReader, config: FaceConfig, health: Health) -> None:
        self._reader = reader
        self._encoder = encoder
        self._shortest_ns = round(EARLY * NS_PER_S / config.max_fps)
        self._health = health
        self._last_ns: int | None = None  # capture time of the last picture analysed
        self._overwritten = 0
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for a picture."""
        return self._reader.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packet of the next picture, if there is one."""
        frame = self._reader.read()
        self._health.count("camera.overwritten", self._reader.overwritten - self._overwritten)
        self._overwritten = self._reader.overwritten
        if frame is None:
            if not self._reader.ended or self.ended:
                return ()
            self.ended = True
            return (end_of_stream(self.topic, self._last_ns or 0),)
        if self._last_ns is not None and frame.t_ns - self._last_ns < self._shortest_ns:
            self._health.count("face.skipped")
            return ()
        self._last_ns = frame.t_ns
        result = self._encoder.analyse(frame.rgb, frame.t_ns)
        self._health.count("face.frames")
        return (
            VisionPacket(
                t_ns=frame.t_ns,
                progress_ns=frame.t_ns,
                arrived_ns=frame.arrived_ns,
                faces=result.faces,
                features=result.features,
            ),
        )

    def reset(self) -> None:
        """Look for the face anew."""
        self._encoder.reset()

    def close(self) -> None:
        """Leave the input."""
        self._reader.close()
