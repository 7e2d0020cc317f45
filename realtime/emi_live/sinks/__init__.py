"""Where estimates go: the terminal, JSON lines, ZeroMQ. One module for each kind of sink.

Here are the protocol `Sink`, and how estimates get to one: from the bus by a worker, to the embedding program
by a queue.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from emi_live.bus import PacketReader
from emi_live.health import Health
from emi_live.messages import Estimate

if TYPE_CHECKING:
    from emi_live.live import LiveEngine

__all__ = [
    "AsyncEstimates",
    "AttachedSink",
    "CallbackRunner",
    "EstimateBox",
    "EstimateFeed",
    "EstimateReader",
    "FeedRunner",
    "Sink",
    "SinkRunner",
]


class Sink(Protocol):
    """Where estimates go. After `open` it is used by one thread; it owns no thread.

    The constructor or `open` refuses a path or an address that cannot work. So a program that opens its sinks
    first can report it before it starts.
    """

    @property
    def name(self) -> str:
        """The part's name in health reports, e.g. `terminal`."""
        ...

    @property
    def finished(self) -> bool:
        """Whether no receiver is left for good, as after a closed pipe; then `write` does nothing."""
        ...

    def open(self) -> None:
        """Get ready to write; a second call does nothing.

        Raises:
            ConfigurationError: the place cannot be written to.
        """
        ...

    def write(self, estimate: Estimate) -> None:
        """Pass one estimate on. While this waits, the sink waits too; in exact mode also the engine."""
        ...

    def idle(self) -> None:
        """Do what is due without an estimate; called about every 100 ms while none comes."""
        ...

    def close(self) -> None:
        """Finish and release everything; a second call does nothing.

        Raises:
            LiveError: what is due at the end could not be written.
        """
        ...


@runtime_checkable
class AttachedSink(Protocol):
    """A sink that needs more of the engine than estimates, such as words or pictures."""

    def attach(self, engine: LiveEngine) -> None:
        """Prepare for an engine that is loaded and does not run yet; called before `open`."""
        ...


LAST_WAIT_S: Final = 1.0  # how long to wait for estimates that were published but have not arrived
SLICE_S: Final = 0.1

logger = logging.getLogger(__name__)


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
        """Leave the topic: in exact mode the engine would wait for a subscription that is not read."""
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
            self._deadline_s = time.monotonic() + LAST_WAIT_S
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
    """The body of one sink's worker: passes all estimates to the sink, at the sink's own pace."""

    def __init__(self, sink: Sink, feed: EstimateFeed) -> None:
        self._sink = sink
        self._feed = feed

    def __call__(self, stop: threading.Event) -> None:
        """Run in the calling thread until the last estimate, until the sink is finished, or until `stop`."""
        self._sink.open()
        try:
            for estimate in self._feed.iterate(stop, self._sink.idle):
                self._sink.write(estimate)
                if self._sink.finished:
                    break
        finally:
            self._feed.close()
            self._sink.close()


