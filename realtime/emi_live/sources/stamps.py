"""Correction of time stamps that start again, jump, wrap around, or are plainly wrong.

Pure logic. Its input are the stamps of the packets of one file, in the order of the file. A stamp is believed
as long as the media around it agree:

- Time goes on, or one stream pauses while the other runs on, or both pause for up to `max_gap_ns`: believed.
- Some stamps are far off, and later packets of the stream are back on the old line: those stamps are refused,
  and the media get the time at which they were expected.
- The stream stays on a new line, in the past or further ahead than all media account for: a discontinuity.
  Time goes on without a gap. The other stream is moved by the same amount when it jumps too, so that video
  and sound stay together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Generic, Literal, TypeAlias, TypeVar

from emi_live.clock import NS_PER_MS, NS_PER_S

__all__ = ["Correction", "MediaTimeline", "Stamp", "StreamName"]

StreamName: TypeAlias = Literal["video", "audio"]
Correction: TypeAlias = Literal["discontinuities", "refused_stamps"]

BACK_NS: Final = 500 * NS_PER_MS  # a decode time this far back is not jitter
JITTER_NS: Final = 20 * NS_PER_MS  # of decode times, which should not go back at all
AHEAD_NS: Final = NS_PER_S  # a longer gap is examined
RETURN_NS: Final = 2 * NS_PER_S  # how near a later packet must come to the old line to be back on it
REORDER_NS: Final = 10 * NS_PER_S  # a frame is rarely shown this long after it can be decoded
REORDER: Final = 17  # packets by which frames can be out of order: H.264 and HEVC have 16
WITNESSES: Final = 8  # packets of the stream that can show that it is back on the old line
LOOK_AHEAD: Final = 256  # packets of both streams, about two seconds
TOGETHER_NS: Final = 10 * NS_PER_S  # streams that jump to places this close have jumped together
OVERLAP_NS: Final = 2 * NS_PER_S  # the end of one part may lie over the start of the next by this much
LONGEST_STEP_NS: Final = NS_PER_S  # stated durations lie too

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stamp:
    """The times that a packet states, from the container's start; None where it states none."""

    stream: StreamName
    pts_ns: int | None
    dts_ns: int | None
    duration_ns: int = 0

    def moved(self, offset_ns: int) -> Stamp:
        """The same stamp, later by `offset_ns`."""
        if offset_ns == 0:
            return self
        pts_ns = None if self.pts_ns is None else self.pts_ns + offset_ns
        return replace(self, pts_ns=pts_ns, dts_ns=None if self.dts_ns is None else self.dts_ns + offset_ns)


@dataclass(slots=True)
class _Line:
    """How far one stream has come, in corrected decode times."""

    at_ns: int = 0  # its last packet
    end_ns: int = 0  # where its next packet is expected
    offset_ns: int = 0  # from stated to corrected times
    epoch: int = 0  # which discontinuity the offset is of
    reorder_ns: int = 0  # from decode to presentation time, of the last packet
    step_ns: int = 0
    newest_ns: int = 0  # latest presentation time so far
    started: bool = False
    others_end_ns: int = 0  # how far the other stream had come at the last packet of this one


