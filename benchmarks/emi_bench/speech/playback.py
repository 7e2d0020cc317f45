"""One clip through the real speech stage, in one thread, by one of three clocks.

`unaware`: computing takes no time. What is left is the wait of the policy itself, the same on any machine.
`aware`: the time of each step moves a simulated clock, which skips waiting. As in real use, a step finds the
sound that arrived during the step before, but a clip takes only its computing time.
`real`: the real clock, without simulation.

Source: "computationally unaware" simulation, Macháček et al. 2023 (arXiv:2307.14743, §4).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import numpy as np

from emi_bench.speech.clips import normalise
from emi_bench.speech.report import ClockName
from emi_live.bundle import Encoders, load_speech
from emi_live.clock import NS_PER_MS, NS_PER_S, Clock, MonotonicClock
from emi_live.errors import ConfigurationError
from emi_live.messages import END_OF_STREAM, Packet, TranscriptPacket
from emi_live.rings import SAMPLE_RATE_HZ, AudioRing
from emi_models.store import ModelStore
from emi_models.store import Progress as Download

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from emi_live.config import LiveConfig
    from emi_models.speech.recognizer import Hypothesis, Recognizer

__all__ = [
    "BLOCK_SAMPLES",
    "AwareClock",
    "EmittedPacket",
    "Playback",
    "PlaybackClock",
    "PlaybackResult",
    "RealClock",
    "Timer",
    "UnawareClock",
    "WatchedRecognizer",
    "load_recognizers",
    "make_clock",
    "offline_words",
    "play_through",
    "prepare",
    "warm_up",
]


Timer = Callable[[], int]  # nanoseconds that work is timed by
Result = TypeVar("Result")
BLOCK_SAMPLES: Final = 512  # 32 ms, as from a microphone
RATE_HZ: Final = 16_000
OFFLINE_BLOCK_SAMPLES: Final = 1_600  # recognisers may adapt to the microphone from one block to the next


class PlaybackClock(Protocol):
    """Time during one clip, in nanoseconds since its first sample was captured."""

    @property
    def timer(self) -> Timer:
        """The timer of work."""
        ...

    def now_ns(self) -> int:
        """The time of this clock."""
        ...

    def spend(self, work_ns: int) -> None:
        """Count the duration of work."""
        ...

    def wait_until(self, t_ns: int) -> None:
        """Wait until then."""
        ...


class UnawareClock:
    """Work takes no time."""

    def __init__(self, timer: Timer = time.perf_counter_ns) -> None:
        self.timer = timer
        self._now_ns = 0

    def now_ns(self) -> int:
        """The time at which the newest sample was captured."""
        return self._now_ns

    def spend(self, work_ns: int) -> None:
        """Work takes no time."""

    def wait_until(self, t_ns: int) -> None:
        """Skip the wait."""
        self._now_ns = max(self._now_ns, t_ns)


class AwareClock(UnawareClock):
    """Work takes its time; waiting takes none."""

    def spend(self, work_ns: int) -> None:
        """Move the clock by that much."""
        self._now_ns += work_ns


class RealClock:
    """The real clock, from now on."""

    def __init__(self, clock: Clock | None = None, timer: Timer = time.perf_counter_ns) -> None:
        self.timer = timer
        self._clock = clock or MonotonicClock()
        self._start_ns = self._clock.now_ns()
        self._never = threading.Event()

    def now_ns(self) -> int:
        """Time since this object was made."""
        return self._clock.now_ns() - self._start_ns

    def spend(self, work_ns: int) -> None:
        """The time has passed already."""

    def wait_until(self, t_ns: int) -> None:
        """Wait."""
        self._clock.wait_until(self._start_ns + t_ns, self._never)


def make_clock(name: ClockName) -> PlaybackClock:
    """The clock of that name, starting now."""
    return RealClock() if name == "real" else AwareClock() if name == "aware" else UnawareClock()


@dataclass(frozen=True, slots=True)
class EmittedPacket:
    """A packet, and when it was emitted, in nanoseconds since the clip began."""

    packet: TranscriptPacket
    emitted_ns: int

    @property
    def lag_ms(self) -> float:
        """Age of the newest sound that it describes, when it was emitted."""
        return (self.emitted_ns - self.packet.t_ns) / NS_PER_MS


class Playback:
    """A clip that is written to a ring by a clock. Work calls `tick` regularly, so that sound can arrive.

    In the engine a microphone writes while the recogniser works, and after an answer the stage checks how
    much sound is queued. This gives the same without a second thread.
    """

    def __init__(self, samples: NDArray[np.float32], pace: PlaybackClock) -> None:
        """Play samples, shape (n,), 16 kHz, the first captured at 0; `pace` begins now."""
        self.ring = AudioRing()
        self.reader = self.ring.reader()  # for the stage
        self.pace = pace
        self._samples = samples
        self._written = 0
        self._mark_ns = pace.timer()

    @property
    def captured_s(self) -> float:
        """Seconds of the clip that have arrived."""
        return self._written / SAMPLE_RATE_HZ

    @property
    def over(self) -> bool:
        """Whether all of it has arrived."""
        return self._written == self._samples.size

    def begin_work(self) -> None:
        """Start to count work."""
        self._mark_ns = self.pace.timer()

    def tick(self) -> None:
        """Count the work since the last tick, and write the sound that was captured meanwhile."""
        self.pace.spend(self.pace.timer() - self._mark_ns)
        self.arrive()
        self._mark_ns = self.pace.timer()

    def arrive(self) -> None:
        """Write the sound captured so far; the ring is closed after the last block."""
        now_ns = self.pace.now_ns()
        while not self.over and (end_ns := self._next_end_ns()) <= now_ns:
            block = self._samples[self._written : self._written + BLOCK_SAMPLES]
            self.ring.write(block, _ns(self._written), arrived_ns=end_ns)
            self._written += block.size
        if self.over:
            self.ring.close()

    def wait(self) -> None:
        """Wait for the next block."""
        self.pace.wait_until(self._next_end_ns())

    def _next_end_ns(self) -> int:
        return _ns(min(self._written + BLOCK_SAMPLES, self._samples.size))


class Steps(Protocol):
    """The part of the speech stage that is used here."""

    ended: bool

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packets of the next block of sound."""
        ...


