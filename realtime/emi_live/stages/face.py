"""The face stage: pictures in, face features out, one packet for every picture analysed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emi_live.config import FaceConfig
from emi_live.health import Health
from emi_live.messages import Packet, VisionPacket, end_of_stream
from emi_live.rings import VideoReader
from emi_live.stages.pictures import PictureReader

if TYPE_CHECKING:
    from emi_live.bundle import FaceReader

__all__ = ["FaceStage"]


class FaceStage:
    """Follows the largest face. Live, the newest picture wins; lossless, every one is looked at.

    Pictures closer together than `max_fps` allows are left out and counted as `face.skipped`.
    """

    name = "face"
    topic = "vision"

    def __init__(self, reader: VideoReader, encoder: FaceReader, config: FaceConfig, health: Health) -> None:
        self._pictures = PictureReader(reader, config.max_fps, health)
        self._encoder = encoder
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for a picture."""
        return self._pictures.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packet of the next picture, if there is one; in a gap, how far the pictures were read."""
        frame = self._pictures.read()
        if frame is None:
            if not self._pictures.ended:
                return self._pictures.promise()
            if self.ended:
                return ()
            self.ended = True
            return (end_of_stream(self.topic, self._pictures.newest_ns or 0),)
        result = self._encoder.analyse(frame.rgb, frame.t_ns)
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
        self._pictures.close()
