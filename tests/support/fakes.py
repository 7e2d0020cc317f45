"""One fake for each seam: clock, reader, writer and engine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from emi_engine import FusionSession
from emi_engine.protocol import FullPassSession
from emi_live.messages import Packet
from emi_models import EMOTIONS, MODALITIES, Modality
from emi_models.checkpoint import CheckpointHeader
from emi_models.inputs import FusionInputs, FusionShapes

SMALL_SHAPES = FusionShapes(vision_frames=20, vision_dim=3, audio_frames=40, audio_dim=2, text_dim=4)


class FakeClock:
    """A clock that moves only when a caller waits on it, or on request; `on_wait` is called at each wait."""

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns
        self.waits: list[int] = []

    def now_ns(self) -> int:
        return self._now_ns

    def advance(self, ns: int) -> None:
        self._now_ns += ns

    def wait_until(self, t_ns: int, stop: threading.Event) -> bool:
        if stop.is_set():
            return False
        self.waits.append(t_ns)
        self._now_ns = max(self._now_ns, t_ns)
        return True


class ListReader:
    """A subscription with given packets; with a clock, each arrives at its `published_ns`."""

    def __init__(self, packets: Iterable[Packet] = (), clock: FakeClock | None = None) -> None:
        self._packets = deque(packets)
        self._clock = clock

    @property
    def ended(self) -> bool:
        return not self._packets

    def add(self, packet: Packet) -> None:
        self._packets.append(packet)

    def read(self) -> Packet | None:
        if not self._packets:
            return None
        if self._clock is not None and self._packets[0].published_ns > self._clock.now_ns():
            return None
        return self._packets.popleft()

    def wait(self, timeout_s: float) -> bool:
        return bool(self._packets)

    def close(self) -> None:
        self._packets.clear()


class ListWriter:
    """A publisher that stores its packets."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []

    def publish(self, packet: Packet) -> None:
        self.packets.append(packet)


class FakeEngine:
    """An engine that returns the share of present modalities; `cost_ns` moves a clock per call."""

    name = "fake"
    detail = "fp32"
    reuses = False

    def __init__(
        self, shapes: FusionShapes = SMALL_SHAPES, clock: FakeClock | None = None, cost_ns: int = 0
    ) -> None:
        self._shapes = shapes
        self._clock = clock
        self._cost_ns = cost_ns
        self.closed = False

    @property
    def shapes(self) -> FusionShapes:
        return self._shapes

    @property
    def header(self) -> CheckpointHeader:
        return CheckpointHeader(
            system="fake",
            config={},
            modalities=MODALITIES,
            encoders={},
            data="none",
            licence="none",
            scores={},
            created_by="tests",
        )

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return MODALITIES

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        if self._clock is not None:
            self._clock.advance(self._cost_ns)
        present = window.vision_present.float() + window.audio_present.float() + window.text_present.float()
        return np.repeat(present.numpy()[:, None] / 3, len(EMOTIONS), axis=1).astype(np.float32)

    def session(self) -> FusionSession:
        return FullPassSession(self)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