class MediaTimeline(Generic[T]):
    """Corrects the stamps of one file. Two over the same packets make the same corrections."""

    def __init__(
        self,
        max_gap_ns: int,
        on_correction: Callable[[Correction, StreamName, int], None] = lambda what, stream, t_ns: None,
    ) -> None:
        """Allow gaps of `max_gap_ns` in all streams; `on_correction` gets what was corrected, and where."""
        self._max_gap_ns = max_gap_ns
        self._on_correction = on_correction
        self._ahead: deque[tuple[Stamp, T]] = deque()
        self._source: Iterator[tuple[Stamp, T]] = iter(())
        self._lines: dict[StreamName, _Line] = {"video": _Line(), "audio": _Line()}
        self._epochs = 0

    def newest_ns(self, stream: StreamName) -> int:
        """The latest corrected presentation time of a stream so far."""
        return self._lines[stream].newest_ns

    def correct(self, packets: Iterable[tuple[Stamp, T]]) -> Iterator[tuple[Stamp, T]]:
        """The packets in the same order, each with the stamp that it should have."""
        self._source = iter(packets)
        while self._fill(1):
            stamp, item = self._ahead.popleft()
            yield self._corrected(stamp), item

    def _corrected(self, stamp: Stamp) -> Stamp:
        key_ns = self._key(stamp)
        if key_ns is None:
            return stamp
        line = self._lines[stamp.stream]
        at_ns = key_ns + line.offset_ns
        if stamp.dts_ns is not None and at_ns < line.at_ns and self._joins(line, stamp.stream, key_ns):
            # The step back is too small to be noticed alone, but the other stream made it too.
            at_ns = key_ns + line.offset_ns
        if not self._follows(line, stamp, at_ns, AHEAD_NS):
            if self._returns(stamp, line, at_ns):
                self._on_correction("refused_stamps", stamp.stream, line.end_ns)
                expected = replace(stamp, pts_ns=line.end_ns + line.reorder_ns, dts_ns=line.end_ns)
                return self._advance(line, expected, line.end_ns)
            if not self._follows(line, stamp, at_ns, self._max_gap_ns):
                self._start_again(line, stamp, key_ns)
                at_ns = key_ns + line.offset_ns
        if stamp.pts_ns is not None and not self._can_be_shown(stamp, stamp.pts_ns - key_ns, line):
            self._on_correction("refused_stamps", stamp.stream, line.end_ns)
            stamp = replace(stamp, pts_ns=key_ns + line.reorder_ns)
        return self._advance(line, stamp.moved(line.offset_ns), at_ns)

    def _advance(self, line: _Line, corrected: Stamp, at_ns: int) -> Stamp:
        step_ns = corrected.duration_ns or at_ns - line.at_ns
        if 0 < step_ns <= LONGEST_STEP_NS:
            line.step_ns = step_ns
        line.at_ns, line.end_ns = at_ns, at_ns + line.step_ns
        line.started = True
        line.others_end_ns = self._lines[_other(corrected.stream)].end_ns
        if corrected.pts_ns is not None:
            line.newest_ns = max(line.newest_ns, corrected.pts_ns)
            line.reorder_ns = max(0, corrected.pts_ns - at_ns)
        return corrected

    def _follows(self, line: _Line, stamp: Stamp, at_ns: int, gap_ns: int) -> bool:
        """Whether the media around a stamp account for it, up to a gap of `gap_ns` in all streams."""
        if not line.started and stamp.pts_ns is not None:  # decode times may lie far before the start
            at_ns = stamp.pts_ns
        if at_ns < line.at_ns:
            return at_ns - line.at_ns >= -BACK_NS
        return at_ns - line.end_ns - self._others_advance_ns(line, stamp.stream) <= gap_ns

    def _others_advance_ns(self, line: _Line, own: StreamName) -> int:
        """How far the other stream has come since the last packet of this one."""
        other = _other(own)
        return max(0, self._lines[other].end_ns - line.others_end_ns)

    def _returns(self, stamp: Stamp, line: _Line, at_ns: int) -> bool:
        """Whether a later packet of the stream is back where this one was expected."""
        near_ns = min(RETURN_NS, abs(at_ns - line.end_ns) // 2)
        for number, later in enumerate(islice(self._coming(stamp.stream), WITNESSES), 1):
            key_ns = later.dts_ns if later.dts_ns is not None else later.pts_ns
            expected_ns = line.end_ns + number * line.step_ns
            if key_ns is not None and abs(key_ns + line.offset_ns - expected_ns) < near_ns:
                return True
        return False

    def _start_again(self, line: _Line, stamp: Stamp, key_ns: int) -> None:
        """Go on at the expected time, as the other stream did if it has jumped already."""
        if self._joins(line, stamp.stream, key_ns):
            return
        name = _other(stamp.stream)
        self._on_correction("discontinuities", stamp.stream, line.end_ns)
        self._epochs += 1
        line.epoch = self._epochs
        line.offset_ns = line.end_ns - key_ns
        jump = self._jump_of(name, self._lines[name])
        if jump is not None and abs(jump[1] - key_ns) <= TOGETHER_NS:  # neither may start before its own end
            line.offset_ns = max(line.offset_ns, jump[0] - jump[1])

    def _joins(self, line: _Line, own: StreamName, key_ns: int) -> bool:
        """Move the stream as the other one was moved, if that has jumped alone so far and it fits."""
        other = self._lines[_other(own)]
        fits = -OVERLAP_NS <= key_ns + other.offset_ns - line.end_ns <= self._max_gap_ns
        if other.epoch <= line.epoch or not fits:
            return False
        line.offset_ns, line.epoch = other.offset_ns, other.epoch
        return True

    def _jump_of(self, name: StreamName, line: _Line) -> tuple[int, int] | None:
        """Where a stream ends and what its next stamp says, at the next place where these differ."""
        last_ns, end_ns = line.at_ns, line.end_ns
        for later in self._coming(name):
            key_ns = later.dts_ns if later.dts_ns is not None else later.pts_ns
            if key_ns is None:
                continue
            at_ns = key_ns + line.offset_ns
            back_ns = BACK_NS if later.dts_ns is None else JITTER_NS
            if at_ns < last_ns - back_ns or at_ns > end_ns + TOGETHER_NS:
                return end_ns, key_ns
            last_ns, end_ns = at_ns, at_ns + min(later.duration_ns or line.step_ns, LONGEST_STEP_NS)
        return None

    def _key(self, stamp: Stamp) -> int | None:
        """Decode time, or what comes nearest to it."""
        if stamp.dts_ns is not None or stamp.pts_ns is None:
            return stamp.dts_ns
        later = islice(self._coming(stamp.stream), REORDER)
        known = next((one.dts_ns for one in later if one.dts_ns is not None), None)
        return stamp.pts_ns if known is None else min(stamp.pts_ns, known)

    def _can_be_shown(self, stamp: Stamp, after_ns: int, line: _Line) -> bool:
        """Whether a presentation time goes with its decode time and those that follow."""
        if -AHEAD_NS <= after_ns <= max(REORDER_NS, 4 * line.reorder_ns):
            return True
        later = islice(self._coming(stamp.stream), REORDER)
        reached = max((one.dts_ns for one in later if one.dts_ns is not None), default=None)
        return (
            after_ns > 0
            and reached is not None
            and stamp.pts_ns is not None
            and (reached >= stamp.pts_ns - REORDER_NS)
        )

    def _coming(self, stream: StreamName) -> Iterator[Stamp]:
        """The next stamps of one stream."""
        index = 0
        while index < LOOK_AHEAD and self._fill(index + 1):
            stamp = self._ahead[index][0]
            if stamp.stream == stream:
                yield stamp
            index += 1

    def _fill(self, count: int) -> bool:
        while len(self._ahead) < count:
            found = next(self._source, None)
            if found is None:
                return False
            self._ahead.append(found)
        return True


def _other(stream: StreamName) -> StreamName:
    return "audio" if stream == "video" else "video"
