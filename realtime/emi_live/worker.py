"""Threads with an owner, a name and a way to stop. Nothing else in emi-live creates threads.

This is also the only place that catches every exception: it keeps the first, reports it to `Health`, and runs
the body again after a back-off if the caller asked for that. A SystemExit, KeyboardInterrupt or GeneratorExit
that a library raises in a thread ends only that thread, like any other failure.

`blas_threads` sets how many threads numpy's matrix products use while engines run, for the whole process. The
products of a hop take tens of microseconds. With one thread per core they wait for each other whenever the
face or the recogniser uses a core; this made a hop ten times longer (docs/decisions/0011).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from threadpoolctl import threadpool_limits

from emi_live.errors import StageError
from emi_live.health import Health

__all__ = ["Backoff", "Worker", "blas_threads"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between restarts: `first_s`, doubled up to `last_s`; at most `attempts` (None = no limit).

    Failures are counted in a row: after `healthy_s` without one, the next is the first again.
    """

    first_s: float = 0.25
    last_s: float = 3.0
    attempts: int | None = None
    healthy_s: float = 30.0

    def delay_s(self, failures: int) -> float:
        """How long to wait after the given number of failures (from 1)."""
        return float(min(self.last_s, self.first_s * 2 ** min(failures - 1, 30)))


class Worker:
    """One thread that runs `body(stop)` until it returns, fails without a restart, or is stopped."""

    def __init__(
        self,
        name: str,
        body: Callable[[threading.Event], None],
        health: Health,
        *,
        restart: Backoff | None = None,
        on_exit: Callable[[], None] | None = None,
        on_stop: Callable[[], None] | None = None,
    ) -> None:
        """Prepare the thread.

        Args:
            name: of the thread, and of the part in health reports.
            body: what to run.
            health: gets starts, failures and ends.
            restart: when to run a failed body again; None = never.
            on_exit: runs last in the thread, however the body ended.
            on_stop: runs in the thread that calls `request_stop`, to end a call of the body that blocks.
        """
        self.name = name
        self.error: Exception | None = None  # the first one
        self.broken: Exception | None = None  # the one after which the body was not run again
        self._body = body
        self._health = health
        self._restart = restart
        self._on_exit = on_exit
        self._on_stop = on_stop
        self._stop = threading.Event()
        # A daemon: a driver call that never returns cannot keep the process alive. Owners still join it.
        self._thread = threading.Thread(target=self._run, name=f"emi-{name}", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    @property
    def finished(self) -> bool:
        """Whether the thread was started and has ended."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._health.report(self.name, "running")
        self._thread.start()

    def request_stop(self) -> None:
        """Ask the body to return; does not wait."""
        self._stop.set()
        if self._on_stop is not None:
            self._on_stop()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; False if it is still running after `timeout_s`.

        The thread itself may call this, and does not wait: it ends when it returns.
        """
        if self._thread is threading.current_thread():
            return True
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self.alive

    def _run(self) -> None:
        failures = 0
        try:
            while not self._stop.is_set():
                started_s = time.monotonic()
                try:
                    self._body(self._stop)
                except BaseException as error:  # the end of the thread: no caller could catch it
                    if self._stop.is_set():  # `on_stop` interrupted it
                        logger.debug("%s was interrupted", self.name, exc_info=error)
                        return
                    healthy = self._restart is not None and (
                        time.monotonic() - started_s >= self._restart.healthy_s
                    )
                    failures = 1 if healthy else failures + 1
                    if not self._keep_going(error, failures):
                        return
                else:
                    if self._health.status(self.name).state != "ended":  # the body may have reported it
                        self._health.report(self.name, "ended")
                    return
        finally:
            if self._on_exit is not None:
                self._on_exit()

    def _keep_going(self, error: BaseException, failures: int) -> bool:
        """Report the failure and wait for the back-off; False if the body is not to run again."""
        self.error = self.error or _as_exception(error)
        self._health.count(f"{self.name}.failures")
        if (
            self._health.status(self.name).state == "ended"
        ):  # the body had reported its end: its result is complete
            self.broken = _as_exception(error)
            return False
        self._health.report(self.name, "failed", f"{type(error).__name__}: {error}")
        logger.debug("%s failed", self.name, exc_info=error)
        restart = self._restart
        if restart is None or (restart.attempts is not None and failures >= restart.attempts):
            self.broken = _as_exception(error)
            return False
        if self._stop.wait(restart.delay_s(failures)):
            return False
        self._health.report(self.name, "running", f"restarted after failure {failures}")
        return True


def _as_exception(error: BaseException) -> Exception:
    """The error; a SystemExit or KeyboardInterrupt, which would end the program, is wrapped."""
    if isinstance(error, Exception):
        return error
    wrapped = StageError(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


_lock: Final = threading.Lock()
_held: list[threadpool_limits] = []  # the first caller's limit, while there are callers
_users = 0


@contextmanager
def blas_threads(limit: int) -> Iterator[None]:
    """Limit numpy to so many threads; the previous setting returns when the last caller is done.

    Callers may enter and leave in any order; while there are several, the first one's limit applies.
    """
    global _users
    with _lock:
        if _users == 0:
            _held.append(threadpool_limits(limits=limit, user_api="blas"))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _held.pop().restore_original_limits()
