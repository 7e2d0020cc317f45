"""Somebody speaks into a microphone that has faults, and a speech stage listens; time is a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from emi_live.config import SpeechConfig
from emi_live.health import Health
from emi_live.messages import Hearing, TranscriptPacket, Word
from emi_live.rings import AudioRing
from emi_live.stages.speech import SpeechStage
from emi_models.encoders.voice_activity import CHUNK_SAMPLES
from emi_models.speech.recognizer import Hypothesis
from tests.models.speech.timed import RATE_HZ, Spoken, TimedRecognizer

NS = 1_000_000_000
BLOCK_NS = CHUNK_SAMPLES * NS // RATE_HZ

Span = tuple[float, float]


class PositionGate:
    """Hears voice where somebody speaks and the microphone is not muted; sound is `positions`."""

    def __init__(self, spoken: Sequence[Spoken], muted: Sequence[Span]) -> None:
        self._spoken = spoken
        self._muted = muted

    def reset(self) -> None: ...

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        middle = float(samples[samples.size // 2]) / RATE_HZ
        speaks = any(start <= middle <= end for _, start, end in self._spoken)
        muted = any(start <= middle <= end for start, end in self._muted)
        return np.array([1.0 if speaks and not muted else 0.0], np.float32)


class SlowRecognizer(TimedRecognizer):
    """Each answer takes `takes_s`, during which the room goes on."""

    def __init__(self, spoken: Sequence[Spoken], pass_time: Callable[[float], None], takes_s: float) -> None:
        super().__init__(spoken)
        self._pass_time = pass_time
        self.takes_s = takes_s
        self.hangs_s = 0.0  # the next answer alone takes so much longer

    def hypothesis(self) -> Hypothesis:
        self._pass_time(self.takes_s + self.hangs_s)
        self.hangs_s = 0.0
        return super().hypothesis()


class Room:
    """Runs a live speech stage against simulated time, block by block; nothing sleeps.

    `muted`: the device sends sound, but of nobody. `gone`: no block comes, and none of that time ever does.
    `late`: blocks come only at the end of the span, all at once. Capture time runs `drift_ppm` faster than
    the count of samples says.
    """

    def __init__(
        self,
        spoken: Sequence[Spoken],
        *,
        muted: Sequence[Span] = (),
        gone: Sequence[Span] = (),
        late: Sequence[Span] = (),
        drift_ppm: float = 0.0,
        takes_s: float = 0.0,
        smaller_takes_s: float | None = None,
        **config: float,
    ) -> None:
        self.ring = AudioRing()
        self.health = Health()
        heard = [word for word in spoken if not any(a < word[2] and b > word[1] for a, b in muted)]
        self.recognizer = SlowRecognizer(heard, self.pass_time, takes_s)
        self.smaller = (
            None if smaller_takes_s is None else SlowRecognizer(heard, self.pass_time, smaller_takes_s)
        )
        gate: object = PositionGate(spoken, muted)
        self.stage = SpeechStage(
            self.ring.reader(),
            gate,  # type: ignore[arg-type]
            self.recognizer,
            SpeechConfig.model_validate(config),
            exact=False,
            health=self.health,
            smaller=self.smaller,
            timer=lambda: self.now_ns / NS,
        )
        self._gone, self._late, self._drift = gone, late, 1 + drift_ppm / 1e6
        self._block = 0
        self._withheld: list[int] = []
        self.now_ns = 0
        self.packets: list[tuple[int, TranscriptPacket]] = []  # and when they came

    def run(self, until_s: float) -> Room:
        while self.now_ns < until_s * NS:
            self.pass_time(BLOCK_NS / NS)
            while True:
                backlog = self.stage._chunks.backlog
                for packet in self.stage.step(self.now_ns):
                    assert isinstance(packet, TranscriptPacket)
                    self.packets.append((self.now_ns, packet))
                if self.stage._chunks.backlog == backlog:
                    break
        return self

    def pass_time(self, seconds: float) -> None:
        """Time goes by, and sound arrives."""
        self.now_ns += round(seconds * NS)
        while round((self._block + 1) * BLOCK_NS * self._drift) <= self.now_ns:
            at_s = self._block * BLOCK_NS / NS
            self._withheld.append(self._block)
            self._block += 1
            if any(start <= at_s < end for start, end in self._gone):
                self._withheld.clear()
            if any(start <= at_s < end for start, end in self._late):
                continue
            for block in self._withheld:
                first = block * CHUNK_SAMPLES
                samples = np.arange(first, first + CHUNK_SAMPLES, dtype=np.float32)
                self.ring.write(samples, round(block * BLOCK_NS * self._drift), arrived_ns=self.now_ns)
            self._withheld.clear()

    def count(self, name: str) -> int:
        return self.health.snapshot().counters.get(f"speech.{name}", 0)

    @property
    def committed(self) -> list[Word]:
        """All words ever committed, in the order in which they were."""
        found: dict[int, Word] = {}
        for _, packet in self.packets:
            found |= {word.number: word for word in packet.words if word.committed}
        return list(found.values())

    @property
    def texts(self) -> list[str]:
        return [word.text for word in self.committed]

    def hearing(self, at_s: float) -> Hearing:
        return [packet for ns, packet in self.packets if ns <= at_s * NS][-1].hearing

    def first(self, hearing: Hearing, after_s: float = 0.0) -> float:
        """When a packet first said so."""
        times = [ns / NS for ns, packet in self.packets if packet.hearing == hearing and ns >= after_s * NS]
        return times[0]

    def lags_s(self, start_s: float, end_s: float) -> list[float]:
        """How far behind the sound that it describes each packet came."""
        return [(ns - p.t_ns) / NS for ns, p in self.packets if start_s * NS <= ns < end_s * NS]
