"""Light and sound in a code, pushed into the engine, and the code found again in its estimates.

Light and sound go on and off for pseudo-random times. A span lasts two to four hops, so every span reaches at
least one estimate, at any phase of the hop, and the order of the spans tells which part of the code it
shows. The real vision stage runs around an encoder that measures brightness, because a real encoder needs a
face; the real audio stage runs complete. The engine computes each window in full, and then answers with the
brightness of the newest picture and the level of the newest sound.

The stamps are not trusted: the code is searched in the values at the times at which estimates were published.
Then the stamps are compared with the code, so that a source with wrong capture times is detected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from emi_bench.live_report import CodeResponse
from emi_bench.measurement import Distribution
from emi_live.bundle import Encoders
from emi_live.clock import NS_PER_MS, NS_PER_S, Clock, MonotonicClock, seconds_to_ns
from emi_models.encoders.face import FACE_DIM, FaceResult
from emi_models.encoders.prosody import (
    ENERGY,
    ENERGY_DEVIATION_DB,
    ENERGY_FLOOR_DB,
    ENERGY_MEAN_DB,
    FRAME_SAMPLES,
)
from emi_models.errors import EmiError

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from emi_engine import FusionEngine
    from emi_engine.protocol import FusionSession
    from emi_live import LiveEngine
    from emi_models import Modality
    from emi_models.checkpoint import CheckpointHeader
    from emi_models.inputs import FusionInputs, FusionShapes, StreamWindow

__all__ = [
    "BRIGHT",
    "DARK",
    "LIGHT",
    "SOUND",
    "SPAN_HOPS",
    "CodeReading",
    "CodeUnreadableError",
    "EchoEngine",
    "EchoSession",
    "Flasher",
    "LightEncoder",
    "OnOffTimes",
    "find_code",
    "light_and_sound",
    "make_code",
]

SPAN_HOPS: Final = (2.0, 4.0)  # shortest and longest
FRAMES_PER_S: Final = 29  # not a multiple of the hop rate, so that pictures fall on every phase of the hop
SIZE: Final = (360, 640, 3)
DARK: Final = 16
BRIGHT: Final = 235
RATE_HZ: Final = 16_000
BLOCK: Final = 512  # 32 ms, as from a microphone
TONE_HZ: Final = 880.0
LOUD: Final = 0.25
QUIET: Final = 1e-3  # noise of a quiet room, -60 dBFS
LIGHT: Final = 0  # the place among the six values in which brightness is answered, 0 to 1
SOUND: Final = 1  # and level, 0 at -70 dBFS to 1 at 0 dBFS
STEP_NS: Final = NS_PER_MS  # resolution of the search
LAG_S: Final = 5.0  # the longest lag that is searched
STAMP_S: Final = 2.0  # the largest error of a stamp that is searched, in both directions
LEAST_SWING: Final = 0.1  # between dark and bright, quiet and loud
LEAST_AGREEMENT: Final = 0.85  # share of values that fit the code at the best lag
LEAST_LEAD: Final = 0.1  # ahead of the best fit at a distant lag


@dataclass(frozen=True, slots=True)
class OnOffTimes:
    """When something was on, in true capture time: it switches at `times_ns`, first to on."""

    times_ns: NDArray[np.int64]  # increasing

    @classmethod
    def of(cls, switches: Sequence[tuple[int, bool]]) -> OnOffTimes:
        """From (time, on or off from then), alternating; before the first on it is off."""
        from_first_on = switches[1:] if switches and not switches[0][1] else switches
        return cls(np.array([time_ns for time_ns, _ in from_first_on], np.int64))

    def on_at(self, times_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether it was on, at times of any shape."""
        on: NDArray[np.bool_] = np.searchsorted(self.times_ns, times_ns, side="right") % 2 == 1
        return on

    @property
    def onsets_ns(self) -> NDArray[np.int64]:
        """When it went on."""
        return self.times_ns[::2]

    def shown_by(self, memory_ns: int) -> OnOffTimes:
        """The times as seen with a memory of `memory_ns`: on without delay, off later."""
        times_ns = self.times_ns.copy()
        times_ns[1::2] += memory_ns
        return OnOffTimes(times_ns)


def make_code(start_ns: int, duration_s: float, hop_s: float, seed: int = 7) -> OnOffTimes:
    """A code from `start_ns` on, for at least `duration_s`; the same seed gives the same code."""
    shortest_s, longest_s = (hops * hop_s for hops in SPAN_HOPS)
    count = int(np.ceil(duration_s / shortest_s)) + 1
    spans_s = np.random.default_rng(seed).uniform(shortest_s, longest_s, count)
    spans_ns = np.array([seconds_to_ns(span) for span in spans_s], np.int64)
    return OnOffTimes(start_ns + np.cumsum(spans_ns))


