"""A screen that flashes and a horn that beeps, without either: media pushed in a code, truly stamped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from emi_bench.live.pattern import Track, make_code
from emi_live.clock import NS_PER_S, Clock, MonotonicClock
from emi_models.encoders.prosody import FRAME_SAMPLES

if TYPE_CHECKING:
    import threading

    from numpy.typing import NDArray

    from emi_live import LiveEngine

__all__ = ["BRIGHT", "DARK", "Flasher"]

FRAMES_PER_S: Final = 29  # no multiple of the hop, so that pictures fall on every phase of it
SIZE: Final = (360, 640, 3)
DARK: Final = 16
BRIGHT: Final = 235
RATE_HZ: Final = 16_000
BLOCK: Final = 512  # 32 ms, as a microphone's
TONE_HZ: Final = 880.0
LOUD: Final = 0.25
QUIET: Final = 1e-3  # noise of a quiet room, -60 dBFS


class Flasher:
    """The body of a worker that pushes pictures and sound into an engine, as a camera and a microphone would.

    A picture is stamped with the moment at which it is pushed, a block of sound with that of its first
    sample, and it is pushed when its last sample is over. `light` and `sound` tell what was truly shown, by
    the same clock; `*_stamp_error_s` makes the stamps wrong and the truth not, for tests.
    """

    def __init__(
        self,
        live: LiveEngine,
        duration_s: float,
        *,
        clock: Clock | None = None,
        light_stamp_error_s: float = 0.0,
        sound_stamp_error_s: float = 0.0,
    ) -> None:
        self._live = live
        self._duration_s = duration_s
        self._clock = clock or MonotonicClock()
        self._light_error_ns = round(light_stamp_error_s * NS_PER_S)
        self._sound_error_ns = round(sound_stamp_error_s * NS_PER_S)
        self._pictures = {on: np.full(SIZE, BRIGHT if on else DARK, np.uint8) for on in (False, True)}
        self._noise = np.random.default_rng(1)
        self._switches: list[tuple[int, bool]] = []
        self._code: Track | None = None

    @property
    def light(self) -> Track:
        """When a first bright or dark picture was captured; complete when the worker has ended."""
        return Track.of(self._switches)

    @property
    def sound(self) -> Track:
        """When a beep is in the newest frame of prosody, which looks back 25 ms."""
        code = self._code if self._code is not None else Track.of(())
        return code.shown_by(FRAME_SAMPLES * NS_PER_S // RATE_HZ)

    def __call__(self, stop: threading.Event) -> None:
        """Push in the calling thread until `stop`, or the duration is over."""
        start_ns = self._clock.now_ns()
        self._code = make_code(start_ns, self._duration_s, self._live.config.window.hop_s)
        end_ns = start_ns + round(self._duration_s * NS_PER_S)
        frame = block = 0
        while True:
            frame_ns = start_ns + frame * NS_PER_S // FRAMES_PER_S
            block_ns = start_ns + block * BLOCK * NS_PER_S // RATE_HZ
            full_ns = block_ns + BLOCK * NS_PER_S // RATE_HZ
            due_ns = min(frame_ns, full_ns)
            if due_ns > end_ns or not self._clock.wait_until(due_ns, stop):
                return
            if frame_ns <= full_ns:
                self._show()
                frame += 1
            else:
                self._live.push_audio(self._sound_of(block_ns), block_ns + self._sound_error_ns, RATE_HZ)
                block += 1

    def _show(self) -> None:
        now_ns = self._clock.now_ns()
        on = self._is_on(np.array([now_ns]))[0]
        if not self._switches or self._switches[-1][1] != on:
            self._switches.append((now_ns, bool(on)))
        self._live.push_frame(self._pictures[bool(on)], now_ns + self._light_error_ns)

    def _sound_of(self, block_ns: int) -> NDArray[np.float32]:
        times_ns = block_ns + np.arange(BLOCK, dtype=np.int64) * NS_PER_S // RATE_HZ
        # The tone starts anew in each block; it is far louder than the click.
        tone = LOUD * np.sin(2 * np.pi * TONE_HZ / RATE_HZ * np.arange(BLOCK))
        samples: NDArray[np.float64] = self._noise.normal(0, QUIET, BLOCK) + tone * self._is_on(times_ns)
        return samples.astype(np.float32)

    def _is_on(self, times_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        if self._code is None:
            raise RuntimeError("the code is made when the worker starts")
        return self._code.on_at(times_ns)
