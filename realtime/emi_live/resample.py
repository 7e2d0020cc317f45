"""Streaming resampling to 16 kHz: the same samples as one pass over all sound, with exact capture times.

The kernel is torchaudio's. docs/decisions/0022 says why it is not soxr's.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.rings import GAP_NS, SAMPLE_RATE_HZ, AudioBlock

__all__ = ["MAX_RATE_HZ", "MIN_RATE_HZ", "StreamingResampler"]

MIN_RATE_HZ: Final = 1_000
MAX_RATE_HZ: Final = 768_000
ZERO_CROSSINGS: Final = 6  # of the kernel on either side; this and ROLLOFF are torchaudio's defaults
ROLLOFF: Final = 0.99
# Entries of the kernel with its zeros, as torchaudio has it; 44 056 Hz needs 11 M. Larger ones are of ratios
# for which single precision is too coarse.
MAX_KERNEL: Final = 12_000_000
# Samples made at once, so that a long block needs no more memory than a short one.
SLICE: Final = SAMPLE_RATE_HZ


class StreamingResampler:
    """Resamples one stream to 16 kHz. Used by one thread.

    The joined blocks equal `torchaudio.functional.resample` of the whole run, however the run is split. If a
    stamp is 60 ms or more from the end of the block before, a new run starts, so that a gap stays a gap. A
    sample is held back for the filter's half width (0.4 ms at 44.1 kHz).

    If the ratio of a rate to 16 kHz needs too large a kernel (a prime such as 44 101 Hz), the nearest ratio
    with a smaller kernel is used; the stamps carry the difference.
    """

    def __init__(self, rate_hz: int) -> None:
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise ConfigurationError(
                f"sound at {rate_hz} Hz cannot be used; give {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz"
            )
        self._rate_hz = rate_hz
        # A rate as near as 16 001 Hz is taken as 16 kHz.
        self._filter = None if _affordable_ratio(rate_hz) == 1 else _filter(rate_hz)
        self._stamps: deque[tuple[int, int]] = deque()  # (input index, capture time) of recent blocks
        self._end_ns: int | None = None  # capture time at which the input of the run ends so far
        self._received = 0
        self._made = 0
        self._held_from = 0  # input index of the first sample held
        self._held = np.zeros(0, np.float32)  # the input still needed
        self._start_run()

    @property
    def end_ns(self) -> int | None:
        """Capture time at which the sound held ends; None if none is."""
        return self._end_ns

    @property
    def rate_hz(self) -> int:
        """The rate of the sound pushed."""
        return self._rate_hz

    def push(self, samples: NDArray[np.float32], t_ns: int) -> list[AudioBlock]:
        """Blocks of 16 kHz samples, shape (n,), as far as they are known.

        Args:
            samples: shape (n,); at 16 kHz already, the block holds this array, not a copy.
            t_ns: capture time of the first sample.
        """
        if samples.size == 0:
            return []
        if self._filter is None:
            return [AudioBlock(samples, t_ns)]
        blocks: list[AudioBlock] = []
        if self._end_ns is not None and abs(t_ns - self._end_ns) >= GAP_NS:
            blocks = self.flush()
        self._stamps.append((self._received, t_ns))
        self._held = np.concatenate((self._held, samples))
        self._received += samples.size
        self._end_ns = t_ns + samples.size * NS_PER_S // self._rate_hz
        whole = self._received - self._filter.half_width - 1  # inputs whose surroundings are complete
        return blocks + self._make(max(self._made, self._filter.outputs_before(whole)))

    def flush(self) -> list[AudioBlock]:
        """The last samples of the run, with silence after them; the next push starts a new run."""
        if self._filter is None or self._received == 0:
            return []
        self._held = np.concatenate((self._held, np.zeros(self._filter.half_width + 1, np.float32)))
        blocks = self._make(self._filter.outputs_before(self._received))
        self._start_run()
        return blocks

    def _start_run(self) -> None:
        half_width = 0 if self._filter is None else self._filter.half_width
        self._held = np.zeros(half_width, np.float32)  # before the run there is silence
        self._held_from = -half_width
        self._received = 0
        self._made = 0
        self._stamps.clear()
        self._end_ns = None

    def _make(self, stop: int) -> list[AudioBlock]:
        """Outputs from the last one made up to `stop`."""
        assert self._filter is not None  # noqa: S101  # callers have returned by now
        blocks: list[AudioBlock] = []
        while self._made < stop:
            until = min(stop, self._made + SLICE)
            samples = self._filter.apply(self._held, self._held_from, self._made, until)
            blocks.append(AudioBlock(samples, self._time_of_next()))
            self._made = until
        needed_from = self._filter.position(self._made) - self._filter.half_width
        if needed_from > self._held_from:
            self._held = self._held[needed_from - self._held_from :].copy()
            self._held_from = needed_from
        return blocks

    def _time_of_next(self) -> int:
        """Capture time of the next output, from the stamp of the block that its position lies in."""
        assert self._filter is not None  # noqa: S101  # as above
        down, up = self._filter.down, self._filter.up
        while len(self._stamps) > 1 and self._stamps[1][0] * up <= self._made * down:
            self._stamps.popleft()
        index, t_ns = self._stamps[0]
        return t_ns + round(Fraction((self._made * down - index * up) * NS_PER_S, up * self._rate_hz))


@dataclass(frozen=True, slots=True)
class _Filter:
    """torchaudio's windowed-sinc kernel from `down` inputs to `up` outputs, without the zeros around it."""

    down: int
    up: int
    half_width: int  # inputs on either side that an output depends on
    taps: NDArray[np.float32]  # (up, 2 * half_width + 2)

    def position(self, output: int) -> int:
        """Index of the input sample at or just before an output."""
        return output * self.down // self.up

    def outputs_before(self, position: int) -> int:
        """How many outputs lie before an input index."""
        return max(0, -(-position * self.up // self.down))

    def apply(self, held: NDArray[np.float32], held_from: int, start: int, stop: int) -> NDArray[np.float32]:
        """Outputs [start, stop) from the inputs `held`, the first of which has index `held_from`."""
        outputs = np.arange(start, stop, dtype=np.int64)
        first = outputs * self.down // self.up - self.half_width - held_from
        around = np.lib.stride_tricks.sliding_window_view(held, self.taps.shape[1])[first]
        made: NDArray[np.float32] = np.einsum("ij,ij->i", around, self.taps[outputs % self.up])
        return made


@lru_cache(maxsize=4)
def _filter(rate_hz: int) -> _Filter:
    """The kernel of a rate: sinc up to 0.99 of the lower rate's half, six zero crossings, Hann window."""
    ratio = _affordable_ratio(rate_hz)
    down, up = ratio.numerator, ratio.denominator
    band = ROLLOFF * min(down, up)
    half_width = math.ceil(ZERO_CROSSINGS * down / band)
    first = np.arange(up) * down // up
    inputs = first[:, None] + np.arange(-half_width, half_width + 2)
    # Single precision, step by step as torchaudio: rounded otherwise, taps at 11 025 Hz move by 3e-5.
    distance = inputs.astype(np.float32) / np.float32(down) - np.arange(up, dtype=np.float32)[:, None] / up
    crossings = np.clip(distance * np.float32(band), -ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = np.square(np.cos(crossings * np.float32(math.pi / ZERO_CROSSINGS / 2)))
    taps = np.sinc(crossings) * window * np.float32(band / down)
    return _Filter(down, up, half_width, taps.astype(np.float32, copy=False))


def _affordable_ratio(rate_hz: int) -> Fraction:
    """Input rate over 16 kHz, or the ratio nearest to it whose dense kernel is not too large to be built."""
    exact = Fraction(rate_hz, SAMPLE_RATE_HZ)
    ratio, limit = exact, exact.denominator
    while _kernel_size(ratio) > MAX_KERNEL:
        limit //= 2
        ratio = exact.limit_denominator(limit)
    return ratio


def _kernel_size(ratio: Fraction) -> int:
    # Six zero crossings of the lower rate, as in torchaudio.
    half_width = math.ceil(6.1 * max(float(ratio), 1.0))
    return ratio.denominator * (ratio.numerator + 2 * half_width)
