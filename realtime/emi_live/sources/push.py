"""Media from the program that embeds the engine, as one more source.

`StampGuard` makes capture times where the program gives none, and checks those that it gives.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

from emi_live.clock import NS_PER_MS, NS_PER_S, Clock, MonotonicClock, seconds_to_ns
from emi_live.errors import ConfigurationError, SourceError
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.media import frame_of, sound_of, stamp_of

if TYPE_CHECKING:
    from emi_live.media import PixelFormat, SoundLayout

__all__ = ["PushSource", "StampGuard"]

FUTURE_NS: Final = NS_PER_S  # ahead of the clock; this limits how much is kept until its time comes
PAST_NS: Final = 10 * NS_PER_S  # behind it; hardly any window could still use it
LATE_NS: Final = NS_PER_S  # from here on, the reason mentions it
BACK_NS: Final = NS_PER_S // 2  # sound that starts this long before the end of the block before is left out
MAX_GAP_NS: Final = 600 * NS_PER_S  # exact mode would answer each hop of a longer gap
REBASE_AFTER: Final = 5  # stamps in a row that agree with each other, over half a second
REBASE_NS: Final = NS_PER_S // 2
UNSTAMPED_GAP_NS: Final = NS_PER_S // 2  # sound without stamps that comes this much later has a gap
DELAY_NS: Final = 2 * NS_PER_S  # the stamps of a PyAV frame this late have jumped
DRIFT: Final = 5_000  # one part in this: how fast a sender's clock may be slower than ours
REASON_NS: Final = 2 * NS_PER_S  # how long a reason is shown
YEAR_NS: Final = 365 * 86_400 * NS_PER_S
UNITS: Final = (
    ("nanoseconds", 1),
    ("microseconds", 1_000),
    ("milliseconds", 1_000_000),
    ("seconds", NS_PER_S),
)
REMEDY: Final = "use time.monotonic_ns(), or leave t_ns out"

logger = logging.getLogger(__name__)


class StampGuard:
    """Decides on every stamp of one stream; used by one thread at a time, `reason` by any.

    Live, the first stamp must be near the clock, or it is refused with an error. Later ones that are not are
    left out and counted as `<stream>.stamps_refused`; if they go on in a steady way, they are moved to the
    clock, counted as `<stream>.stamps_rebased`. In exact mode any increasing stamps will do.
    """

    def __init__(
        self, stream: Literal["video", "audio"], clock: Clock, health: Health, *, exact: bool
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._health = health
        self._exact = exact
        self._end_ns: int | None = None  # of the newest that was taken
        self._offset_ns = 0  # added to stamps that jumped
        self._odd: tuple[int, int, int] | None = None  # the first of implausible stamps, when, and how many
        self._played_ns = 0  # of sound without stamps
        self._media: tuple[int, int] | None = None  # a time of the media, and what leads from it to the clock
        self._noted = ("", -(2**62))  # why media cannot be used, and when that was noticed

    def place(self, t_ns: int | None, media_ns: int | None, duration_ns: int) -> int | None:
        """The capture time of a frame or block; None: it is left out, and counted.

        Args:
            t_ns: as its owner gave it.
            media_ns: as a PyAV frame carries it, on the media's own clock.
            duration_ns: of the block; 0 for a frame.

        Raises:
            ConfigurationError: the first stamp is not on our clock, or one is missing in exact mode.
        """
        taken: int | None
        if self._exact:
            taken = self._exactly(t_ns if t_ns is not None else media_ns)
        elif t_ns is not None:
            taken = self._checked(t_ns, duration_ns)
        elif media_ns is not None:
            taken = self._mapped(media_ns, duration_ns, DELAY_NS, counted=True)
        elif duration_ns:
            taken = self._mapped(self._played_ns, duration_ns, UNSTAMPED_GAP_NS, counted=False)
            self._played_ns += duration_ns
        else:
            taken = self._clock.now_ns()
        if taken is None or (duration_ns and not self._exact and self._goes_back(taken)):
            return None
        self._end_ns = max(taken + duration_ns, self._end_ns if self._end_ns is not None else taken)
        return taken

    def reason(self) -> str | None:
        """Why arriving media cannot be used now, in words; None if they can."""
        text, seen_ns = self._noted
        return text if text and self._clock.now_ns() - seen_ns <= REASON_NS else None

    def _exactly(self, t_ns: int | None) -> int:
        if t_ns is None:
            raise ConfigurationError("exact mode answers by capture time: give t_ns, in nanoseconds")
        if self._end_ns is not None and t_ns - self._end_ns > MAX_GAP_NS:
            self._health.count(f"{self._stream}.stamps_refused")
            raise ConfigurationError(
                f"t_ns={t_ns} is {_seconds(t_ns - self._end_ns)} after the {self._stream} before it, and "
                "exact mode would answer every hop between them; leave it out, or begin another run"
            )
        return t_ns

    def _checked(self, t_ns: int, duration_ns: int) -> int | None:
        now_ns = self._clock.now_ns()
        if self._offset_ns and _is_near(t_ns, now_ns):
            self._offset_ns = 0
        placed_ns = t_ns + self._offset_ns
        if not _is_near(placed_ns, now_ns):
            self._health.count(f"{self._stream}.stamps_refused")
            if self._end_ns is None:
                raise ConfigurationError(f"t_ns={t_ns} {_looks_like(t_ns, now_ns)}; {REMEDY}")
            ahead = placed_ns > now_ns
            side = "in the future" if ahead else f"{_seconds(now_ns - placed_ns)} in the past"
            self._note(f"stamps are {side}", now_ns)
            return self._rebased(t_ns, duration_ns, now_ns)
        self._odd = None
        late_ns = now_ns - placed_ns - duration_ns
        verb = "frames come" if self._stream == "video" else "sound comes"
        self._note(f"{verb} {_seconds(late_ns)} late" if late_ns >= LATE_NS else "", now_ns)
        return placed_ns

    def _rebased(self, t_ns: int, duration_ns: int, now_ns: int) -> int | None:
        """Move stamps that go on in a steady way to the clock; None: they have not yet."""
        first_ns, since_ns, count = self._odd or (t_ns, now_ns, 0)
        if abs((t_ns - first_ns) - (now_ns - since_ns)) > REBASE_NS:
            first_ns, since_ns, count = t_ns, now_ns, 0
        self._odd = (first_ns, since_ns, count + 1)
        if count + 1 < REBASE_AFTER or now_ns - since_ns < REBASE_NS:
            return None
        self._odd = None
        self._offset_ns = now_ns - duration_ns - t_ns
        self._health.count(f"{self._stream}.stamps_rebased")
        self._note("", now_ns)
        logger.warning(
            "the stamps of pushed %s jumped by %s: moved to the clock",
            self._stream,
            _seconds(abs(self._offset_ns)),
        )
        return t_ns + self._offset_ns

    def _mapped(self, media_ns: int, duration_ns: int, most_ns: int, *, counted: bool) -> int:
        """A time of the media on our clock: as early as the fastest arrival so far allows."""
        arrived_ns = self._clock.now_ns() - duration_ns
        lead_ns = arrived_ns - media_ns
        if self._media is not None:
            before_ns, known_ns = self._media
            known_ns += max(0, media_ns - before_ns) // DRIFT
            if lead_ns - known_ns > most_ns or known_ns - lead_ns > DELAY_NS:
                if counted:
                    self._health.count(f"{self._stream}.stamps_rebased")
            else:
                lead_ns = min(lead_ns, known_ns)
        self._media = (media_ns, lead_ns)
        return media_ns + lead_ns

    def _goes_back(self, t_ns: int) -> bool:
        if self._end_ns is None or t_ns >= self._end_ns - BACK_NS:
            return False
        self._health.count(f"{self._stream}.out_of_order")
        self._note("stamps go back", self._clock.now_ns())
        return True

    def _note(self, text: str, now_ns: int) -> None:
        self._noted = (text, now_ns)


def _is_near(t_ns: int, now_ns: int) -> bool:
    return -PAST_NS <= t_ns - now_ns <= FUTURE_NS


def _looks_like(t_ns: int, now_ns: int) -> str:
    """What a stamp that is not on our clock may be."""
    wall_ns = time.time_ns()
    for unit, size in UNITS:
        if abs(t_ns * size - wall_ns) < YEAR_NS:
            return "looks like time.time_ns()" if size == 1 else f"looks like {unit} of time.time()"
        if size > 1 and abs(t_ns * size - now_ns) < PAST_NS + size:
            return f"looks like {unit} of time.monotonic()"
    if 0 <= t_ns < min(3600 * NS_PER_S, now_ns):
        return "looks like the time since a recording began, which exact mode takes"
    side = "ahead of" if t_ns > now_ns else "behind"
    return f"is {_seconds(abs(t_ns - now_ns))} {side} time.monotonic_ns()"


def _seconds(ns: int) -> str:
    return f"{ns / NS_PER_S:.0f} s" if ns >= NS_PER_S else f"{ns / NS_PER_MS:.0f} ms"


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
            ConfigurationError: a promise says that nothing this old will come.
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
        # The holder of the lock looks again after it has released it, so that no promise is left behind.
        while self._wanted_ns != self._promised_ns and self._busy.acquire(blocking=False):
            try:
                wanted_ns = self._wanted_ns
                if wanted_ns is not None and wanted_ns != self._promised_ns:
                    self._pass_on(wanted_ns)
                    self._promised_ns = wanted_ns
            finally:
                self._busy.release()


class PushSource:
    """Passes on what a program pushes while `run` runs.

    Any thread may push; what several push at once goes in one after the other.

    In exact mode the two streams are promised to be pushed within `lead_s` of each other: when one is further
    ahead, the other is taken as having nothing until then, so that no window waits for what never comes.
    """

    name = "push"
    announcements: Sequence[str] = ()

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
        self._frames = _Stream("a frame", lead_s or 0.0)
        self._sound = _Stream("sound", lead_s or 0.0)

    @property
    def has_video(self) -> bool:
        """Whether frames will be pushed."""
        return self._streams["video"]

    @property
    def has_audio(self) -> bool:
        """Whether sound will be pushed."""
        return self._streams["audio"]

    def push_frame(self, frame: Any, t_ns: Any = None, pixel_format: PixelFormat | None = None) -> None:
        """Give one frame, as `LiveEngine.push_frame`."""
        intake = self._intake_for("video", "push_frame")
        rgb, media_ns = frame_of(frame, pixel_format)
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
        intake = self._intake_for("audio", "push_audio")
        samples, rate, media_ns = sound_of(pcm, rate_hz, layout, channels)
        stamp = stamp_of(t_ns)
        if not samples.size:
            return
        with self._locks["audio"]:
            taken_ns = self._stamps["audio"].place(stamp, media_ns, len(samples) * NS_PER_S // rate)
            if taken_ns is None:
                return
            if self._lead_ns is not None:
                self._frames.promise(taken_ns - self._lead_ns)
            with self._sound.push(taken_ns):
                intake.push_audio(samples, taken_ns, rate)

    def advance(self, t_ns: int) -> None:
        """Nothing captured before `t_ns` will be pushed; exact mode need not wait for it."""
        self._attach()
        if self._lead_ns is not None:
            self._frames.promise(t_ns)
            self._sound.promise(t_ns)

    def why_late(self) -> dict[str, str]:
        """By stream, why arriving media cannot be used now: wrong stamps, or too late."""
        found = {stream: stamps.reason() for stream, stamps in self._stamps.items()}
        return {stream: reason for stream, reason in found.items() if reason is not None}

    def end_video(self) -> None:
        """No more frames will be pushed."""
        self._attach().end_video()
        self._over.add("video")

    def end_audio(self) -> None:
        """No more sound will be pushed."""
        self._over.add("audio")
        intake = self._attach()
        with self._locks["audio"]:
            intake.end_audio()

    def end(self) -> None:
        """No more media will be pushed; may be called before `run`."""
        self._over |= {"video", "audio"}
        self._finish()
        self._ended.set()

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """Accept media until `end` is called or `stop` is set."""
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

    def _intake_for(self, stream: str, call: str) -> Intake:
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
