"""Picture and sound in a recording, for `--record-media`: as Foxglove's own messages, which viewers show.

`/emi/picture` is `foxglove.CompressedImage` (JPEG), `/emi/sound` `foxglove.RawAudio` (16 kHz, mono, 16 bits):
https://docs.foxglove.dev/docs/sdk/schemas. A replay does not read them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_live.clock import NS_PER_S
from emi_live.health import Health
from emi_live.rings import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from emi_live.rings import AudioReader, VideoReader

__all__ = ["PICTURE", "SOUND", "MediaRecorder", "media_schemas"]

PICTURE: Final = "picture"
SOUND: Final = "sound"
QUALITY: Final = 85  # of JPEG
WAIT_S: Final = 0.05
BLOCK: Final = SAMPLE_RATE_HZ // 10


def media_schemas() -> dict[str, Any]:
    """By topic, the schema of its messages: `name`, `encoding` and `data`."""
    from foxglove.messages import CompressedImage, RawAudio

    return {PICTURE: CompressedImage.get_schema(), SOUND: RawAudio.get_schema()}


class MediaRecorder:
    """Encodes what the rings have, in a thread of its own; nothing waits for it.

    A picture that a newer one replaced is counted as `record.pictures_skipped`, lost sound as
    `record.lost_samples`.
    """

    def __init__(
        self,
        video: VideoReader,
        audio: AudioReader,
        put: Callable[[str, int, bytes], None],
        offset_ns: int,
        health: Health,
    ) -> None:
        """Read these, loosely.

        Args:
            video: of frames.
            audio: of sound.
            put: takes topic, capture time and message.
            offset_ns: wall time minus the clock of capture times.
            health: counters.
        """
        self._video, self._audio = video, audio
        self._put, self._offset_ns, self._health = put, offset_ns, health

    def __call__(self, stop: threading.Event) -> None:
        """Until both streams end, or `stop`; the body of a worker."""
        while not stop.is_set():
            ended = self._video.ended, self._audio.ended
            if all(ended):
                return
            (self._audio if ended[0] else self._video).wait(WAIT_S)
            self._step()

    def _step(self) -> None:
        before = self._video.overwritten
        frame = self._video.read()
        if skipped := self._video.overwritten - before:
            self._health.count("record.pictures_skipped", skipped)
        if frame is not None:
            self._put(PICTURE, frame.t_ns, self._picture(frame.rgb, frame.t_ns))
        while (block := self._audio.read(BLOCK)) is not None:
            if block.lost:
                self._health.count("record.lost_samples", block.lost)
            self._put(SOUND, block.t_ns, self._sound(block.samples, block.t_ns))

    def _picture(self, rgb: Any, t_ns: int) -> bytes:
        import cv2
        from foxglove.messages import CompressedImage

        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        message = CompressedImage(
            timestamp=self._stamp(t_ns), frame_id="camera", data=jpeg.tobytes(), format="jpeg"
        )
        return bytes(message.encode())

    def _sound(self, samples: Any, t_ns: int) -> bytes:
        from foxglove.messages import RawAudio

        pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
        message = RawAudio(
            timestamp=self._stamp(t_ns),
            data=pcm.tobytes(),
            format="pcm-s16",
            sample_rate=SAMPLE_RATE_HZ,
            number_of_channels=1,
        )
        return bytes(message.encode())

    def _stamp(self, t_ns: int) -> Any:
        from foxglove.messages import Timestamp

        sec, nsec = divmod(max(0, t_ns + self._offset_ns), NS_PER_S)
        return Timestamp(sec=sec, nsec=nsec)
