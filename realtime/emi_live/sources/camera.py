"""A camera or a network stream as a source of pictures, watched for silence and for freezing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from emi_live.addresses import safe_address
from emi_live.clock import Clock, seconds_to_ns
from emi_live.config import CameraConfig
from emi_live.errors import ConfigurationError, SourceError
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.sources.device import DeviceLoop, DeviceLostError, Feed
from emi_live.sources.grabber import CameraPicture, Capture, Grabber
from emi_live.sources.liveness import FreezeDetector
from emi_live.sources.opencv import OpenCvCapture, advice, is_url
from emi_live.sources.stream import StreamCapture
from emi_live.worker import Backoff

__all__ = ["CameraSource"]


class CameraSource:
    """One camera, by index, device path or URL; the newest picture always wins.

    A recording on a server is played at its own pace, and ends.

    A picture's capture time is read right after it was grabbed. A camera that gives no picture, or the very
    same one for `frozen_after_s`, is reported as `failed` and opened again for as long as it takes.
    """

    def __init__(
        self,
        where: int | str,
        config: CameraConfig,
        clock: Clock,
        health: Health,
        *,
        connect: Callable[[], Feed[CameraPicture]] | None = None,
    ) -> None:
        """Open the camera and wait for its first picture.

        Args:
            where: index, device path or URL.
            config: how it is opened and watched.
            clock: the clock of capture times.
            health: gets the part `camera` and the counters `camera.*`.
            connect: opens the device; the default uses OpenCV.

        Raises:
            ConfigurationError: `where` is a media file.
            SourceError: there is no such camera, or it gives no picture.
        """
        where = int(where) if isinstance(where, str) and where.isdecimal() else where
        if isinstance(where, str):
            _refuse_what_is_no_camera(where)
        self._health = health

        def open_capture() -> Capture:
            return StreamCapture(str(where), config) if is_url(where) else OpenCvCapture(where, config)

        self._freeze = FreezeDetector(seconds_to_ns(config.frozen_after_s))
        self._frozen_text = f"the same frame again for {config.frozen_after_s:.1f} s"
        self._loop = DeviceLoop[CameraPicture](
            self.name,
            connect or (lambda: Grabber(open_capture, clock, health, max_damaged=config.max_damaged)),
            clock,
            health,
            nothing="no picture arriving",
            first_s=config.open_timeout_s,
            silent_s=config.read_timeout_s,
            backoff=Backoff(config.reopen_first_s, config.reopen_last_s),
        )
        try:
            self._loop.open()
        except DeviceLostError as error:
            raise SourceError(f"camera {safe_address(where)}: {error}; {advice(where)}") from error

    @property
    def name(self) -> str:
        """`camera`."""
        return "camera"

    @property
    def has_video(self) -> bool:
        """Always."""
        return True

    @property
    def has_audio(self) -> bool:
        """Never: sound comes from a microphone."""
        return False

    @property
    def recorded(self) -> bool:
        """Whether it is a recording, which is played once; known for sure when it states its length."""
        return self._loop.recorded

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """Push pictures until `stop` is set; then release the camera and end the pictures, not the sound.

        Raises:
            SourceError: a recording is broken off.
        """

        def accept(picture: CameraPicture) -> bool:
            state = "live" if picture.recorded else self._freeze.observe(picture.rgb, picture.t_ns)
            if state == "frozen":
                raise DeviceLostError(self._frozen_text)
            if state == "live":
                intake.push_frame(picture.rgb, picture.t_ns)
            return state == "live"

        try:
            self._loop.run(accept, stop)
        finally:
            intake.end_video()
        self._health.report(self.name, "ended")

    def close(self) -> None:
        """Release the camera; `run` does it, so this is for a source that was never run."""
        self._loop.close()


def _refuse_what_is_no_camera(where: str) -> None:
    shown = safe_address(where)
    if not is_url(where):
        if Path(where).is_file():
            raise ConfigurationError(f"{where} is a media file, not a camera; use --input {where}")
        if Path(where).is_fifo():
            raise ConfigurationError(
                f"{where} is a pipe, not a camera; write what comes out of it to a file, and use --input FILE"
            )
    elif where.lower().startswith("file:"):
        raise ConfigurationError(f"{shown} is a media file, not a camera; use --input {shown[7:]}")
