"""The frames that windows are cut from, by capture time; what no window can use any more is dropped.

`FrameTrack` holds the frames of one modality. `SoundTrack` holds those of audio, where voice ended, and how
far the sound has been processed.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emi_live.messages import NOTHING_YET, AudioPacket
from emi_models.inputs import FrameRun, shown_frames

__all__ = ["AUDIO_FRAME_NS", "FrameTrack", "SoundTrack"]


class FrameTrack:
    """Frames of one modality with their capture times, oldest first, numbered from 0 as they came.

    Backed by one array of twice the needed size, so that forgetting costs a copy only now and then.
    """

    def __init__(self, dim: int, frames: int, *, empty: bool = False) -> None:
        """Room for `frames` of the window at first; `empty` counts frames and keeps zeros in their place."""
        self._empty = empty
        self._values = np.zeros((max(2 * frames, 16), dim), np.float32)
        self._times = np.zeros(len(self._values), np.int64)
        self._first = 0
        self._last = 0
        self._number = 0  # of the frame at `_first`

    @property
    def newest_ns(self) -> int | None:
        """Capture time of the newest frame; None when empty."""
        return int(self._times[self._last - 1]) if self._last > self._first else None

    def append(self, times_ns: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Add frames, times (n,) increasing and newer than all before, values (n, dim)."""
        count = len(times_ns)
        if self._last + count > len(self._times):
            self._make_room(count)
        self._times[self._last : self._last + count] = times_ns
        if not self._empty:
            self._values[self._last : self._last + count] = values
        self._last += count

    def replace_from(self, t_ns: int, times_ns: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Add frames as `append` does, in place of all that were captured after `t_ns`.

        If there are any, all frames get fresh numbers, and one is left out: a run of consecutive numbers
        shares none with the runs before.
        """
        count = self._last - self._first
        kept = int(np.searchsorted(self._times[self._first : self._last], t_ns, side="right"))
        if kept < count:
            self._number += count + 1
            self._last = self._first + kept
        self.append(times_ns, values)

    def forget_until(self, t_ns: int) -> None:
        """Drop frames captured at or before `t_ns`."""
        forgotten = int(np.searchsorted(self._times[self._first : self._last], t_ns, side="right"))
        self._first += forgotten
        self._number += forgotten

    def shown(self, start_ns: int, end_ns: int, span_ns: int | None) -> tuple[NDArray[np.int64], FrameRun]:
        """Times (n,) and values (n, dim) of the frames of a window, as `shown_frames` chooses them.

        Both are views, valid until `append`.
        """
        times = self._times[self._first : self._last]
        rows = shown_frames(times, start_ns, end_ns, span_ns)
        values = self._values[self._first : self._last]
        return times[rows], FrameRun(self._number + rows.start, values[rows])

    def _make_room(self, count: int) -> None:
        kept = self._last - self._first
        size = len(self._times)
        while size < 2 * (kept + count):
            size *= 2
        times, values = self._times[self._first : self._last], self._values[self._first : self._last]
        self._times = np.concatenate((times, np.zeros(size - kept, np.int64)))
        self._values = np.concatenate((values, np.zeros((size - kept, values.shape[1]), np.float32)))
        self._first, self._last = 0, kept


AUDIO_FRAME_NS: Final = 20_000_000  # from one frame to the next, of prosody and of wav2vec 2.0 alike


class SoundTrack:
    """The frames of sound, each said once, or said again by packets that replace what was said before.

    Of packets that replace, only those take effect that the instant asked for needs: all up to the first
    that reaches it. So what a window holds does not depend on how many more had arrived.
    """

    def __init__(self, frames: FrameTrack) -> None:
        self._frames = frames
        self._waiting: deque[AudioPacket] = deque()  # that replace
        self._heard: deque[int] = deque()  # capture times up to which sound was heard
        self._voices: deque[int] = deque()  # ends of voice
        self.behind = False  # the newest packet said so
        self.discarded = 0  # packets that came too late, or out of order

    @property
    def frames(self) -> FrameTrack:
        """Those that are in effect."""
        return self._frames

    def start_anew(self, frames: FrameTrack) -> None:
        """Keep frames there from now on; what is known of voice and of what was heard stays."""
        self._frames = frames

    def add(self, packet: AudioPacket, horizon_ns: int) -> None:
        """Take in one packet; frames at or before `horizon_ns` are left out, unless they replace others."""
        self.behind = packet.behind
        if packet.t_ns > (self._heard[-1] if self._heard else NOTHING_YET):
            self._heard.append(packet.t_ns)
        voice_ns = packet.last_voice_ns
        if voice_ns is not None and (not self._voices or voice_ns > self._voices[-1]):
            self._voices.append(voice_ns)
        if not packet.replaces:
            self._append(packet, horizon_ns)
        elif packet.t_ns > max(self._newest_ns(horizon_ns), horizon_ns):
            self._waiting.append(packet)
        else:
            self.discarded += 1

    def settle(self, end_ns: int) -> None:
        """Let those packets take effect that are needed up to `end_ns`."""
        while self._waiting and (self._frames.newest_ns is None or self._frames.newest_ns < end_ns):
            packet = self._waiting.popleft()
            times = _times(packet)
            self._frames.replace_from(int(times[0]) - AUDIO_FRAME_NS // 2, times, packet.frames)

    def heard_ns(self, end_ns: int) -> int | None:
        """The newest moment up to `end_ns` that was heard; None if there is none."""
        return next((t for t in reversed(self._heard) if t <= end_ns), None)

    def voice_ns(self, end_ns: int) -> int | None:
        """Likewise, the end of the newest voice."""
        return next((t for t in reversed(self._voices) if t <= end_ns), None)

    def voice_after(self, t_ns: int | None, end_ns: int) -> int | None:
        """The first end of voice after `t_ns`, up to `end_ns`; None if there is none."""
        return next((t for t in self._voices if (t_ns is None or t > t_ns) and t <= end_ns), None)

    def forget(self, start_ns: int) -> None:
        """Drop what lies before a window that starts there, but keep the newest of each kind."""
        self._frames.forget_until(start_ns)
        for stamps in (self._heard, self._voices):
            while len(stamps) > 1 and stamps[1] <= start_ns:
                stamps.popleft()

    def _append(self, packet: AudioPacket, horizon_ns: int) -> None:
        newest_ns = self._frames.newest_ns
        times = _times(packet)
        fresh = times > (horizon_ns if newest_ns is None else max(newest_ns, horizon_ns))
        if not fresh.all():
            self.discarded += 1
        if fresh.any():
            self._frames.append(times[fresh], packet.frames[fresh])

    def _newest_ns(self, horizon_ns: int) -> int:
        """Of what has been said, in effect or not."""
        if self._waiting:
            return self._waiting[-1].t_ns
        return horizon_ns if self._frames.newest_ns is None else self._frames.newest_ns


def _times(packet: AudioPacket) -> NDArray[np.int64]:
    return packet.t_ns - AUDIO_FRAME_NS * np.arange(len(packet.frames) - 1, -1, -1, dtype=np.int64)
