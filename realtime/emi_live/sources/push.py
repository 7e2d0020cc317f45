"""Media from the program that embeds the engine, as one more source."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from emi_live.clock import NS_PER_S, seconds_to_ns
from emi_live.errors import ConfigurationError, SourceError
from emi_live.intake import Intake

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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

    Frames and sound may be pushed from one thread each, which are not the one in `run`.

    In exact mode the two streams are promised to be pushed within `lead_s` of each other: when one is further
    ahead, the other is taken as having nothing until then, so that no window waits for what never comes.
    """

    name = "push"

    def __init__(self, *, video: bool = True, audio: bool = True, lead_s: float | None = None) -> None:
        """Say which kinds of media will come; without `lead_s`, nothing waits for either."""
        self._video = video
        self._audio = audio
        self._lead_ns = None if lead_s is None else seconds_to_ns(lead_s)
        self._frames = _Stream("a picture", lead_s or 0.0)
        self._sound = _Stream("sound", lead_s or 0.0)
        self._intake: Intake | None = None
        self._attached = threading.Event()
        self._ended = threading.Event()

    @property
    def has_video(self) -> bool:
        """Whether pictures will be pushed."""
        return self._video

    @property
    def has_audio(self) -> bool:
        """Whether sound will be pushed."""
        return self._audio

    def push_frame(self, rgb: NDArray[np.uint8], t_ns: int) -> None:
        """Give one picture, as `Intake.push_frame`.

        Raises:
            ConfigurationError: also, if it is older than what was promised.
        """
        door = self._door()
        if self._lead_ns is not None:
            self._sound.promise(t_ns - self._lead_ns)
        with self._frames.push(t_ns):
            door.push_frame(rgb, t_ns)

    def push_audio(
        self, pcm: NDArray[np.float32] | NDArray[np.int16] | NDArray[np.int32], t_ns: int, rate_hz: int
    ) -> None:
        """Give one block of sound, as `Intake.push_audio`.

        Raises:
            ConfigurationError: also, if it is older than what was promised.
        """
        door = self._door()
        if self._lead_ns is not None:
            self._frames.promise(t_ns - self._lead_ns)
        with self._sound.push(t_ns):
            door.push_audio(pcm, t_ns, rate_hz)

    def advance(self, t_ns: int) -> None:
        """Nothing captured before `t_ns` will be pushed; exact mode need not wait for it."""
        self._door()
        if self._lead_ns is not None:
            self._frames.promise(t_ns)
            self._sound.promise(t_ns)

    def end_video(self) -> None:
        """No more pictures will be pushed."""
        self._door().end_video()

    def end_audio(self) -> None:
        """No more sound will be pushed."""
        self._door().end_audio()

    def end(self) -> None:
        """No more media will be pushed; may be said before `run`."""
        if self._intake is not None:
            self._intake.end_video()
            self._intake.end_audio()
        self._ended.set()

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """Hold the door open until `end`, or `stop`."""
        self._frames.attach(intake.advance_video)
        self._sound.attach(intake.advance_audio)
        self._intake = intake
        self._attached.set()
        while not stop.is_set() and not self._ended.wait(SLICE_S):
            pass
        intake.end_video()
        intake.end_audio()

    def close(self) -> None:
        """Nothing is held."""

    def _door(self) -> Intake:
        if not self._attached.wait(ATTACH_TIMEOUT_S) or self._intake is None:
            raise SourceError(
                "the engine does not take media yet; push inside `with LiveEngine(config) as live:`"
            )
        return self._intake
