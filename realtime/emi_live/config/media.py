"""Settings of sources and rings: where media comes from and how much of it is kept."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from emi_live.config.section import Positive, Section

__all__ = ["CameraConfig", "MicrophoneConfig", "RingConfig", "SourceConfig"]


class SourceConfig(Section):
    """Where media comes from. With neither `camera` nor `input`, media is pushed from code."""

    camera: int | str | None = None  # index, device path or URL
    input: Path | None = None  # a media file; its sound is used, unless a microphone is named
    # "default", or a device name or index. "none" = no sound. None = the default microphone beside a camera,
    # a file's own sound beside a file.
    mic: str | None = None
    # Exact mode, pushed media: once one stream has been pushed so far beyond the other, that one is taken as
    # having nothing until then; what comes older than that is refused.
    push_lead_s: Positive = 30.0

    @property
    def is_pushed(self) -> bool:
        """Whether media come from code; with `mic` "none", pictures alone."""
        return self.camera is None and self.input is None and self.mic in (None, "none")


class CameraConfig(Section):
    """How a camera is opened and watched."""

    width_px: int | None = Field(None, gt=0)  # None = the device's own choice
    height_px: int | None = Field(None, gt=0)
    fps: float | None = Field(None, gt=0)
    open_timeout_s: Positive = 5.0
    read_timeout_s: Positive = 2.0
    frozen_after_s: Positive = 2.0  # identical frames for this long are a frozen camera
    reopen_first_s: Positive = 0.25  # back-off after a loss: first wait, doubled up to the last
    reopen_last_s: Positive = 3.0


class MicrophoneConfig(Section):
    """How a microphone is opened and watched."""

    block_ms: float = Field(32.0, ge=5, le=200)
    silent_device_s: Positive = 1.0  # no block for this long: the device is gone, reopen it
    reopen_first_s: Positive = 0.25
    reopen_last_s: Positive = 3.0


class RingConfig(Section):
    """How much media the rings keep."""

    audio_s: Positive = 30.0
    video_frames: int = Field(8, ge=2, le=256)
