"""What this process and its children take of the machine, as time goes by."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

from emi_live.clock import NS_PER_S, Clock, MonotonicClock

if TYPE_CHECKING:
    import threading

__all__ = ["Usage", "UsageSample", "UsageSampler", "load_average"]

EVERY_S: Final = 1.0


def load_average() -> float:
    """Processes that wanted a core, mean of the last minute: how busy the machine is with other things."""
    return os.getloadavg()[0]


class Usage:
    """Memory and processor time of the process tree; what children used is kept when they end."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._cpu_s: dict[int, float] = {}  # of each process ever seen

    def rss_mib(self) -> float:
        """Resident memory now; pages that processes share count for each of them."""
        return sum(_rss(process) for process in self._tree()) / 2**20

    def cpu_s(self) -> float:
        """Seconds of processor time so far, of processes that were there when this was asked."""
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


@dataclass(frozen=True, slots=True)
class UsageSample:
    """Memory at one moment, and the cores that were busy since the one before."""

    t_s: float  # since sampling began
    rss_mib: float
    cores: float


class UsageSampler:
    """The body of a worker: one sample a second, by the clock and not by what is being measured."""

    def __init__(self, clock: Clock | None = None, usage: Usage | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._usage = usage or Usage()
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
