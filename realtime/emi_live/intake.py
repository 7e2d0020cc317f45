"""The one door for media: any source pushes frames and sound here, whatever their size, type or rate."""

from __future__ import annotations

import logging
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emi_live.breaks import Breaks
from emi_live.clock import NS_PER_S, Clock, MonotonicClock
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.resample import StreamingResampler
from emi_live.rings import AudioRing, VideoRing
from emi_live.rings.audio import GAP_NS, SAMPLE_RATE_HZ

__all__ = ["Intake"]

PCM_SCALE = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}
NOT_SOUND: Final = np.float32(2.0**31)  # beyond every sample format: nothing that a microphone gave
BRIDGE_NS: Final = NS_PER_S  # of silence, where muted sound did not come: enough to end an utterance

logger = logging.getLogger(__name__)


class Intake:
    """Checks media, brings sound to 16 kHz mono, and writes the rings.

    Frames come from one thread and sound from one thread; they may be the same.
    """

    def __init__(
        self,
        video: VideoRing,
        audio: AudioRing,
        health: Health,
        *,
        push_timeout_s: float | None = None,
        clock: Clock | None = None,
        breaks: Breaks | None = None,
    ) -> None:
        """Write these rings; media are stamped by `clock` as they come in, beside their capture time.

        What was captured in one of `breaks` is not used.
        """
        self._video = video
        self._audio = audio
        self._health = health
        self._timeout_s = push_timeout_s
        self._clock = clock or MonotonicClock()
        self.breaks = breaks or Breaks(self._clock, exact=False)
        self._sound_end_ns: int | None = None  # capture time at which the sound ends that came so far
        self._told_of_range = False
        self._resampler: StreamingResampler | None = None
        self._last_frame_ns: int | None = None
        self.first_ns: int | None = None  # capture time of the first media pushed

    def push_frame(self, rgb: NDArray[np.uint8], t_ns: int) -> None:
        """Add one picture, shape (height, width, 3), RGB, captured at `t_ns`.

        A frame that is not newer than the one before is counted as `video.out_of_order` and left out.

        Raises:
            ConfigurationError: not an RGB picture of bytes.
            StalledError: exact mode, and nothing downstream made room in time.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or 0 in rgb.shape:
            raise ConfigurationError(
                f"a frame must be uint8 of shape (height, width, 3), RGB; got {rgb.dtype} {rgb.shape}"
            )
        if self._last_frame_ns is not None and t_ns <= self._last_frame_ns:
            self._health.count("video.out_of_order")
            return
        self._last_frame_ns = t_ns
        self.first_ns = t_ns if self.first_ns is None else self.first_ns
        if not self.breaks.takes_picture(t_ns):
            return
        self._health.count("video.frames")
        self._video.write(rgb, t_ns, arrived_ns=self._clock.now_ns(), timeout_s=self._timeout_s)

    def push_audio(
        self,
        pcm: NDArray[np.float32] | NDArray[np.int16] | NDArray[np.int32],
        t_ns: int,
        rate_hz: int = SAMPLE_RATE_HZ,
    ) -> None:
        """Add a block of sound, shape (n,) or (n, channels), whose first sample was captured at `t_ns`.

        Integers are taken at full scale; channels are averaged; any rate becomes 16 kHz without clicks at
        block edges. Samples that are not finite become silence and are counted as `audio.not_finite`; those
        outside [-1, 1] are clipped and counted as `audio.clipped`, and what no sample format can hold is
        silence.

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
        self.breaks.silence(samples, t_ns, rate_hz)
        self._bridge(t_ns, arrived_ns)
        self._sound_end_ns = t_ns + samples.size * NS_PER_S // rate_hz
        if self._resampler is None or self._resampler.rate_hz != rate_hz:
            self._flush_audio()
            self._resampler = StreamingResampler(rate_hz)
        for block, start_ns in self._resampler.push(samples, t_ns):
            self._audio.write(block, start_ns, arrived_ns=arrived_ns, timeout_s=self._timeout_s)

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
        """No more media of either kind, at once and from any thread; whoever waits for them is released."""
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
        """Where sound was not even pushed while it was muted, silence stands for it, and no gap."""
        end_ns = self._sound_end_ns
        if end_ns is None or t_ns - end_ns < GAP_NS or not self.breaks.explain(end_ns, t_ns):
            return
        self._flush_audio()
        bridge_ns = min(t_ns - end_ns, BRIDGE_NS)
        silence = np.zeros(bridge_ns * SAMPLE_RATE_HZ // NS_PER_S, np.float32)
        self._audio.write(
            silence, t_ns - bridge_ns, arrived_ns=arrived_ns, timeout_s=self._timeout_s, seamless=True
        )

    def _flush_audio(self) -> None:
        if self._resampler is not None:
            arrived_ns = self._clock.now_ns()
            for block, start_ns in self._resampler.flush():
                self._audio.write(block, start_ns, arrived_ns=arrived_ns, timeout_s=self._timeout_s)