class Flasher:
    """The body of a worker that pushes pictures and sound into an engine, as a camera and a microphone would.

    A picture is stamped with the time at which it is pushed. A block of sound is stamped with the time of its
    first sample and pushed after its last. `light` and `sound` are the true times, by the same clock;
    `*_stamp_error_s` makes only the stamps wrong, for tests.
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
        self._code: OnOffTimes | None = None

    @property
    def light(self) -> OnOffTimes:
        """Capture times of the first picture of each span; complete after the worker has ended."""
        return OnOffTimes.of(self._switches)

    @property
    def sound(self) -> OnOffTimes:
        """When a beep is in the newest frame of prosody, which covers 25 ms."""
        code = self._code if self._code is not None else OnOffTimes.of(())
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
        # The tone starts again in each block, with a click; the tone is far louder.
        tone = LOUD * np.sin(2 * np.pi * TONE_HZ / RATE_HZ * np.arange(BLOCK))
        samples: NDArray[np.float64] = self._noise.normal(0, QUIET, BLOCK) + tone * self._is_on(times_ns)
        return samples.astype(np.float32)

    def _is_on(self, times_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        if self._code is None:
            raise RuntimeError("the code is made when the worker starts")
        return self._code.on_at(times_ns)


class LightEncoder:
    """Replaces a face encoder: its features are the picture's brightness, in [0, 1]."""

    def follow(self, wish: object) -> None:
        """One face alone is shown."""

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        """One "face"; all 58 features are the brightness of the pixel in the middle."""
        height, width = rgb.shape[:2]
        value = float(rgb[height // 2, width // 2].mean()) / 255
        return FaceResult(1, np.full(FACE_DIM, value, np.float32), None)

    def reset(self) -> None:
        """There is no state."""

    def close(self) -> None:
        """There is nothing to release."""


def light_and_sound() -> Encoders:
    """The encoders for light and sound: no face, no words, no weights to download."""
    from emi_models.encoders.prosody import ProsodyEncoder
    from emi_models.encoders.voice_activity import VoiceGate

    return Encoders(
        face=LightEncoder(),
        prosody=ProsodyEncoder(),
        voice_gate=VoiceGate,
        announcements=["light: the brightness of a picture, in place of a face", "sound: prosody at 50 Hz"],
    )


class EchoEngine:
    """Computes each window with an engine, and answers with the newest light and sound of the window."""

    def __init__(self, inner: FusionEngine) -> None:
        """Take over `inner`; `close` closes it."""
        self._inner = inner

    @property
    def name(self) -> str:
        """The name of the inner engine, and that its answer is replaced."""
        return f"{self._inner.name}, echoing"

    @property
    def detail(self) -> str:
        """That of the inner engine."""
        return self._inner.detail

    @property
    def reuses(self) -> bool:
        """That of the inner engine."""
        return self._inner.reuses

    @property
    def shapes(self) -> FusionShapes:
        """Those of the inner engine."""
        return self._inner.shapes

    @property
    def header(self) -> CheckpointHeader:
        """That of the inner engine's checkpoint."""
        return self._inner.header

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Those of the inner engine."""
        return self._inner.modalities

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        """Light at `LIGHT` and sound at `SOUND` of the newest frames, (B, 6); 0 without a frame."""
        answer = np.zeros_like(self._inner.infer(window))
        for row in range(len(answer)):
            vision = window.vision[row][window.vision_mask[row]].numpy()
            audio = window.audio[row][window.audio_mask[row]].numpy()
            answer[row] = _echo(vision, audio, answer.shape[1])
        return answer

    def session(self) -> EchoSession:
        """A session that answers in the same way."""
        return EchoSession(self._inner.session())

    def close(self) -> None:
        """Close the inner engine."""
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EchoSession:
    """Computes the windows of one stream, and answers each with its newest light and sound."""

    def __init__(self, inner: FusionSession) -> None:
        self._inner = inner

    def infer(self, window: StreamWindow, *, counterfactuals: bool = False) -> NDArray[np.float32]:
        """As `EchoEngine.infer`, the same in every row."""
        answer = np.zeros_like(self._inner.infer(window, counterfactuals=counterfactuals))
        answer[:] = _echo(window.vision.values, window.audio.values, answer.shape[1])
        return answer

    def restart(self) -> None:
        """Begin another stream."""
        self._inner.restart()


def _echo(vision: NDArray[np.float32], audio: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    answer = np.zeros(width, np.float32)
    if len(vision):
        answer[LIGHT] = vision[-1, 0]
    if len(audio):
        level_db = float(audio[-1, ENERGY]) * ENERGY_DEVIATION_DB + ENERGY_MEAN_DB
        answer[SOUND] = 1.0 - level_db / ENERGY_FLOOR_DB
    return answer


class CodeUnreadableError(EmiError):
    """The code of light or sound cannot be found in the estimates."""


@dataclass(frozen=True, slots=True)
class CodeReading:
    """The value of one estimate, when it was published, and the capture time that it states."""

    value: float
    published_ns: int
    stamp_ns: int


def find_code(what: str, times: OnOffTimes, readings: Sequence[CodeReading], hop_ns: int) -> CodeResponse:
    """Find the code of `times` in readings, which are in order of time.

    Raises:
        CodeUnreadableError: it is not there, or too short to be certain; `what` names it.
    """
    values = np.array([reading.value for reading in readings])
    published = np.array([reading.published_ns for reading in readings], np.int64)
    stamps = np.array([reading.stamp_ns for reading in readings], np.int64)
    shown = _bits(what, values)
    span_ns = round(SPAN_HOPS[0] * hop_ns)

    lags = np.arange(0, round(LAG_S * NS_PER_S), STEP_NS)
    fits = _fits(times, shown, published, lags)
    best = int(fits.argmax())
    plateau = lags[_run_around(fits == fits[best], best)]
    lag_ns = int(plateau[len(plateau) // 2])
    runner_up = float(fits[np.abs(lags - lag_ns) > span_ns].max())
    agreement = float(fits[best])
    if agreement < LEAST_AGREEMENT or agreement - runner_up < LEAST_LEAD:
        raise CodeUnreadableError(
            f"the code of the {what} cannot be told in {len(readings)} estimates: at best {agreement:.0%} of "
            f"them fit it, and {runner_up:.0%} elsewhere; play it for longer (--duration 60)"
        )
    errors = np.arange(-round(STAMP_S * NS_PER_S), round(STAMP_S * NS_PER_S), STEP_NS)
    stamp_fits = _fits(times, shown, stamps, errors)
    right = errors[_run_around(stamp_fits == stamp_fits.max(), int(stamp_fits.argmax()))]
    latencies, onsets = _first_reflections(times, shown, published, lag_ns, hop_ns)
    found = Distribution.of(latencies)
    if found is None:
        raise CodeUnreadableError(f"no onset of the {what} was seen; play it for longer (--duration 60)")
    return CodeResponse(
        to_estimate_ms=found,
        onsets=onsets,
        lag_ms=lag_ns / NS_PER_MS,
        agreement=agreement,
        runner_up=runner_up,
        stamp_error_ms=(float(right[0]) / NS_PER_MS, float(right[-1]) / NS_PER_MS),
    )


def _bits(what: str, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    low, high = np.percentile(values, (10, 90)) if values.size else (0.0, 0.0)
    if high - low < LEAST_SWING:
        raise CodeUnreadableError(
            f"the {what} does not show in {values.size} estimates, whose values stay between {low:.2f} and "
            f"{high:.2f}; play it for longer (--duration 60)"
        )
    return values > (low + high) / 2


def _fits(
    times: OnOffTimes, shown: NDArray[np.bool_], times_ns: NDArray[np.int64], lags_ns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """For each lag, the share of values that agree with the code so long before their times."""
    return np.array([(times.on_at(times_ns - lag_ns) == shown).mean() for lag_ns in lags_ns])


def _run_around(true: NDArray[np.bool_], index: int) -> slice:
    """The run of true values around `index`."""
    false = np.flatnonzero(~true)
    after = int(np.searchsorted(false, index))
    first = int(false[after - 1]) + 1 if after else 0
    return slice(first, int(false[after]) if after < len(false) else len(true))


def _first_reflections(
    times: OnOffTimes, shown: NDArray[np.bool_], published: NDArray[np.int64], lag_ns: int, hop_ns: int
) -> tuple[list[float], int]:
    """Milliseconds from each onset to the first estimate that shows it, and the number of visible onsets.

    An estimate that shows "on" after one that showed "off" is the first of an onset. The lag tells which
    onset it is: an onset is visible after the lag and up to a hop later.
    """
    usual_ns = lag_ns + hop_ns // 2
    reach_ns = hop_ns // 2 + round(SPAN_HOPS[0] * hop_ns) // 2
    rises = published[1:][shown[1:] & ~shown[:-1]]
    latencies = []
    onsets = [
        int(t)
        for t in times.onsets_ns
        if published[0] <= t + lag_ns and t + usual_ns + reach_ns <= published[-1]
    ]
    for onset_ns in onsets:
        waits = rises - onset_ns
        near = waits[np.abs(waits - usual_ns) <= reach_ns]
        if near.size:
            latencies.append(float(near[np.abs(near - usual_ns).argmin()]) / NS_PER_MS)
    return latencies, len(onsets)
