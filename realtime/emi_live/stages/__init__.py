"""Stages: each turns a ring or a topic into packets of one topic. One module holds one modality's stages.

Here are the protocol, the promise of progress while no media arrive, and the loop that runs a stage.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, Protocol

from emi_live.bus import PacketWriter
from emi_live.clock import NS_PER_MS, Clock
from emi_live.messages import NOTHING_YET, Packet
from emi_live.rings import Reader

__all__ = ["Promise", "Stage", "StageRunner"]

PROMISE_STEP_NS: Final = 250 * NS_PER_MS  # at most four packets for each second of a gap


class Stage(Protocol):
    """Turns what has arrived into packets. Used by one thread; owns no thread, socket or clock."""

    @property
    def name(self) -> str:
        """The part's name in health reports, e.g. `face`."""
        ...

    @property
    def topic(self) -> str:
        """The topic that all its packets have, e.g. `vision`."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the input is over and the last packets, with `END_OF_STREAM`, have been returned."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Wait for input; False when none came within `timeout_s`."""
        ...

    def step(self, now_ns: int) -> Sequence[Packet]:
        """Process what has arrived, without waiting. Packets are in order of `progress_ns`."""
        ...

    def reset(self) -> None:
        """Forget all media so far, as after a failure; keep the position in the input."""
        ...

    def close(self) -> None:
        """Leave the input, so that in exact mode nothing upstream waits for this stage any more."""
        ...


class Promise:
    """Decides when a stage publishes how far its source has read, although no media arrived.

    A promise is due when it is a quarter of a second further than the last one, or when nothing has arrived
    during one wait. So a long gap costs few packets, and a short one is reported too. Such packets carry
    progress alone, so results do not depend on when they are sent.
    """

    def __init__(self, reader: Reader) -> None:
        """Follow the source of this reader."""
        self._reader = reader
        self._idle = False  # nothing arrived during the last wait
        self._given_ns = NOTHING_YET

    def wait(self, timeout_s: float) -> bool:
        """Wait for media, progress or the end."""
        woken = self._reader.wait(timeout_s)
        self._idle = not woken
        return woken

    def due(self) -> int | None:
        """The `progress_ns` to publish now, or None. Call it after all media were read and published."""
        until_ns = self._reader.progress_ns
        if until_ns is None:
            return None
        promised_ns = until_ns - 1  # media captured at `until_ns` itself may still come
        step_ns = 1 if self._idle else PROMISE_STEP_NS
        if promised_ns - self._given_ns < step_ns:
            return None
        self._given_ns = promised_ns
        return promised_ns


WAIT_S = 0.1  # longest wait for input before looking at `stop` again


class StageRunner:
    """Runs a stage until its input is over or it is told to stop; may be run again after a failure."""

    def __init__(self, stage: Stage, publisher: PacketWriter, clock: Clock) -> None:
        self._stage = stage
        self._publisher = publisher
        self._clock = clock
        self._interrupted = False

    def __call__(self, stop: threading.Event) -> None:
        """Run in the calling thread. A stage that failed before is reset, and goes on in its input."""
        stage = self._stage
        if self._interrupted:
            stage.reset()
        self._interrupted = True
        while not stop.is_set() and not stage.ended:
            stage.wait(WAIT_S)
            for packet in stage.step(self._clock.now_ns()):
                self._publisher.publish(packet)
        self._interrupted = False
