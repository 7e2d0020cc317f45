"""How far the stepwise audio features of a live run are from one pass over the same sound.

At an interval `DriftWatch` computes the sound of a window in one piece, in the background, and compares the
result with what was published live. `SoundRecord` keeps the last seconds of sound, by capture time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S, seconds_to_ns
from emi_live.health import Health
from emi_live.rings import SAMPLE_RATE_HZ
from emi_models import EMOTIONS
from emi_models.encoders.wav2vec import FRAME_SAMPLES, HOP_SAMPLES, compare_features, frame_cosines
from emi_models.inputs import FrameRun, InputError, StreamWindow
from emi_models.targets import shown_values

if TYPE_CHECKING:
    from emi_engine import FusionEngine
    from emi_live.rings import AudioBlock, AudioReader
    from emi_live.window import Window

__all__ = ["DriftReport", "DriftWatch", "SoundRecord"]


class SoundRecord:
    """The last `seconds` of blocks from one ring; what was before a gap is forgotten."""

    def __init__(self, seconds: float) -> None:
        self._limit = round(seconds * SAMPLE_RATE_HZ)
        self._blocks: deque[AudioBlock] = deque()
        self._size = 0

    def add(self, block: AudioBlock) -> None:
        """Take the next block of the ring."""
        if block.gap_before:
            self._blocks.clear()
            self._size = 0
        self._blocks.append(block)
        self._size += block.samples.size
        while self._size - self._blocks[0].samples.size >= self._limit:
            self._size -= self._blocks.popleft().samples.size

    def since(self, t_ns: int, count: int) -> NDArray[np.float32] | None:
        """`count` samples from the one captured at `t_ns` on; None if some of them are missing."""
        if not self._blocks or count < 1:
            return None
        inside = [block for block in self._blocks if block.t_ns <= t_ns + NS_PER_S // SAMPLE_RATE_HZ // 2]
        if not inside:
            return None
        first = inside[-1]
        offset = first.start - self._blocks[0].start
        offset += round((t_ns - first.t_ns) * SAMPLE_RATE_HZ / NS_PER_S)
        if offset + count > self._size:
            return None
        samples = np.concatenate([block.samples for block in self._blocks])
        return samples[offset : offset + count]


PART: Final = "drift"
LEAST_FRAMES: Final = 50  # of sound, before there is anything to compare: a second
KEPT_REPORTS: Final = 1000
RECORD_S: Final = 45.0  # a window, and how far ahead of it a file may have been read
READ_SAMPLES: Final = SAMPLE_RATE_HZ
WAIT_S: Final = 0.1
FRAME_NS: Final = FRAME_SAMPLES * NS_PER_S // SAMPLE_RATE_HZ
STEP_NS: Final = HOP_SAMPLES * NS_PER_S // SAMPLE_RATE_HZ
JITTER_NS: Final = STEP_NS // 4  # of frames' times, where the sound card's clock was followed

Encode = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class DriftReport:
    """One window as it was answered live, against the same window with its sound encoded all at once."""

    end_ns: int  # capture time of the window's end
    frames: int  # of sound
    cosine: float  # of a frame's features with those of the whole pass, mean over frames, in [-1, 1]
    cosine_low: float  # the 5th percentile of the same
    change: tuple[float, ...]  # of the intensities as shown: live minus whole pass
    names: tuple[str, ...] = EMOTIONS  # of what changed


class DriftWatch:
    """Takes a window every `every_s` of capture time and compares; it needs no labels.

    `offer` is called by the fusion loop with every window, and copies the one that is due. The rest is done
    in its own thread: reading the sound, a whole pass over it, and two answers of its own engine.
    A window that comes during a check is skipped. Reports are counted as `drift.checks`,
    windows without enough unbroken sound as `drift.skipped`.
    """

    name = PART

    def __init__(
        self, reader: AudioReader, encode: Encode, engine: FusionEngine, every_s: float, health: Health
    ) -> None:
        """Compare with its own engine, which it closes.

        Args:
            reader: of the sound that the windows are of.
            encode: samples (n,) to features (frames, dim), in one pass over all sound.
            engine: runs the checkpoint that answers live.
            every_s: capture time between two checks.
            health: gets a report of each check.
        """
        self._reader = reader
        self._encode = encode
        self._engine = engine
        self._every_ns = seconds_to_ns(every_s)
        self._health = health
        self._sound = SoundRecord(RECORD_S)
        self._next_ns: int | None = None
        self._lock = threading.Lock()  # around the two below
        self._window: tuple[int, NDArray[np.int64], StreamWindow] | None = None
        self._successors: list[FusionEngine] = []
        self._running = False
        self._closed = False
        self._reports: deque[DriftReport] = deque(maxlen=KEPT_REPORTS)

    @property
    def reports(self) -> list[DriftReport]:
        """All reports, oldest first; any thread may read them."""
        return list(self._reports)

    def offer(self, window: Window) -> None:
        """Take the window if it is time for one and it holds sound that was used."""
        if not window.stream.audio_present:
            return
        if self._next_ns is not None and window.end_ns < self._next_ns:
            return
        with self._lock:
            if self._window is not None:
                return
            self._next_ns = window.end_ns + self._every_ns
            self._window = (window.end_ns, window.audio_ends_ns.copy(), _owned(window.stream))

    def __call__(self, stop: threading.Event) -> None:
        """Run in the calling thread until the sound is over or `stop` is set."""
        self._running = True
        while not stop.is_set():
            with self._lock:
                window = self._window
            while (block := self._reader.read(READ_SAMPLES)) is not None:  # all sound of the window
                self._sound.add(block)
            if window is not None:
                self.check(*window)
                with self._lock:
                    self._window = None
            elif self._reader.ended:
                break
            else:
                self._reader.wait(WAIT_S)
                stop.wait(WAIT_S)  # sound comes in small blocks, and there is no hurry
        if self._reports:
            self._health.report(PART, "ended", summary(self.reports))

    def swap(self, engine: FusionEngine) -> None:
        """Compare by this engine from the next check on; any thread may call."""
        with self._lock:
            self._successors.append(engine)

    def close(self) -> None:
        """Leave the ring and close the engine; the thread must have ended. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._reader.close()
        self._take_over()
        self._engine.close()

    def close_if_idle(self) -> None:
        """Close, unless the thread runs: then the thread closes it after the current pass."""
        if not self._running:
            self.close()

    def check(self, end_ns: int, audio_ends_ns: NDArray[np.int64], live: StreamWindow) -> DriftReport | None:
        """Compare one window, whose audio frames end at `audio_ends_ns`, (n,); None if it has gaps."""
        whole = self._whole(audio_ends_ns)
        if whole is None:
            self._health.count(f"{PART}.skipped")
            return None
        self._take_over()
        drift = compare_features(frame_cosines(live.audio.values, whole))
        try:
            answers = [self._answer(live, frames) for frames in (live.audio.values, whole)]
        except InputError:  # a window of the checkpoint before
            self._health.count(f"{PART}.skipped")
            return None
        change = tuple((answers[0] - answers[1]).tolist())
        names = tuple(target.name for target in self._engine.header.targets)
        report = DriftReport(end_ns, drift.frames, drift.mean, drift.p5, change, names)
        self._reports.append(report)
        self._health.count(f"{PART}.checks")
        self._health.report(PART, "running", summary(self.reports))
        return report

    def _whole(self, audio_ends_ns: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Features of the frames that end at these times, from all their sound at once."""
        count = len(audio_ends_ns)
        if count < LEAST_FRAMES or np.abs(np.diff(audio_ends_ns) - STEP_NS).max() > JITTER_NS:
            return None
        size = (count - 1) * HOP_SAMPLES + FRAME_SAMPLES
        samples = self._sound.since(int(audio_ends_ns[0]) - FRAME_NS, size)
        return None if samples is None else self._encode(samples)

    def _answer(self, live: StreamWindow, frames: NDArray[np.float32]) -> NDArray[np.float64]:
        """The intensities as shown, (K,), had the window held these frames of sound."""
        window = replace(live, audio=FrameRun(0, frames))
        raw = self._engine.session().infer(window)[0]
        header = self._engine.header
        shown: NDArray[np.float64] = shown_values(raw[None], header.targets, header.task)[0]
        return shown

    def _take_over(self) -> None:
        with self._lock:
            successors, self._successors = self._successors, []
        for engine in successors:
            before, self._engine = self._engine, engine
            before.close()


def summary(reports: list[DriftReport]) -> str:
    """All checks in one line; changes are those of the checkpoint that ran last."""
    names = reports[-1].names
    changes = np.abs(np.array([report.change for report in reports if report.names == names]))
    most = int(changes.max(axis=0).argmax())
    return (
        f"{len(reports)} checks: feature cosine {np.mean([report.cosine for report in reports]):.3f} "
        f"(5 % below {np.mean([report.cosine_low for report in reports]):.3f}), intensities off by "
        f"{changes.mean():.3f}, at most {changes.max():.3f} ({names[most].replace('_', ' ')})"
    )


def _owned(window: StreamWindow) -> StreamWindow:
    return replace(
        window,
        vision=FrameRun(0, window.vision.values.copy()),
        audio=FrameRun(0, window.audio.values.copy()),
        text=window.text.copy(),
    )