class EstimateBox:
    """A queue of estimates for the program, and the newest of all; any thread may use it.

    Live, at most `capacity` wait: if more come, the oldest are skipped, and counted as `estimates.skipped`
    once there has been a reader. Lossless, the writer waits for room, unless the box is `optional` and has
    had no reader yet.
    """

    def __init__(self, capacity: int, health: Health, *, lossless: bool, optional: bool = False) -> None:
        self._capacity = capacity
        self._health = health
        self._lossless = lossless
        self._optional = optional
        self._changed = threading.Condition()
        self._waiting: deque[Estimate] = deque()
        self._newest: Estimate | None = None
        self._readers = 0
        self._asked = False  # whether there has been a reader
        self._over = False
        self._listeners: list[Callable[[], None]] = []

    @property
    def over(self) -> bool:
        """Whether the last estimate has been taken."""
        with self._changed:
            return self._over and not self._waiting

    def put(self, estimate: Estimate, stop: threading.Event) -> None:
        """Add one; lossless, wait for room, until `stop` or `end`."""
        with self._changed:
            while self._must_wait() and not stop.is_set():
                self._changed.wait(SLICE_S)
            if self._over:
                return
            self._newest = estimate
            self._waiting.append(estimate)
            while len(self._waiting) > self._capacity:
                self._waiting.popleft()
                if self._asked:
                    self._health.count("estimates.skipped")
            self._tell()

    def end(self, *, discard: bool = False) -> None:
        """End the stream; `discard` what waits too, so that every wait ends."""
        with self._changed:
            self._over = True
            if discard:
                self._waiting.clear()
            self._tell()

    def poll(self) -> tuple[Estimate | None, bool]:
        """The next estimate, if there is one, and whether the stream has ended. Never waits."""
        with self._changed:
            estimate = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return estimate, estimate is None and self._over

    def take(self) -> Estimate | None:
        """The next estimate, waiting for it; None after the last."""
        with self._changed:
            while not self._waiting and not self._over:
                self._changed.wait()
            estimate = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return estimate

    def newest(self) -> Estimate | None:
        """The newest of all, taken or not; without a reader, the older ones are dropped."""
        with self._changed:
            if self._readers == 0:
                self._waiting.clear()
                self._asked = False
                self._changed.notify_all()
            return self._newest

    def join(self) -> None:
        """Add a reader."""
        with self._changed:
            self._readers += 1
            self._asked = True

    def leave(self) -> None:
        """Remove a reader."""
        with self._changed:
            self._readers -= 1

    @contextmanager
    def telling(self, listener: Callable[[], None]) -> Iterator[None]:
        """A context in which another thread calls `listener` after each change."""
        with self._changed:
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._changed:
                self._listeners.remove(listener)

    def _must_wait(self) -> bool:
        full = len(self._waiting) >= self._capacity
        return self._lossless and full and not self._over and (self._asked or not self._optional)

    def _tell(self) -> None:
        self._changed.notify_all()
        for listener in self._listeners:
            listener()


class _Reader:
    """One reader of the queue, until it is closed or dropped."""

    def __init__(self, box: EstimateBox, before: Callable[[], None], at_end: Callable[[], None]) -> None:
        """Join; `before` is called before each wait and `at_end` after the last estimate. Both may raise."""
        self._box = box
        self._before = before
        self._at_end = at_end
        self._open = True
        box.join()

    def close(self) -> None:
        """Stop reading; dropping the iterator does the same."""
        if self._open:
            self._open = False
            self._box.leave()

    def __del__(self) -> None:
        self.close()


class EstimateReader(_Reader, Iterator[Estimate]):
    """Estimates one by one, in one or several threads: each goes to the thread that asks first."""

    def __next__(self) -> Estimate:
        self._before()
        estimate = self._box.take()
        if estimate is None:
            self.close()
            self._at_end()
            raise StopIteration
        return estimate


class AsyncEstimates(_Reader, AsyncIterator[Estimate]):
    """The same for `async for`, in one event loop; waiting takes no thread."""

    async def __anext__(self) -> Estimate:
        import asyncio

        self._before()
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(woken.set)

        with self._box.telling(wake):
            while True:
                woken.clear()
                estimate, over = self._box.poll()
                if estimate is not None:
                    return estimate
                if over:
                    break
                await woken.wait()
        self.close()
        await asyncio.to_thread(self._at_end)  # which may wait for sinks
        raise StopAsyncIteration


class FeedRunner:
    """The body of the worker that fills boxes: the one thread that reads the subscription."""

    def __init__(self, feed: EstimateFeed, boxes: Sequence[EstimateBox]) -> None:
        self._feed = feed
        self._boxes = boxes

    def __call__(self, stop: threading.Event) -> None:
        """Run in the calling thread until the last estimate, or `stop`."""
        try:
            for estimate in self._feed.iterate(stop):
                for box in self._boxes:
                    box.put(estimate, stop)
        finally:
            self._feed.close()
            for box in self._boxes:
                box.end()


class CallbackRunner:
    """The body of the worker that calls the program with each estimate; what the call raises is logged."""

    def __init__(self, callback: Callable[[Estimate], object], box: EstimateBox, health: Health) -> None:
        self._callback = callback
        self._box = box
        self._health = health
        self._failed = False
        box.join()

    def __call__(self, stop: threading.Event) -> None:
        """Run in the calling thread until the last estimate, or `stop`."""
        while not stop.is_set() and (estimate := self._box.take()) is not None:
            try:
                self._callback(estimate)
            except Exception as error:  # the program's own, which must not end the engine
                self._health.count("on_estimate.failures")
                level = logging.DEBUG if self._failed else logging.ERROR
                logger.log(level, "on_estimate raised %s: %s", type(error).__name__, error, exc_info=error)
                self._failed = True
