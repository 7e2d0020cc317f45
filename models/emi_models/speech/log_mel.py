"""Whisper's input: log-mel bands, 100 frames a second, computed while the audio arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FRAMES_PER_S", "MAX_FRAMES", "LogMel"]

RATE_HZ: Final = 16_000
FFT_SIZE: Final = 400
HOP: Final = 160
FRAMES_PER_S: Final = RATE_HZ // HOP
MAX_FRAMES: Final = 30 * FRAMES_PER_S  # Whisper's encoder has no more positions
FLOOR: Final = 1e-10  # of the mel power
RANGE: Final = 8.0  # of the log10 power below the loudest band of the window

# Slaney's scale: linear below 1 kHz, logarithmic above it.
LINEAR_HZ: Final = 200.0 / 3.0
BREAK_HZ: Final = 1_000.0
LOG_STEP: Final = np.log(6.4) / 27.0


class LogMel:
    """Log10 mel power of up to 30 s of audio, and windows of it in the form that Whisper was trained on.

    A frame is computed when all 400 samples around its centre have arrived. The last two frames of a window
    are completed with silence and not kept. One thread at a time.

    Source: Radford et al. 2022 (arXiv:2212.04356, §2.2); bands as in librosa (Slaney's scale and norm).
    """

    def __init__(self, bands: int = 80) -> None:
        """`bands`: 80, or 128 for the large-v3 models."""
        self.bands = bands
        self._filters = mel_filters(bands)
        self._hann = np.hanning(FFT_SIZE + 1)[:-1].astype(np.float32)
        self._log = np.empty((MAX_FRAMES, bands), np.float32)
        self.clear()

    def clear(self) -> None:
        """Start again without audio."""
        self._frames = 0  # computed and kept
        self._size = 0  # samples so far
        self._rest = np.empty(0, np.float32)  # samples from the start of the next frame on

    @property
    def duration_s(self) -> float:
        """Seconds of audio so far."""
        return self._size / RATE_HZ

    @property
    def frames(self) -> int:
        """Frames that begin within the audio so far."""
        return self._size // HOP

    def push(self, samples: NDArray[np.float32]) -> None:
        """Take the next samples, shape (n,), 16 kHz mono, in [-1, 1].

        Raises:
            ValueError: this makes more than 30 s in total.
        """
        if self._size + samples.size > MAX_FRAMES * HOP:
            raise ValueError("Whisper takes 30 s at most")
        if not self._frames and self._size <= FFT_SIZE // 2 < self._size + samples.size:
            # The first frame is centred on the first sample: before it, the audio is mirrored.
            start = np.concatenate((self._rest, samples))
            self._rest = np.concatenate((start[FFT_SIZE // 2 : 0 : -1], start))
        else:
            self._rest = np.concatenate((self._rest, samples))
        self._size += samples.size
        if self._size <= FFT_SIZE // 2 or self._rest.size < FFT_SIZE:
            return
        new = self._log_power(self._rest)
        new = new[: MAX_FRAMES - self._frames]
        self._log[self._frames : self._frames + len(new)] = new
        self._frames += len(new)
        self._rest = self._rest[len(new) * HOP :]

    def window(self, frames: int) -> NDArray[np.float32]:
        """All audio so far, then silence, shape (bands, frames).

        Args:
            frames: the length, at least `self.frames`.
        """
        have = self.frames
        if not have:
            return np.full((self.bands, frames), (np.log10(FLOOR) + 4.0) / 4.0, np.float32)
        log = self._log[: self._frames]
        if have > self._frames:
            rest = self._rest
            if self._size <= FFT_SIZE // 2:  # too short for the mirror image
                rest = np.pad(rest, (FFT_SIZE // 2, 0))
            missing = have - self._frames
            tail = np.pad(rest, (0, max(0, FFT_SIZE + (missing - 1) * HOP - rest.size)))
            log = np.concatenate((log, self._log_power(tail)[:missing]))
        quietest = log[:have].max() - RANGE
        found = np.full((self.bands, frames), (quietest + 4.0) / 4.0, np.float32)
        found[:, :have] = ((np.maximum(log[:have], quietest) + 4.0) / 4.0).T
        return found

    def _log_power(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log10 mel power of all whole frames in the samples, shape (frames, bands)."""
        frames = np.lib.stride_tricks.sliding_window_view(samples, FFT_SIZE)[::HOP]
        spectrum = np.fft.rfft(frames * self._hann)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        log: NDArray[np.float32] = np.log10(np.maximum(power.astype(np.float32) @ self._filters, FLOOR))
        return log


def mel_filters(bands: int) -> NDArray[np.float32]:
    """Triangular filters over the bins of the spectrum, shape (201, bands), each of unit area per Hz."""
    bins_hz = np.fft.rfftfreq(FFT_SIZE, 1.0 / RATE_HZ)
    break_mel = BREAK_HZ / LINEAR_HZ
    top_mel = break_mel + np.log(RATE_HZ / 2 / BREAK_HZ) / LOG_STEP
    mels = np.linspace(0.0, top_mel, bands + 2)
    edges_hz = np.where(mels < break_mel, mels * LINEAR_HZ, BREAK_HZ * np.exp(LOG_STEP * (mels - break_mel)))
    rising = (bins_hz[:, None] - edges_hz[:-2]) / (edges_hz[1:-1] - edges_hz[:-2])
    falling = (edges_hz[2:] - bins_hz[:, None]) / (edges_hz[2:] - edges_hz[1:-1])
    area = 2.0 / (edges_hz[2:] - edges_hz[:-2])
    filters: NDArray[np.float32] = (np.maximum(0.0, np.minimum(rising, falling)) * area).astype(np.float32)
    return filters
