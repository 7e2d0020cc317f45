"""Media from the program that embeds the engine, as one more source."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from emi_live.clock import Clock, MonotonicClock
from emi_live.errors import ConfigurationError, SourceError
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.media import picture_of, sound_of, stamp_of
from emi_live.sources.push_stamps import StampGuard

if TYPE_CHECKING:
    from emi_live.media import PictureFormat, SoundLayout

__all__ = ["PushSource"]

ATTACH_TIMEOUT_S: Final = 5.0  # `run` starts within milliseconds of the engine
SLICE_S: Final = 0.1  # longest wait before looking again whether the engine stops


class PushSource:
    """Passes on what a program pushes while `run` holds the door open.

    Any thread may push; what several push at once goes in one after the other.
    """

    name = "push"

    def __init__(
        self,
        *,
        video: bool = True,
        audio: bool = True,
        clock: Clock | None = None,
        health: Health | None = None,
        exact: bool = False,
    ) -> None:
        """Say which kinds of media will come; stamps are checked against `clock`, but for exact mode."""
        self._streams = {"video": video, "audio": audio}
        self._intake: Intake | None = None
        self._attached = threading.Event()
        self._ended = threading.Event()
        self._over: set[str] = set()  # streams that were ended
        self._locks = {"video": threading.Lock(), "audio": threading.Lock()}
        clock, health = clock or MonotonicClock(), health or Health()
        self._pictures = StampGuard("video", clock, health, exact=exact)
        self._sound = StampGuard("audio", clock, health, exact=exact)

    @property
    def has_video(self) -> bool:
        """Whether pictures will be pushed."""
        return self._streams["video"]

    @property
    def has_audio(self) -> bool:
        """Whether sound will be pushed."""
        return self._streams["audio"]

    def push_frame(self, picture: Any, t_ns: Any = None, picture_format: PictureFormat | None = None) -> None:
        """Give one picture, as `LiveEngine.push_frame`."""
        intake = self._door("video", "push_frame")
        rgb, media_ns = picture_of(picture, picture_format)
        stamp = stamp_of(t_ns)
        with self._locks["video"]:
            taken_ns = self._pictures.place(stamp, media_ns, 0)
            if taken_ns is not None:
                intake.push_frame(rgb, taken_ns)

    def push_audio(
        self,
        pcm: Any,
        t_ns: Any = None,
        rate_hz: Any = None,
        layout: SoundLayout = "channels_last",
        channels: int | None = None,
    ) -> None:
        """Give one block of sound, as `LiveEngine.push_audio`."""
        intake = self._door("audio", "push_audio")
        sound = sound_of(pcm, rate_hz, layout, channels)
        stamp = stamp_of(t_ns)
        if not sound.pcm.size:
            return
        with self._locks["audio"]:
            taken_ns = self._sound.place(stamp, sound.t_ns, sound.duration_ns)
            if taken_ns is not None:
                intake.push_audio(sound.pcm, taken_ns, sound.rate_hz)

    def why_late(self) -> dict[str, str]:
        """By stream, why media that come are of no use now: their stamps are wrong, or they come late."""
        found = {"video": self._pictures.reason(), "audio": self._sound.reason()}
        return {stream: reason for stream, reason in found.items() if reason is not None}

    def end_video(self) -> None:
        """No more pictures will be pushed."""
        self._attach().end_video()
        self._over.add("video")

    def end_audio(self) -> None:
        """No more sound will be pushed."""
        self._over.add("audio")
        intake = self._attach()
        with self._locks["audio"]:
            intake.end_audio()

    def end(self) -> None:
        """No more media will be pushed; may be said before `run`."""
        self._over |= {"video", "audio"}
        self._finish()
        self._ended.set()

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """Hold the door open until `end`, or `stop`."""
        self._intake = intake
        self._attached.set()
        while not stop.is_set() and not self._ended.wait(SLICE_S):
            pass
        self._finish()

    def close(self) -> None:
        """Nothing is held."""

    def _finish(self) -> None:
        if self._intake is not None:
            self._intake.end_video()
            with self._locks["audio"]:
                self._intake.end_audio()

    def _door(self, stream: str, call: str) -> Intake:
        if not self._streams[stream]:
            raise ConfigurationError(
                f"{call}: this engine was told that no {stream} comes; leave out source.mic='none'"
            )
        if stream in self._over:
            raise ConfigurationError(
                f"{call} after the end of {stream}: nothing more is taken; start another run to go on"
            )
        return self._attach()

    def _attach(self) -> Intake:
        if not self._attached.wait(ATTACH_TIMEOUT_S) or self._intake is None:
            raise SourceError(
                "the engine does not take media yet; push inside `with LiveEngine(config) as live:`"
            )
        return self._intake
