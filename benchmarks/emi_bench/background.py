"""Threads that run during a measurement: a body for the length of a `with`, and a sampler of usage."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import psutil

from emi_bench.machine import UsageSample
from emi_live.clock import NS_PER_S, Clock, MonotonicClock
from emi_live.health import Health
from emi_live.worker import Worker

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

__all__ = ["ProcessTreeUsage", "UsageSampler", "in_background"]

JOIN_S: Final = 5.0
EVERY_S: Final = 1.0


@contextmanager
def in_background(name: str, body: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `body(stop)` in a thread of that name, and stop it at the end of the `with`.

    Raises:
        Exception: the error that ended the body.
    """
    worker = Worker(name, body, Health())
    worker.start()
    try:
        yield
    finally:
        worker.request_stop()
        worker.join(JOIN_S)
    if worker.error is not None:
        raise worker.error


class ProcessTreeUsage:
    """Memory and processor time of this process and its children; a child that has ended still counts."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._cpu_s: dict[int, float] = {}  # of each process ever seen

    def rss_mib(self) -> float:
        """Resident memory now; pages that processes share count for each of them."""
        return sum(_rss(process) for process in self._tree()) / 2**20

    def cpu_s(self) -> float:
        """Seconds of processor time so far, of all processes that existed at one of the calls."""
        for process in self._tree():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:  # it has just ended
                continue
            self._cpu_s[process.pid] = times.user + times.system
        return sum(self._cpu_s.values())

    def _tree(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:  # it has just ended
        return 0


class UsageSampler:
    """The body of a worker: takes one sample a second, by the clock."""

    def __init__(self, clock: Clock | None = None, usage: ProcessTreeUsage | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._usage = usage or ProcessTreeUsage()
        self.samples: list[UsageSample] = []  # complete when the worker has ended

    def __call__(self, stop: threading.Event) -> None:
        """Sample in the calling thread until `stop`."""
        start_ns = before_ns = self._clock.now_ns()
        before_s = self._usage.cpu_s()
        index = 1
        while self._clock.wait_until(start_ns + round(index * EVERY_S * NS_PER_S), stop):
            now_ns, busy_s = self._clock.now_ns(), self._usage.cpu_s()
            cores = (busy_s - before_s) / ((now_ns - before_ns) / NS_PER_S)
            self.samples.append(UsageSample((now_ns - start_ns) / NS_PER_S, self._usage.rss_mib(), cores))
            before_ns, before_s = now_ns, busy_s
            index = round((now_ns - start_ns) / NS_PER_S / EVERY_S) + 1
