"""The one entrance for media: all sources push frames and sound of any size, type or rate here.

`Intake` checks media, resamples sound and writes the rings. `Pauses` keeps what the program muted or paused.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S, Clock, MonotonicClock
from emi_live.errors import ConfigurationError, StalledError
from emi_live.health import Health
from emi_live.resample import StreamingResampler
from emi_live.rings import GAP_NS, MAX_SIDE_PX, SAMPLE_RATE_HZ, AudioBlock, AudioRing, VideoRing
from emi_live.window import Condition
from emi_models import MODALITIES, Modality

__all__ = ["Intake", "Pauses"]

PCM_SCALE = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}
NOT_SOUND: Final = np.float32(2.0**31)  # beyond every sample format: no sound
BRIDGE_NS: Final = NS_PER_S  # of silence in place of muted sound that was not pushed: ends an utterance

logger = logging.getLogger(__name__)


Kind: TypeAlias = Literal["muted", "paused"]

MAX_SPANS: Final = 64  # kept; in live use nothing asks for one that is a minute old
OPEN_NS: Final = 2**62
NEAR_NS: Final = NS_PER_S // 2  # sound that stops this shortly before a pause stopped because of it


@dataclass(slots=True)
class _Span:
    kind: Kind
    from_ns: int
    until_ns: int = OPEN_NS

    def holds(self, t_ns: int) -> bool:
        return self.from_ns <= t_ns < self.until_ns


class Pauses:
    """Spans that the program muted (sound only) or paused (everything), by capture time. Any thread.

    What was captured in such a span is not used, however late it arrives. Live, a span begins and ends now;
    in exact mode, at the end of the media pushed so far. Muted sound becomes silence, not a gap.
    """

    def __init__(self, clock: Clock, *, exact: bool) -> None:
        self._clock = clock
        self._exact = exact
        self._lock = threading.Lock()
        self._spans: deque[_Span] = deque(maxlen=MAX_SPANS)
        self._open: dict[Kind, _Span] = {}
        self._newest_ns = 0  # in exact mode: where the media end that came so far

    def is_on(self, kind: Kind) -> bool:
        """Whether such a span has begun and not ended."""
        return kind in self._open

    def set(self, kind: Kind, on: bool) -> None:
        """Begin or end a span; a second time does nothing."""
        with self._lock:
            now_ns = self._newest_ns if self._exact else self._clock.now_ns()
            if on and kind not in self._open:
                self._open[kind] = span = _Span(kind, now_ns)
                self._spans.append(span)
            elif not on and kind in self._open:
                self._open.pop(kind).until_ns = now_ns

    def takes_frame(self, t_ns: int) -> bool:
        """Whether a frame captured at that time is used."""
        with self._lock:
            self._newest_ns = max(self._newest_ns, t_ns)
            return not any(span.kind == "paused" and span.holds(t_ns) for span in self._spans)

    def silence(self, samples: NDArray[np.float32], t_ns: int, rate_hz: int) -> None:
        """Set those of the samples, shape (n,), that lie in a span to 0, in place; the first is at `t_ns`."""
        end_ns = t_ns + samples.size * NS_PER_S // rate_hz
        with self._lock:
            self._newest_ns = max(self._newest_ns, end_ns)
            for span in self._spans:
                if span.from_ns < end_ns and t_ns < span.until_ns:
                    first = max(0, -(-(span.from_ns - t_ns) * rate_hz // NS_PER_S))
                    last = min(samples.size, -(-(span.until_ns - t_ns) * rate_hz // NS_PER_S))
                    samples[first:last] = 0.0

    def explain(self, from_ns: int, until_ns: int) -> bool:
        """Whether sound is missing between two times because of a span."""
        with self._lock:
            return any(
                span.from_ns < until_ns and from_ns >= span.from_ns - NEAR_NS and from_ns < span.until_ns
                for span in self._spans
            )

    def at(self, end_ns: int) -> Mapping[Modality, Condition]:
        """What the spans do to the window that ends then. Words said before sound was muted stay."""
        with self._lock:
            kinds = {span.kind for span in self._spans if span.holds(end_ns)}
        if "paused" in kinds:
            return dict.fromkeys(MODALITIES, Condition("paused", "paused"))
        if "muted" in kinds:
            return {"audio": Condition("paused", "muted"), "text": Condition("ok", "muted")}
        return {}


class Intake:
    """Checks media, brings sound to 16 kHz mono, and writes the rings.

    One thread pushes frames and one thread pushes sound; they may be the same. A source also reports how far
    it has read each stream (`advance_video`, `advance_audio`), so that in exact mode nothing waits in a gap.
    """

    def __init__(
        self,
        video: VideoRing,
        audio: AudioRing,
        health: Health,
        *,
        push_timeout_s: float | None = None,
        clock: Clock | None = None,
        pauses: Pauses | None = None,
    ) -> None:
        """Write these rings; `clock` gives the time of arrival, in addition to the capture time.

        What was captured in one of `pauses` is not used.
        """
        self._video = video
        self._audio = audio
        self._health = health
        self._timeout_s = push_timeout_s
        self._clock = clock or MonotonicClock()
        self.pauses = pauses or Pauses(self._clock, exact=False)
        self._sound_end_ns: int | None = None  # capture time at which the sound pushed so far ends
        self._told_of_range = False
        self._resampler: StreamingResampler | None = None
        self._last_frame_ns: int | None = None
        self.first_ns: int | None = None  # capture time of the first media pushed
        # In exact mode: the modality that the window waits for, and up to when; None: it does not wait.
        self.waits_for: Callable[[], tuple[str, int] | None] = lambda: None
        self._newest_ns: dict[str, int] = {}  # capture time of the newest media pushed, by stream

    def push_frame(self, rgb: NDArray[np.uint8], t_ns: int, *, given_up: bool = False) -> None:
        """Add one frame, shape (height, width, 3), RGB, captured at `t_ns`.

        It is copied, unless it is `given_up`: then nobody may change it any more.

        A frame that is not newer than the one before is counted as `video.out_of_order` and left out.

        Raises:
            ConfigurationError: not an RGB frame of bytes.
            StalledError: exact mode, and nothing downstream made room in time.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or 0 in rgb.shape:
            raise ConfigurationError(
                f"a frame must be uint8 of shape (height, width, 3), RGB; got {rgb.dtype} {rgb.shape}"
            )
        if max(rgb.shape) > MAX_SIDE_PX:
            raise ConfigurationError(
                f"a frame of {rgb.shape[1]} x {rgb.shape[0]} pixels is too large; "
                f"give at most {MAX_SIDE_PX} in either direction"
            )
        if self._last_frame_ns is not None and t_ns <= self._last_frame_ns:
            self._health.count("video.out_of_order")
            return
        self._last_frame_ns = t_ns
        self.first_ns = t_ns if self.first_ns is None else self.first_ns
        self._newest_ns["video"] = t_ns
        if not self.pauses.takes_frame(t_ns):
            self.advance_video(t_ns + 1)
            return
        self._health.count("video.frames")
        try:
            self._video.write(
                rgb, t_ns, arrived_ns=self._clock.now_ns(), timeout_s=self._timeout_s, given_up=given_up
            )
        except StalledError as error:
            raise self._explained(error) from None

    def push_audio(
        self,
        pcm: NDArray[np.float32] | NDArray[np.int16] | NDArray[np.int32],
        t_ns: int,
        rate_hz: int = SAMPLE_RATE_HZ,
    ) -> None:
        """Add a block of sound, shape (n,) or (n, channels), whose first sample was captured at `t_ns`.

        Integers are read at full scale, channels are averaged, and any rate becomes 16 kHz without clicks at
        block edges. Samples that are not finite become silence, counted as `audio.not_finite`. Samples
        outside [-1, 1] are clipped, counted as `audio.clipped`; beyond any sample format they become silence.

        Raises:
            ConfigurationError: not a block of samples.
            StalledError: exact mode, and nothing downstream made room in time.
        """
        if pcm.ndim not in (1, 2) or (pcm.dtype.kind != "f" and pcm.dtype not in PCM_SCALE) or rate_hz <= 0:
            raise ConfigurationError(
                "a block of sound must be float, int16 or int32 of shape (n,) or (n, channels) at a "
                f"positive rate; got {pcm.dtype} {pcm.shape} at {rate_hz} Hz"
            )
        if pcm.size == 0:
            return
        arrived_ns = self._clock.now_ns()
        self.first_ns = t_ns if self.first_ns is None else self.first_ns
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is dealt with below
            mono = pcm if pcm.ndim == 1 else pcm.mean(axis=1, dtype=np.float32)
            samples = mono.astype(np.float32)
        if pcm.dtype in PCM_SCALE:
            samples /= np.float32(PCM_SCALE[pcm.dtype])
        broken = ~np.isfinite(samples)
        if broken.any():
            self._health.count("audio.not_finite", int(broken.sum()))
            samples[broken] = 0.0
        self._clip(samples)
        self.pauses.silence(samples, t_ns, rate_hz)
        self._bridge(t_ns, arrived_ns)
        self._sound_end_ns = t_ns + samples.size * NS_PER_S // rate_hz
        if self._resampler is None or self._resampler.rate_hz != rate_hz:
            self._flush_audio()
            self._resampler = StreamingResampler(rate_hz)
        self._newest_ns["audio"] = t_ns
        self._write_audio(self._resampler.push(samples, t_ns), arrived_ns)

    def advance_video(self, t_ns: int) -> None:
        """No frame captured before `t_ns` will be pushed any more; any thread may call."""
        self._video.advance(t_ns)

    def advance_audio(self, t_ns: int) -> None:
        """No sound captured before `t_ns` will be pushed any more; not while sound is being pushed.

        If that leaves a gap, the samples that the resampler still holds are written at once.
        """
        end_ns = None if self._resampler is None else self._resampler.end_ns
        if end_ns is not None and t_ns - end_ns >= GAP_NS:
            self._flush_audio()
        self._audio.advance(t_ns)

    def end_video(self) -> None:
        """No more frames will come."""
        self._video.close()

    def end_audio(self) -> None:
        """No more sound will come; what the resampler still holds is written."""
        try:
            self._flush_audio()
        finally:
            self._audio.close()

    def abort(self) -> None:
        """No more media of either kind, at once and from any thread; waiting threads are released."""
        self._video.close()
        self._audio.close()

    def _clip(self, samples: NDArray[np.float32]) -> None:
        """Bring samples into [-1, 1], in place."""
        size = np.abs(samples)
        outside = size > 1.0
        if not outside.any():
            return
        peak = float(size.max())
        self._health.count("audio.clipped", int(outside.sum()))
        samples[size > NOT_SOUND] = 0.0
        np.clip(samples, -1.0, 1.0, out=samples)
        if not self._told_of_range:
            self._told_of_range = True
            logger.warning(
                "sound goes up to %g, and is clipped to [-1, 1]; if int16 became float, divide it by 32768",
                peak,
            )

    def _bridge(self, t_ns: int, arrived_ns: int) -> None:
        """If no sound was pushed while it was muted, write silence, so that there is no gap."""
        end_ns = self._sound_end_ns
        if end_ns is None or t_ns - end_ns < GAP_NS or not self.pauses.explain(end_ns, t_ns):
            return
        self._flush_audio()
        bridge_ns = min(t_ns - end_ns, BRIDGE_NS)
        silence = np.zeros(bridge_ns * SAMPLE_RATE_HZ // NS_PER_S, np.float32)
        self._audio.write(
            silence, t_ns - bridge_ns, arrived_ns=arrived_ns, timeout_s=self._timeout_s, seamless=True
        )

    def _flush_audio(self) -> None:
        if self._resampler is not None:
            self._write_audio(self._resampler.flush(), self._clock.now_ns())

    def _write_audio(self, blocks: Iterable[AudioBlock], arrived_ns: int) -> None:
        try:
            for block in blocks:
                self._audio.write(block.samples, block.t_ns, arrived_ns=arrived_ns, timeout_s=self._timeout_s)
        except StalledError as error:
            raise self._explained(error) from None

    def _explained(self, error: StalledError) -> StalledError:
        """The error with what is waited for and what helps."""
        waited = self.waits_for()
        if waited is None:
            return StalledError(
                f"{error}: nobody takes the estimates; consume estimates() while pushing, or use mode='live'"
            )
        modality, until_ns = waited
        stream = "video" if modality == "vision" else "audio"
        media = {"vision": "frames", "audio": "sound", "text": "the words in the sound"}[modality]
        at_s = (until_ns - (self.first_ns or 0)) / NS_PER_S
        pushed_ns = self._newest_ns.get(stream)
        if pushed_ns is None or pushed_ns < until_ns:
            why = (
                "of which nothing so late was pushed; push both streams in order of time, or say "
                f"advance(t_ns) or end_{stream}()"
            )
        else:
            why = "whose stage is slower than what is pushed; choose a smaller model, or push again later"
        return StalledError(f"{error}: the window that ends at {at_s:.1f} s waits for {media}, {why}")
