"""Media from the program that embeds the engine, as one more source."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from emi_live.clock import NS_PER_S, Clock, MonotonicClock, seconds_to_ns
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


class _Stream:
    """One pushed stream: its pushes and its promises exclude each other, and no promise waits for a push."""

    def __init__(self, what: str, lead_s: float) -> None:
        """Name the media `what` in messages; `lead_s` is what the promises were made from."""
        self._what = what
        self._lead_s = lead_s
        self._busy = threading.Lock()  # while media are pushed, or a promise is passed on
        self._wanted_lock = threading.Lock()
        self._wanted_ns: int | None = None  # the newest promise
        self._promised_ns: int | None = None  # the newest one that has been passed on
        self._pass_on: Callable[[int], None] = lambda t_ns: None

    def attach(self, pass_on: Callable[[int], None]) -> None:
        """Where promises go."""
        self._pass_on = pass_on

    @contextmanager
    def push(self, t_ns: int) -> Iterator[None]:
        """Hold this while media of that time are passed on.

        Raises:
            ConfigurationError: it was promised that nothing so old would come.
        """
        try:
            with self._busy:
                if self._promised_ns is not None and t_ns < self._promised_ns:
                    late_s = (self._promised_ns - t_ns) / NS_PER_S
                    raise ConfigurationError(
                        f"{self._what} of t_ns={t_ns} came {late_s:.2f} s too late: windows have "
                        "gone on without it; push both streams in order of time (advance() and end_*() say "
                        f"what will not come), or set a larger source.push_lead_s (now {self._lead_s:g})"
                    )
                yield
        finally:
            self._settle()

    def promise(self, t_ns: int) -> None:
        """Nothing captured before `t_ns` is taken any more; at once, or as soon as a push has ended."""
        with self._wanted_lock:
            self._wanted_ns = t_ns if self._wanted_ns is None else max(self._wanted_ns, t_ns)
        self._settle()

    def _settle(self) -> None:
        # Whoever holds the lock looks again after letting go of it: no promise is left behind.
        while self._wanted_ns != self._promised_ns and self._busy.acquire(blocking=False):
            try:
                wanted_ns = self._wanted_ns
                if wanted_ns is not None and wanted_ns != self._promised_ns:
                    self._pass_on(wanted_ns)
                    self._promised_ns = wanted_ns
            finally:
                self._busy.release()


class PushSource:
    """Passes on what a program pushes while `run` holds the door open.

    Any thread may push; what several push at once goes in one after the other.

    In exact mode the two streams are promised to be pushed within `lead_s` of each other: when one is further
    ahead, the other is taken as having nothing until then, so that no window waits for what never comes.
    """

    name = "push"

    def __init__(
        self,
        *,
        video: bool = True,
        audio: bool = True,
        lead_s: float | None = None,
        clock: Clock | None = None,
        health: Health | None = None,
    ) -> None:
        """Say which kinds of media will come; without `lead_s` it is live, and `clock` checks stamps."""
        self._streams = {"video": video, "audio": audio}
        self._intake: Intake | None = None
        self._attached = threading.Event()
        self._ended = threading.Event()
        self._over: set[str] = set()  # streams that were ended
        self._locks = {"video": threading.Lock(), "audio": threading.Lock()}
        clock, health = clock or MonotonicClock(), health or Health()
        exact = lead_s is not None
        self._stamps = {
            "video": StampGuard("video", clock, health, exact=exact),
            "audio": StampGuard("audio", clock, health, exact=exact),
        }
        self._lead_ns = None if lead_s is None else seconds_to_ns(lead_s)
        self._frames = _Stream("a picture", lead_s or 0.0)
        self._sound = _Stream("sound", lead_s or 0.0)

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
            taken_ns = self._stamps["video"].place(stamp, media_ns, 0)
            if taken_ns is None:
                return
            if self._lead_ns is not None:
                self._sound.promise(taken_ns - self._lead_ns)
            with self._frames.push(taken_ns):
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
            taken_ns = self._stamps["audio"].place(stamp, sound.t_ns, sound.duration_ns)
            if taken_ns is None:
                return
            if self._lead_ns is not None:
                self._frames.promise(taken_ns - self._lead_ns)
            with self._sound.push(taken_ns):
                intake.push_audio(sound.pcm, taken_ns, sound.rate_hz)

    def advance(self, t_ns: int) -> None:
        """Nothing captured before `t_ns` will be pushed; exact mode need not wait for it."""
        self._attach()
        if self._lead_ns is not None:
            self._frames.promise(t_ns)
            self._sound.promise(t_ns)

    def why_late(self) -> dict[str, str]:
        """By stream, why media that come are of no use now: their stamps are wrong, or they come late."""
        found = {stream: stamps.reason() for stream, stamps in self._stamps.items()}
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
        self._frames.attach(intake.advance_video)
        self._sound.attach(intake.advance_audio)
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