@dataclass(slots=True)
class PlaybackResult:
    """The packets of one clip, and the work for them."""

    shown: list[EmittedPacket] = field(default_factory=list)
    steps_ns: list[int] = field(default_factory=list)  # what each step took
    max_backlog_s: float = 0.0  # of sound that was captured and not processed


def play_through(
    stage: Steps, play: Playback, on_captured: Callable[[float], None] = lambda _: None
) -> PlaybackResult:
    """Step a stage that reads `play.reader` until it has ended.

    Args:
        stage: its recogniser may call `play.tick`; it is called at the end of each step in any case.
        play: not started.
        on_captured: called after each step with the seconds captured so far.
    """
    done, pace = PlaybackResult(), play.pace
    while not stage.ended:
        play.arrive()
        if not play.over and not play.reader.backlog:
            play.wait()
            continue
        done.max_backlog_s = max(done.max_backlog_s, play.reader.backlog / SAMPLE_RATE_HZ)
        play.begin_work()
        start_ns = pace.timer()
        packets = stage.step(pace.now_ns())
        done.steps_ns.append(pace.timer() - start_ns)
        play.tick()
        emitted_ns = pace.now_ns()
        done.shown += [
            EmittedPacket(packet, emitted_ns)
            for packet in packets
            if isinstance(packet, TranscriptPacket) and packet.progress_ns != END_OF_STREAM
        ]
        on_captured(play.captured_s)
    return done


def _ns(samples: int) -> int:
    """When that many samples have been captured; rounded up, so that no sample is early."""
    return -(-samples * NS_PER_S // SAMPLE_RATE_HZ)


def load_recognizers(config: LiveConfig, progress: Download | None = None) -> Encoders:
    """Load the recogniser and the smaller one of `speech.*`; they are downloaded first if they are absent.

    The caller closes the result.

    Raises:
        ConfigurationError: it is not available; the message says why, and what to do.
    """
    if config.speech.backend == "none":
        raise ConfigurationError("speech.backend=none recognises nothing; choose whisper or pocketsphinx")
    encoders = Encoders()
    store = ModelStore(config.models.directory, offline=config.models.offline)
    load_speech(encoders, config, store, progress)
    if encoders.recognizer is None:
        raise ConfigurationError(encoders.unavailable["text"])
    return encoders


def warm_up(recognizer: Recognizer) -> None:
    """Let it answer once and reset it, so that no clip includes what happens once in a process."""
    recognizer.begin()
    recognizer.accept(np.random.default_rng(0).normal(0.0, 0.01, RATE_HZ).astype(np.float32))
    recognizer.finish()
    prepare(recognizer)


def prepare(recognizer: Recognizer) -> None:
    """Reset it for the next clip, and start what it starts at loading."""
    recognizer.forget()
    recognizer.begin()  # restarts a child process now, not during the clip


def offline_words(recognizer: Recognizer, samples: NDArray[np.float32]) -> list[str]:
    """Words of a clip as one utterance, without a time limit: the reference for streaming.

    Args:
        recognizer: in any state.
        samples: shape (n,), 16 kHz.
    """
    prepare(recognizer)
    for start in range(0, samples.size, OFFLINE_BLOCK_SAMPLES):
        recognizer.accept(samples[start : start + OFFLINE_BLOCK_SAMPLES])
    return [text for word in recognizer.finish().words for text in normalise(word.text)]


class WatchedRecognizer:
    """A recogniser that calls `tick` after work, and counts the requests for words."""

    def __init__(self, recognizer: Recognizer, tick: Callable[[], None]) -> None:
        self._recognizer = recognizer
        self._tick = tick
        self.calls = 0  # of `hypothesis` and `finish`

    @property
    def name(self) -> str:
        """That of the inner recogniser."""
        return self._recognizer.name

    @property
    def agreement(self) -> int:
        """That of the inner recogniser."""
        return self._recognizer.agreement

    def begin(self, prompt: str = "") -> None:
        """As the inner recogniser."""
        self._recognizer.begin(prompt)
        self._tick()

    def accept(self, samples: NDArray[np.float32]) -> None:
        """As the inner recogniser."""
        self._recognizer.accept(samples)
        self._tick()

    def hypothesis(self) -> Hypothesis:
        """As the inner recogniser."""
        self.calls += 1
        found = self._recognizer.hypothesis()
        self._tick()
        return found

    def finish(self) -> Hypothesis:
        """As the inner recogniser."""
        self.calls += 1
        found = self._recognizer.finish()
        self._tick()
        return found

    def forget(self) -> None:
        """As the inner recogniser."""
        self._recognizer.forget()

    def close(self) -> None:
        """As the inner recogniser."""
        self._recognizer.close()
