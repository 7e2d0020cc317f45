"""How far a file has been read: for the view, and as one line on standard error without it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emi_live.clock import NS_PER_S, Clock, MonotonicClock
from emi_live.health import Health, HealthSnapshot
from emi_live.messages import Estimate
from emi_live.sinks.glyphs import Glyphs, glyphs_for

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["LENGTH_FACT", "Progress", "ProgressLine", "ProgressMeter", "clock_time"]

LENGTH_FACT: Final = "file.duration_s"
SPEED_SPAN_NS: Final = 20 * NS_PER_S  # speed is a mean over this much time: words come in bursts
LINE_NS: Final = NS_PER_S // 4
BAR: Final = 24
CLEAR: Final = "\r\x1b[K"
LONGEST_S: Final = 1e6  # eleven days: nothing is known


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a file is at one instant, in seconds of media."""

    done_s: float
    total_s: float | None  # None: the file does not say how long it is
    speed: float | None = None  # seconds of media per second; None: not known yet

    @property
    def share(self) -> float | None:
        """How much is done, in [0, 1]."""
        return None if not self.total_s else min(1.0, max(0.0, self.done_s / self.total_s))

    @property
    def to_go_s(self) -> float | None:
        """How long the rest will take."""
        if self.total_s is None or not self.speed:
            return None
        to_go_s = max(0.0, self.total_s - self.done_s) / self.speed
        return to_go_s if to_go_s < LONGEST_S else None

    def pieces(self, glyphs: Glyphs) -> list[str]:
        """In words, the most important first."""
        length = "" if self.total_s is None else f" of {clock_time(self.total_s)}"
        pieces = [f"{clock_time(self.done_s)}{length}"]
        if self.share is not None:
            pieces.insert(0, f"{100 * self.share:3.0f} %")
        if self.to_go_s is not None:
            pieces.append(f"{clock_time(self.to_go_s)} to go")
        if self.speed:
            pieces.append(f"{self.speed:.1f}{glyphs.times} real time")
        return pieces


class ProgressMeter:
    """Follows estimates through a file; used by one thread."""

    def __init__(self, clock: Clock, until_s: float | None = None) -> None:
        """`until_s`: where the run stops before the file does; None: nowhere."""
        self._clock = clock
        self._until_s = until_s
        self._marks: deque[tuple[int, float]] = deque()

    def add(self, t_s: float) -> None:
        """An estimate for this moment of the media has come."""
        now_ns = self._clock.now_ns()
        self._marks.append((now_ns, t_s))
        while len(self._marks) > 2 and now_ns - self._marks[0][0] > SPEED_SPAN_NS:
            self._marks.popleft()

    def progress(self, health: HealthSnapshot) -> Progress:
        """Where the file is now."""
        lengths = [s for s in (health.facts.get(LENGTH_FACT), self._until_s) if s is not None]
        done_s = self._marks[-1][1] if self._marks else 0.0
        speed = None
        if len(self._marks) > 1:
            (first_ns, first_s), (last_ns, last_s) = self._marks[0], self._marks[-1]
            if last_ns - first_ns >= NS_PER_S // 2:
                speed = (last_s - first_s) / ((last_ns - first_ns) / NS_PER_S)
        return Progress(done_s, min(lengths, default=None), speed)


class ProgressLine:
    """One line on a terminal that is written anew as the file goes on; nothing where there is no terminal."""

    def __init__(
        self, console: Console, health: Health, *, until_s: float | None = None, clock: Clock | None = None
    ) -> None:
        self._console = console
        self._health = health
        self._clock = clock or MonotonicClock()
        self._meter = ProgressMeter(self._clock, until_s)
        self._glyphs = glyphs_for(console.encoding)
        self._shows = console.is_terminal and not console.is_dumb_terminal
        self._shown_ns: int | None = None

    def show(self, estimate: Estimate) -> None:
        """Go on to this estimate."""
        self._meter.add(estimate.t_s)
        now_ns = self._clock.now_ns()
        if self._shows and (self._shown_ns is None or now_ns - self._shown_ns >= LINE_NS):
            self._shown_ns = now_ns
            self._write(CLEAR + self._line())

    def close(self) -> None:
        """Take the line away; a second call does nothing."""
        if self._shown_ns is not None:
            self._shown_ns, self._shows = None, False
            self._write(CLEAR)

    def _line(self) -> str:
        glyphs = self._glyphs
        progress = self._meter.progress(self._health.snapshot())
        line = f" {glyphs.dot} ".join(progress.pieces(glyphs))
        if progress.share is not None:
            line = f"{''.join(glyphs.meter(progress.share, BAR))} {line}"
        return line[: max(0, self._console.width - 1)]

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()


def clock_time(seconds: float) -> str:
    """A time as a player shows it: `02:50`, `1:02:50`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
