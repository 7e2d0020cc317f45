"""What the benches share: options, a progress bar, threads during a measurement, a sampler of usage."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import psutil
import typer

from emi_bench.measurement import UsageSample
from emi_live.clock import NS_PER_S, Clock, MonotonicClock
from emi_live.health import Health
from emi_live.worker import Worker
from emi_models.console import printable

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from rich.progress import Progress, TaskID

__all__ = [
    "JsonFile",
    "ProcessTreeUsage",
    "ProgressBar",
    "Settings",
    "UsageSampler",
    "check_json",
    "in_background",
    "progress_bar",
]

JsonFile = Annotated[
    str | None,
    typer.Option("--json", help="Write the report to this file as JSON; - for standard output."),
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Any setting of emi-live, NAME=VALUE.")]

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
    """Memory and processor time of a process and its children; a child that has ended still counts."""

    def __init__(self, pid: int | None = None) -> None:
        """Watch this process, or another one that exists."""
        self._process = psutil.Process(pid)
        self._cpu_s: dict[int, float] = {}  # of each process ever seen

    def rss_mib(self) -> float:
        """Resident memory now; pages that processes share count for each of them."""
        return sum(_rss(process) for process in self._tree()) / 2**20

    def pss_mib(self) -> list[float]:
        """Proportional set size now of the process, then of each child: a shared page counts once in the sum.

        Linux only.
        """
        return [_pss(process) / 2**20 for process in self._tree()]

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
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:  # it has ended
            return [self._process]


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:  # it has just ended
        return 0


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
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


def check_json(where: str | None) -> None:
    """Refuse a place that cannot be written now, not after minutes of measuring."""
    from emi_live.cli.options import check_writable

    if where not in (None, "-"):
        check_writable("--json", Path(where))


@dataclass(frozen=True, slots=True)
class ProgressBar:
    """A progress bar on standard error."""

    progress: Progress
    task: TaskID

    def show(self, what: str, done: float, of: float | None) -> None:
        """Name what is being done, and how much of it."""
        self.progress.update(self.task, description=printable(what), completed=done, total=of or None)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.progress.console.print(printable(line), markup=False, highlight=False)


@contextmanager
def progress_bar(description: str = "loading") -> Iterator[ProgressBar]:
    """The bar of all benchmarks; it is drawn only if standard error is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield ProgressBar(progress, progress.add_task(description, total=None))
