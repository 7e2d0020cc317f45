"""Settings of sources and rings: where media comes from and how much of it is kept."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from emi_live.addresses import has_scheme, safe_address
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
    # Tracks of the file: number from 1 among those of their kind, or language. None = the default track, else
    # the first that can be decoded.
    audio_track: int | str | None = None
    video_track: int | str | None = None
    # A longer hole in all streams of a file at once is no pause but a lie of the time stamps, and is skipped.
    max_gap_s: Positive = 120.0

    @field_validator("mic")
    @classmethod
    def _known_words_in_any_case(cls, mic: str | None) -> str | None:
        word = None if mic is None else mic.strip().lower()
        return word if word in ("none", "default") else mic

    @field_validator("camera")
    @classmethod
    def _an_address_has_two_slashes(cls, camera: int | str | None) -> int | str | None:
        if isinstance(camera, str) and has_scheme(camera) and "://" not in camera:
            scheme, _, rest = safe_address(camera).partition(":")
            raise ValueError(
                f"--camera {scheme}:{rest} has one slash where an address has two: {scheme}:/{rest}"
            )
        return camera

    @field_validator("input", mode="before")
    @classmethod
    def _a_file_is_not_an_address(cls, given: object) -> object:
        """An address would lose a slash in `Path`, and then be looked for as a file."""
        if isinstance(given, str | Path) and has_scheme(given) and not Path(given).exists():
            scheme, _, rest = str(given).partition(":")
            address = safe_address(f"{scheme}://{rest.lstrip('/')}")
            raise ValueError(
                f"--input takes a file, and {address} is an address: watch it as it plays with --camera "
                f"{address}, or save it first with `curl -LO {address}` and give that file"
            )
        return given

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
    max_damaged: int = Field(30, ge=0)  # damaged pictures in a row that are passed over; one more is a loss
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
