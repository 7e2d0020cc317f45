"""The keys of the terminal view: what each does, and the terminal that they are read from."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Final, Self

from emi_live.health import Health
from emi_live.worker import Worker

if sys.platform != "win32":
    import termios
    import tty

__all__ = ["KEYS", "Controls", "Keyboard"]

KEYS: Final = {"q": "quit", "space": "pause the view", "m": "marker", "?": "help"}
POLL_S: Final = 0.1
JOIN_S: Final = 0.5
MAX_READ: Final = 64  # bytes at a time: a paste must not hold anything up
ESCAPES: Final = re.compile(
    r"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?", re.DOTALL
)  # arrows, function keys, Alt and a key


class Controls:
    """What the keys have set; any thread may read or press."""

    def __init__(self, quit_: Callable[[], None], mark: Callable[[], int]) -> None:
        """`quit_` ends the run; `mark` sets a marker and returns its number."""
        self._quit = quit_
        self._mark = mark
        self._lock = threading.Lock()
        self.active = False  # whether keys are read at all
        self.quitting = False
        self.paused = False
        self.helping = False
        self.markers = 0
        self.changes = 0  # of anything above, so that a view knows when to draw

    def press(self, key: str) -> None:
        """A key was pressed; those without a meaning do nothing, but take the help away."""
        with self._lock:
            helped, self.helping = self.helping, key in "?h" and not self.helping
            if key == " ":
                self.paused = not self.paused
            elif key in "mM":
                self.markers = self._mark()
            elif key in "qQ":
                self.quitting = True
            elif key not in "?h" and not helped:
                return
            self.changes += 1
        if self.quitting:
            self._quit()


class Keyboard:
    """Reads single keys from the terminal at standard input while the block of its `with` runs.

    The terminal is as it was before whenever the program does not read it: after the block, however it ends;
    while the program is stopped with Ctrl-Z, or in the background; and if the reader breaks down. Ctrl-C
    works as ever. Where standard input is no terminal nothing is read and nothing changed. Use it in the main
    thread, which handles Ctrl-Z.
    """

    def __init__(
        self,
        controls: Controls,
        health: Health,
        *,
        suspend: Callable[[], None] = lambda: None,
        resume: Callable[[], None] = lambda: None,
        descriptor: int | None = None,
    ) -> None:
        """Prepare; nothing is read or changed.

        Args:
            controls: told of every key.
            health: told if the reader fails.
            suspend: gives the screen back, before the program is stopped with Ctrl-Z.
            resume: takes it again, when the program is in the foreground again.
            descriptor: the terminal; default: standard input.
        """
        self._controls = controls
        self._suspend = suspend
        self._resume = resume
        self._descriptor = _standard_input() if descriptor is None else descriptor
        self._lock = threading.RLock()  # around the two below
        self._before: list[Any] | None = None  # the terminal's settings, while they are changed
        self._suspended = False
        self._worker = Worker("keys", self._read, health, on_exit=self._give_up)
        self._handler: Any = None

    def __enter__(self) -> Self:
        """Begin to read."""
        if self._descriptor is not None and os.isatty(self._descriptor):
            self._controls.active = True
            self._take()
            self._worker.start()
        if sys.platform != "win32" and threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGTSTP, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back."""
        self._restore()
        self._controls.active = False
        self._worker.request_stop()
        if self._handler is not None:
            signal.signal(signal.SIGTSTP, self._handler)
        self._worker.join(JOIN_S)
        self._restore()

    def _read(self, stop: threading.Event) -> None:
        assert self._descriptor is not None  # noqa: S101  # else it is not started
        while not stop.is_set():
            if not self._in_foreground():
                stop.wait(POLL_S)
                continue
            self._go_on(stop)
            if not select.select([self._descriptor], [], [], POLL_S)[0] or not self._in_foreground():
                continue
            try:
                read = os.read(self._descriptor, MAX_READ)
            except OSError:
                return
            if not read:  # the terminal is gone
                return
            for key in ESCAPES.sub("", read.decode("utf-8", "ignore")):
                self._controls.press(key)

    def _give_up(self) -> None:
        self._controls.active = False
        self._restore()

    def _go_on(self, stop: threading.Event) -> None:
        """Take the terminal and the screen again after Ctrl-Z, once the shell has given them back."""
        with self._lock:
            if self._suspended and not stop.is_set():
                self._suspended = False
                self._take()
                self._resume()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: leave all as it was, stop, and go on here after `fg` or `bg`."""
        with self._lock:
            self._suspended = True
            self._suspend()
            self._restore()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop)
        if not self._worker.alive:  # nobody else looks for the foreground
            with self._lock:
                self._suspended = False
                self._resume()

    def _in_foreground(self) -> bool:
        """Whether reading or changing the terminal would not stop the program."""
        try:
            return self._descriptor is not None and os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:  # not the terminal that controls us, so nobody is in its foreground
            return True

    def _take(self) -> None:
        """Deliver keys one by one, without showing them."""
        with self._lock:
            if self._descriptor is None or self._before is not None or not self._in_foreground():
                return
            with suppress(termios.error):
                self._before = termios.tcgetattr(self._descriptor)
                tty.setcbreak(self._descriptor, termios.TCSADRAIN)

    def _restore(self) -> None:
        with self._lock:
            before, self._before = self._before, None
            if before is not None and self._descriptor is not None:
                with suppress(termios.error):
                    termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)


def _standard_input() -> int | None:
    """Standard input, if it is a terminal."""
    try:
        return sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    except (OSError, ValueError):  # closed, or not a file
        return None
