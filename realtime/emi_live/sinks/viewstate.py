"""What the terminal view shows at one instant, and the keeper that gathers it from the estimates."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from emi_live.clock import NS_PER_S, Clock
from emi_live.health import HealthSnapshot
from emi_live.messages import Estimate
from emi_live.sinks.counters import Loss, losses
from emi_live.sinks.progress import Progress, ProgressMeter
from emi_models.vocabulary import EMOTIONS

__all__ = ["HISTORY_BIN_S", "StateKeeper", "ViewState"]

HISTORY_BIN_S: Final = 0.5  # of capture time: one column of a history
HISTORY_BINS: Final = 240
RATE_SPAN_NS: Final = 3 * NS_PER_S  # rates are means over this much time


@dataclass(frozen=True, slots=True)
class ViewState:
    """Everything the view shows; numbers as they came, not smoothed."""

    source: str = ""  # what is being watched, in words
    notice: str = ""  # the line at the bottom
    estimate: Estimate | None = None  # the newest
    history: tuple[
        tuple[float, ...] | None, ...
    ] = ()  # per HISTORY_BIN_S, the mean of each emotion; newest last
    estimate_rate_hz: float | None = None
    frame_rate_hz: float | None = None
    speed: float | None = None  # seconds of media per second
    silent_s: float = 0.0  # since the newest estimate came
    losses: tuple[Loss, ...] = ()  # what was lost or skipped, the largest fault first
    progress: Progress | None = None  # through a file in exact mode; None: live
    keys: bool | None = None  # whether keys are read; None: nobody is there to press them
    paused: bool = False  # whether this is kept from an earlier instant
    helping: bool = False  # whether the keys are explained
    markers: int = 0  # set so far

    def history_of(self, emotion: int, columns: int) -> list[float | None]:
        """The last values of one emotion, oldest first, one per column; None where there was no estimate."""
        recent = self.history[len(self.history) - min(columns, len(self.history)) :]
        values = [None if bin_ is None else bin_[emotion] for bin_ in recent]
        return [None] * (columns - len(values)) + values


class StateKeeper:
    """Gathers estimates into the state of the view; used by one thread."""

    def __init__(
        self, clock: Clock, source: str = "", notice: str = "", *, meter: ProgressMeter | None = None
    ) -> None:
        """`meter` follows the progress through a file; None: the run is live."""
        self._clock = clock
        self._source = source
        self._notice = notice
        self._meter = meter
        self._estimate: Estimate | None = None
        self._bins: deque[tuple[float, ...] | None] = deque(maxlen=HISTORY_BINS)
        self._bin_index: int | None = None
        self._bin: list[tuple[float, ...]] = []
        self._marks: deque[tuple[int, float, int]] = deque()  # arrival, capture time, frames so far
        self._arrived_ns = clock.now_ns()

    def add(self, estimate: Estimate, frames: int) -> None:
        """Take in one estimate; `frames` is how many pictures had come by then."""
        self._estimate = estimate
        self._arrived_ns = self._clock.now_ns()
        if self._meter is not None:
            self._meter.add(estimate.t_s)
        self._marks.append((self._arrived_ns, estimate.t_s, frames))
        while len(self._marks) > 2 and self._arrived_ns - self._marks[0][0] > RATE_SPAN_NS:
            self._marks.popleft()
        index = int(estimate.t_s / HISTORY_BIN_S)
        if self._bin_index is not None and index < self._bin_index:  # a stream that began anew
            self._bins.clear()
            self._bin_index = None
        if index != self._bin_index:
            skipped = 0 if self._bin_index is None else index - self._bin_index - 1
            self._bins.extend([None] * min(skipped, HISTORY_BINS))
            self._bins.append(None)
            self._bin_index, self._bin = index, []
        self._bin.append(estimate.intensities)
        self._bins[-1] = tuple(
            sum(values[emotion] for values in self._bin) / len(self._bin) for emotion in range(len(EMOTIONS))
        )

    def state(self, health: HealthSnapshot) -> ViewState:
        """The state of the view now."""
        now_ns = self._clock.now_ns()
        estimate_rate = frame_rate = speed = None
        if len(self._marks) > 1:
            first, last = self._marks[0], self._marks[-1]
            span_s = (last[0] - first[0]) / NS_PER_S
            if span_s > 0:
                estimate_rate = (len(self._marks) - 1) / span_s
                speed = (last[1] - first[1]) / span_s
                frame_rate = (last[2] - first[2]) / span_s
        return ViewState(
            source=self._source,
            notice=self._notice,
            estimate=self._estimate,
            history=tuple(self._bins),
            estimate_rate_hz=estimate_rate,
            frame_rate_hz=frame_rate,
            speed=speed,
            silent_s=(now_ns - self._arrived_ns) / NS_PER_S,
            losses=losses(health),
            progress=None if self._meter is None else self._meter.progress(health),
        )
