"""Capture times of one pushed stream: made where none is given, checked where one is."""

from __future__ import annotations

import logging
import time
from typing import Final, Literal

from emi_live.clock import NS_PER_MS, NS_PER_S, Clock
from emi_live.errors import ConfigurationError
from emi_live.health import Health

__all__ = ["StampGuard"]

FUTURE_NS: Final = NS_PER_S  # ahead of the clock: what is kept until its time comes is bounded by this
PAST_NS: Final = 10 * NS_PER_S  # behind it: hardly any window would still have use for it
LATE_NS: Final = NS_PER_S  # said in the reason from here on
BACK_NS: Final = NS_PER_S // 2  # sound that starts so long before the end of the block before
HOLE_NS: Final = 600 * NS_PER_S  # exact mode would answer each hop of it
REBASE_AFTER: Final = 5  # stamps in a row that agree with each other, over half a second
REBASE_NS: Final = NS_PER_S // 2
UNSTAMPED_GAP_NS: Final = NS_PER_S // 2  # sound without stamps that comes so much later has a hole
DELAY_NS: Final = 2 * NS_PER_S  # a PyAV frame so late has stamps that jumped
DRIFT: Final = 5_000  # one part in this: how fast a sender's clock may be slower than ours
SAID_NS: Final = 2 * NS_PER_S  # how long a reason stands
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
        self._noted = ("", -(2**62))  # why media are of no use, and when that was seen

    def place(self, t_ns: int | None, media_ns: int | None, duration_ns: int) -> int | None:
        """The capture time of a picture or block; None: it is left out, and counted.

        Args:
            t_ns: as its owner gave it.
            media_ns: as a PyAV frame carries it, on a clock of its own.
            duration_ns: of the block; 0 for a picture.

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
        """Why media that come are of no use now, in words."""
        text, seen_ns = self._noted
        return text if text and self._clock.now_ns() - seen_ns <= SAID_NS else None

    def _exactly(self, t_ns: int | None) -> int:
        if t_ns is None:
            raise ConfigurationError("exact mode answers by capture time: give t_ns, in nanoseconds")
        if self._end_ns is not None and t_ns - self._end_ns > HOLE_NS:
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
