"""The way of a picture through the real intake, ring, face stage, window and fusion loop, in simulated time.

Threads are what is missing: the stage works while the loop waits, as if each had a core of its own.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec.structs import replace

from emi_bench.flash_beep import EchoEngine, LightEncoder
from emi_bench.live import ReceivedEstimate
from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_live.config import FaceConfig, WindowConfig
from emi_live.fusion_loop import FusionLoop, LoopOptions
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.messages import Estimate, Packet, Trace
from emi_live.rings import AudioRing, VideoRing
from emi_live.stages.vision import FaceStage
from emi_live.window import WindowAssembler
from emi_models import MODALITIES
from emi_models.inputs import FusionShapes
from tests.support.fakes import FakeClock, FakeEngine, ListReader

SHAPES = FusionShapes(vision_frames=40, vision_dim=58, audio_frames=40, audio_dim=73, text_dim=4)
MS = NS_PER_MS


class EventClock(FakeClock):
    """A clock on which things happen: waiting for a time lets all that is due until then happen first."""

    def __init__(self) -> None:
        super().__init__()
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, t_ns: int, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (t_ns, self._count, event))

    def wait_until(self, t_ns: int, stop: threading.Event) -> bool:
        while self._due and self._due[0][0] <= t_ns:
            due_ns, _, event = heapq.heappop(self._due)
            self._now_ns = max(self._now_ns, due_ns)
            event()
        return super().wait_until(t_ns, stop)


@dataclass
class Simulation:
    """How long each part takes; the stage's time may depend on the number of the picture it works on."""

    capture_ns: int = 4 * MS
    stage_ns: Callable[[int], int] = lambda _: 9 * MS
    fusion_ns: int = 3 * MS
    sink_ns: int = 1 * MS
    stamp_error_ns: int = 0
    hop_s: float = 0.2
    brightness: Callable[[int], float] = lambda _: 1.0  # of the picture captured at a time, 0 to 1
    health: Health = field(default_factory=Health)

    def run(self, captures_ns: list[int], duration_s: float) -> tuple[list[ReceivedEstimate], list[Trace]]:
        """What a sink sees of pictures captured at these times, and what the stage published."""
        clock = EventClock()
        video = VideoRing()
        intake = Intake(video, AudioRing(), self.health, clock=clock)
        encoder: Any = LightEncoder()
        stage = FaceStage(video.reader(), encoder, FaceConfig(), self.health)
        packets = ListReader(clock=clock)
        seen: list[ReceivedEstimate] = []
        published: list[Trace] = []
        busy, worked_on = False, 0

        def arrive(t_ns: int) -> None:
            picture = np.full((2, 2, 3), round(255 * self.brightness(t_ns)), np.uint8)
            intake.push_frame(picture, t_ns + self.stamp_error_ns)
            work()

        def work() -> None:
            nonlocal busy, worked_on
            if not busy and (made := stage.step(clock.now_ns())):
                busy, worked_on = True, worked_on + 1
                clock.at(clock.now_ns() + self.stage_ns(worked_on - 1), lambda: publish(made[0]))

        def publish(packet: Packet) -> None:
            nonlocal busy
            packets.add(stamped := replace(packet, published_ns=clock.now_ns()))
            published.append(Trace.of(stamped))
            busy = False
            work()

        class Sink:
            def publish(self, packet: Packet) -> None:
                assert isinstance(packet, Estimate)
                now_ns = clock.now_ns()
                seen.append(
                    ReceivedEstimate(replace(packet, published_ns=now_ns, seq=len(seen)), now_ns + sink_ns)
                )

        sink_ns = self.sink_ns
        for t_ns in captures_ns:
            clock.at(t_ns + self.capture_ns, lambda t_ns=t_ns: arrive(t_ns))  # type: ignore[misc]
        loop = FusionLoop(
            LoopOptions(
                hop_ns=round(self.hop_s * NS_PER_S),
                exact=False,
                origin_ns=lambda: 0,
                duration_ns=round(duration_s * NS_PER_S),
                bundle="compact",
            ),
            {"vision": packets},
            WindowAssembler(WindowConfig(length_s=1.0), SHAPES, frozenset(MODALITIES)),
            EchoEngine(FakeEngine(SHAPES, clock, self.fusion_ns)),
            Sink(),
            dict,
            clock,
            self.health,
        )
        loop(threading.Event())
        return seen, published


def every(seconds: float, fps: float = 29.0) -> list[int]:
    """Capture times of a camera."""
    return [round(index * NS_PER_S / fps) for index in range(int(seconds * fps))]
