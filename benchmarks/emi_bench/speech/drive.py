"""One clip through the real speech stage, in one thread, and when each packet came out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_live.messages import END_OF_STREAM, Packet, TranscriptPacket
from emi_live.rings import AudioRing
from emi_live.rings.audio import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from emi_bench.speech.pace import Pace

__all__ = ["BLOCK_SAMPLES", "Drive", "Playback", "Shown", "drive"]

BLOCK_SAMPLES: Final = 512  # 32 ms, as the microphone gives them


@dataclass(frozen=True, slots=True)
class Shown:
    """A packet, and when it came out, in nanoseconds since the clip began."""

    packet: TranscriptPacket
    emitted_ns: int

    @property
    def lag_ms(self) -> float:
        """How long ago the newest sound that it describes had been captured."""
        return (self.emitted_ns - self.packet.t_ns) / NS_PER_MS


class Playback:
    """A clip that a ring hears by some clock. Whoever works says `tick` now and then, that sound may arrive.

    In the engine a microphone writes while the recogniser works, and the stage looks at how much sound waits
    when an answer has come. So it is here, without a second thread.
    """

    def __init__(self, samples: NDArray[np.float32], pace: Pace) -> None:
        """Play samples, shape (n,), 16 kHz, the first captured at 0; `pace` begins now."""
        self.ring = AudioRing()
        self.reader = self.ring.reader()  # for the stage
        self.pace = pace
        self._samples = samples
        self._written = 0
        self._mark_ns = pace.timer()

    @property
    def captured_s(self) -> float:
        """How much of the clip has arrived."""
        return self._written / SAMPLE_RATE_HZ

    @property
    def over(self) -> bool:
        """Whether all of it has."""
        return self._written == self._samples.size

    def begin_work(self) -> None:
        """From here on, time is that of work."""
        self._mark_ns = self.pace.timer()

    def tick(self) -> None:
        """Count the work since the last tick, and let arrive what was captured meanwhile."""
        self.pace.spend(self.pace.timer() - self._mark_ns)
        self.arrive()
        self._mark_ns = self.pace.timer()

    def arrive(self) -> None:
        """Write what has been captured by now; the ring is closed after the last of it."""
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
    """What is needed of the speech stage."""

    ended: bool

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packets of the next piece of sound."""
        ...


@dataclass(slots=True)
class Drive:
    """What came of a clip."""

    shown: list[Shown] = field(default_factory=list)
    steps_ns: list[int] = field(default_factory=list)  # what each step took
    max_backlog_s: float = 0.0  # of sound that had been captured and not been heard


def drive(stage: Steps, play: Playback, on_captured: Callable[[float], None] = lambda _: None) -> Drive:
    """Step a stage that reads `play.reader` until it has ended.

    Args:
        stage: its recogniser may say `play.tick`; at the end of each step it is said in any case.
        play: not begun.
        on_captured: told from time to time how many seconds have been captured.
    """
    done, pace = Drive(), play.pace
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
            Shown(packet, emitted_ns)
            for packet in packets
            if isinstance(packet, TranscriptPacket) and packet.progress_ns != END_OF_STREAM
        ]
        on_captured(play.captured_s)
    return done


def _ns(samples: int) -> int:
    """When that many samples have been captured; rounded up, so that none is early."""
    return -(-samples * NS_PER_S // SAMPLE_RATE_HZ)
