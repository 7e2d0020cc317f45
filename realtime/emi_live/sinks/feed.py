"""The stream of estimates as a consumer sees it: one after the other, and a definite end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from emi_live.bus.ends import PacketReader
from emi_live.messages import Estimate
from emi_live.sinks.sink import Sink

__all__ = ["EstimateFeed", "SinkRunner"]

LAST_WORDS_S: Final = 1.0  # how long to wait for estimates that were published but have not arrived
SLICE_S: Final = 0.1


class EstimateFeed:
    """Estimates from one subscription, for one thread.

    `total()` is how many estimates were published, known once the fusion loop has ended; None before.
    """

    def __init__(self, reader: PacketReader, total: Callable[[], int | None]) -> None:
        self._reader = reader
        self._total = total
        self._seen = 0  # estimates published up to and including the newest received
        self._deadline_s: float | None = None

    def next(self, timeout_s: float) -> Estimate | None:
        """The next estimate; None if none came within `timeout_s`."""
        packet = self._reader.read()
        if packet is None and self._reader.wait(timeout_s):
            packet = self._reader.read()
        if not isinstance(packet, Estimate):
            return None
        self._seen = packet.seq + 1
        return packet

    def close(self) -> None:
        """Stop listening: in exact mode a subscription that nobody reads would hold up the engine."""
        self._reader.close()

    @property
    def ended(self) -> bool:
        """Whether the last estimate was received, or was lost on the way and is no longer waited for."""
        total = self._total()
        if total is None:
            return False
        if self._seen >= total:
            return True
        if self._deadline_s is None:
            self._deadline_s = time.monotonic() + LAST_WORDS_S
        return time.monotonic() > self._deadline_s

    def iterate(
        self, stop: threading.Event, on_idle: Callable[[], None] = lambda: None
    ) -> Iterator[Estimate]:
        """Every estimate until the last, or until `stop` is set; `on_idle` is called while there is none."""
        while not stop.is_set():
            estimate = self.next(SLICE_S)
            if estimate is not None:
                yield estimate
            elif self.ended:
                return
            else:
                on_idle()


class SinkRunner:
    """The body of one sink's worker: everything the feed has goes to the sink, in the sink's own time."""

    def __init__(self, sink: Sink, feed: EstimateFeed) -> None:
        self._sink = sink
        self._feed = feed

    def __call__(self, stop: threading.Event) -> None:
        """Run in the calling thread until the last estimate, until nobody can receive any more, or `stop`."""
        self._sink.open()
        try:
            for estimate in self._feed.iterate(stop, self._sink.idle):
                self._sink.write(estimate)
                if self._sink.finished:
                    break
        finally:
            self._feed.close()
            self._sink.close()
