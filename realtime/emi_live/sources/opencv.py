"""Opening a camera of this machine with OpenCV, and saying what is wrong when that fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emi_live.addresses import safe_address
from emi_live.config import CameraConfig
from emi_live.sources.device import DeviceLostError

if TYPE_CHECKING:
    from cv2 import VideoCapture

__all__ = ["OpenCvCapture", "advice", "is_url"]


def is_url(where: int | str) -> bool:
    """Whether a camera is reached over the network."""
    return isinstance(where, str) and "://" in where


def advice(where: int | str) -> str:
    """What to do about a camera that cannot be opened."""
    if is_url(where):
        return f"check that `ffplay {safe_address(where)}` shows it"
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    path = f"/dev/video{where}" if isinstance(where, int) else where
    if not path.startswith("/"):
        return "a camera is a number (0), a device (/dev/video0) or an address (rtsp://HOST/…, http://HOST/…)"
    if not devices:
        return "there is no /dev/video* here: plug a camera in, or give a stream's URL with --camera"
    if os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK):
        return f"this user may not use {path}: `sudo usermod -aG video $USER`, then log in again"
    return f"it may be in use by another program; devices here: {', '.join(devices)}"


class OpenCvCapture:
    """One camera on this machine by `cv2.VideoCapture`, set up for the lowest delay. Used by one thread.

    Raises:
        DeviceLostError: the device cannot be opened.
    """

    length_ns = 0
    media_ns = None

    def __init__(self, where: int | str, config: CameraConfig) -> None:
        # The libraries below write straight to the terminal, into the middle of the view; a user's choice
        # wins.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        import cv2

        if "OPENCV_LOG_LEVEL" not in os.environ:
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._cv2 = cv2
        self._capture = self._open(where, config)
        if not self._capture.isOpened():
            self._capture.release()
            raise DeviceLostError("it cannot be opened")

    def grab(self) -> bool:
        """Wait for the next picture."""
        return bool(self._capture.grab())

    def rgb(self) -> NDArray[np.uint8] | None:
        """The picture grabbed last, RGB."""
        good, picture = self._capture.retrieve()
        if not good or picture is None or picture.size == 0:
            return None
        grey = picture.ndim == 2 or picture.shape[2] == 1
        code = self._cv2.COLOR_GRAY2RGB if grey else self._cv2.COLOR_BGR2RGB
        rgb: NDArray[np.uint8] = self._cv2.cvtColor(picture, code)
        return rgb

    def release(self) -> None:
        """Close the device."""
        self._capture.release()

    def _open(self, where: int | str, config: CameraConfig) -> VideoCapture:
        cv2 = self._cv2
        capture: VideoCapture = cv2.VideoCapture(
            where, cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
        )
        # Two: with one, a driver has nowhere to put the next picture while this one is read, and the rate
        # halves.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)
        if config.width_px or config.height_px:  # over USB 2, larger pictures come at full rate only as JPEG
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        wishes = {
            cv2.CAP_PROP_FRAME_WIDTH: config.width_px,
            cv2.CAP_PROP_FRAME_HEIGHT: config.height_px,
            cv2.CAP_PROP_FPS: config.fps,
        }
        for setting, value in wishes.items():
            if value is not None:
                capture.set(setting, value)
        return capture
