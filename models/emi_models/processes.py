"""Worker processes for jobs that a function does: none of them outlives the block that started it.

`give_memory_back` is for a process that runs for long.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.process import BaseProcess

__all__ = ["Workers", "end_processes", "give_memory_back", "worker_processes"]

Given = ParamSpec("Given")
Found = TypeVar("Found")

END_S: Final = 0.5  # for a process to end after SIGTERM; past that it is killed
DIE_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG, of Linux' prctl


class Workers:
    """Processes that do jobs, of `worker_processes`."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool
        self._started: list[BaseProcess] = []

    def submit(self, job: Callable[Given, Found], *args: Given.args, **kwargs: Given.kwargs) -> Future[Found]:
        """Have a job done; `job` must be importable by its name, and what it gets must pickle.

        A new process has Ctrl-C blocked, because a terminal sends it to all processes: the main one alone
        decides what happens then.
        """
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        there = set(active_children())
        try:
            return self._pool.submit(job, *args, **kwargs)
        finally:
            self._started += [child for child in active_children() if child not in there]
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def end(self) -> None:
        """End all processes, whatever they do."""
        end_processes(self._started)


def end_processes(children: Sequence[BaseProcess]) -> None:
    """End processes of multiprocessing, whatever they do; returns when they have ended."""
    for child in children:
        child.terminate()
    for child in children:
        child.join(END_S)
        child.kill()
        child.join()


@contextmanager
def worker_processes(count: int, begin: Callable[[], None] | None = None) -> Iterator[Workers]:
    """Up to `count` processes, each started afresh when there is a job for it.

    When the block ends, started jobs are finished and others left out. If Ctrl-C or a signal to end ends it,
    the processes are ended, whatever they do. On Linux they also end if this process is killed.

    Args:
        count: at most so many.
        begin: called first in each process.
    """
    pool = ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=_begin, initargs=(os.getpid(), begin)
    )
    workers = Workers(pool)
    try:
        yield workers
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        workers.end()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(parent: int, begin: Callable[[], None] | None) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:  # it was killed before
            os._exit(1)
    if begin is not None:
        begin()


def give_memory_back() -> None:
    """Free what a clip or a session has left, and hand it back to the system.

    Rings, stages and workers of an engine refer to each other, so that only Python's collector frees them,
    and it runs only after many of them have ended. Each engine has its own threads, and glibc keeps what they
    freed in pieces. Call `gc.freeze` once the models are loaded: then this takes little time.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have no such call
    if trim is not None:
        trim(0)
