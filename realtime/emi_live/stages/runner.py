"""The loop that a worker runs for one stage: wait, step, publish."""

from __future__ import annotations

import threading

from emi_live.bus.ends import PacketWriter
from emi_live.clock import Clock
from emi_live.stages.stage import Stage

__all__ = ["StageRunner"]

WAIT_S = 0.1  # longest wait for input before looking at `stop` again


class StageRunner:
    """Runs a stage until its input is over or it is told to stop; may be run again after a failure."""

    def __init__(self, stage: Stage, publisher: PacketWriter, clock: Clock) -> None:
        self._stage = stage
        self._publisher = publisher
        self._clock = clock
        self._interrupted = False

    def __call__(self, stop: threading.Event) -> None:
        """Run in the calling thread. A stage that failed before starts afresh from where its input stands."""
        stage = self._stage
        if self._interrupted:
            stage.reset()
        self._interrupted = True
        while not stop.is_set() and not stage.ended:
            stage.wait(WAIT_S)
            for packet in stage.step(self._clock.now_ns()):
                self._publisher.publish(packet)
        self._interrupted = False
