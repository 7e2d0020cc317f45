"""The view of a running engine in the terminal, its keys, and the summary after the run.

Without a terminal, the view is one line a second.
"""

from __future__ import annotations

import dataclasses
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final, Self

from rich.console import Console
from rich.live import Live

from emi_live.clock import NS_PER_S, Clock, MonotonicClock
from emi_live.health import Health
from emi_live.messages import Estimate, ModalityReport
from emi_live.sinks.view import render
from emi_live.sinks.viewstate import (
    FRAME_COUNTER,
    NOTICE,
    Glyphs,
    ProgressMeter,
    StateKeeper,
    ViewState,
    glyphs_for,
)
from emi_live.worker import Worker
from emi_models import EMOTIONS, MODALITIES

__all__ = ["KEYS", "Controls", "Keyboard", "TerminalSink", "plain_line"]

if sys.platform != "win32":
    import termios
    import tty


KEYS: Final = {"q": "quit", "space": "pause the view", "m": "marker", "?": "help"}
POLL_S: Final = 0.1
JOIN_S: Final = 0.5
MAX_READ: Final = 64  # bytes at a time: a paste must not hold anything up
# Arrows, function keys, Alt and a key.
ESCAPES: Final = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?", re.DOTALL)


class Controls:
    """What the keys control; any thread may read or press."""

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
        """Take one key; a key without a meaning only closes the help."""
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

    The terminal has its own settings whenever the program does not read it: after the block, however it
    ends; while the program is stopped with Ctrl-Z, or in the background; and if the reader fails. Ctrl-C
    works as usual. If standard input is not a terminal, nothing is read and nothing changed. Use it in the
    main thread, which handles Ctrl-Z.
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
            controls: gets every key.
            health: gets failures of the reader.
            suspend: restores the screen before the program is stopped with Ctrl-Z.
            resume: takes it again when the program is back in the foreground.
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

    def __exit__(self, *_: object) -> None:
        """Restore the terminal."""
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
        """Take the terminal and the screen again after Ctrl-Z, once the program is in the foreground."""
        with self._lock:
            if self._suspended and not stop.is_set():
                self._suspended = False
                self._take()
                self._resume()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: restore the terminal, stop, and go on here after `fg` or `bg`."""
        with self._lock:
            self._suspended = True
            self._suspend()
            self._restore()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop)
        if not self._worker.alive:  # otherwise the worker goes on once it is in the foreground
            with self._lock:
                self._suspended = False
                self._resume()

    def _in_foreground(self) -> bool:
        """Whether reading or changing the terminal would not stop the program."""
        try:
            return self._descriptor is not None and os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:  # not the controlling terminal, so it has no foreground
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


FRAME_NS: Final = NS_PER_S // 15  # no more than 15 redraws a second: exact mode makes hundreds of estimates
REFRESH_NS: Final = NS_PER_S // 2  # redraw this often without an estimate, for a new size or a stall
PLAIN_NS: Final = NS_PER_S  # one plain line a second


class TerminalSink:
    """Shows the newest estimate on the whole screen, and restores the screen when it is closed.

    If the console is not a terminal, or a dumb one, it writes one line a second instead. It redraws when
    an estimate comes and from `idle`; it owns no thread.
    """

    name = "terminal"

    def __init__(
        self,
        health: Health,
        *,
        source: str = "",
        notice: str = NOTICE,
        controls: Controls | None = None,
        exact: bool = False,
        until_s: float | None = None,
        console: Console | None = None,
        clock: Clock | None = None,
        names: tuple[str, ...] = EMOTIONS,
    ) -> None:
        """Prepare the view; nothing is written before `open`.

        Args:
            health: where drops and frames are counted.
            source: what is watched, in words.
            notice: the line at the bottom; the default is true only without `--json` and `--publish`.
            controls: what the keys control; None: there are no keys.
            exact: the run reads a file as fast as it can, and its progress is shown.
            until_s: where such a run stops, if that is before the end of the file.
            console: where to; default: standard output.
            clock: for rates and redraws.
            names: of the values, until the first estimate brings its own.
        """
        self._health = health
        self._console = console or Console()
        self._clock = clock or MonotonicClock()
        meter = ProgressMeter(self._clock, until_s) if exact else None
        self._keeper = StateKeeper(self._clock, source, notice, meter=meter, names=names)
        self._controls = controls
        self._changes = 0  # of the controls, as last drawn
        self._kept: ViewState | None = None  # what is shown while the view is paused
        # Around the drawing, which Ctrl-Z in the main thread interrupts; it may come while that thread opens.
        self._lock = threading.RLock()
        self._glyphs = glyphs_for(self._console.encoding)
        self._plain = not self._console.is_terminal or self._console.is_dumb_terminal
        self._live: Live | None = None
        self._drawn_ns: int | None = None
        self._fresh = False  # whether an estimate came since the last drawing
        self._newest: Estimate | None = None

    @property
    def finished(self) -> bool:
        """Never: the terminal stays."""
        return False

    @property
    def plain(self) -> bool:
        """Whether lines are written in place of a view."""
        return self._plain

    def open(self) -> None:
        """Take over the screen."""
        with self._lock:
            self._open()

    def _open(self) -> None:
        if self._live is None and not self._plain:
            self._live = Live(
                console=self._console,
                screen=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            )
            self._live.start()
            self._draw()

    def write(self, estimate: Estimate) -> None:
        """Show one estimate, now or with the next drawing."""
        self._keeper.add(estimate, self._health.snapshot().counters.get(FRAME_COUNTER, 0))
        self._newest, self._fresh = estimate, True
        self._draw_if_due(FRAME_NS)

    def idle(self) -> None:
        """Draw what is due."""
        pressed = self._controls is not None and self._controls.changes != self._changes
        self._draw_if_due(FRAME_NS if self._fresh or pressed else REFRESH_NS)

    def close(self) -> None:
        """Restore the screen with what it showed before; `open` takes it again."""
        with self._lock:
            live, self._live = self._live, None
            if live is not None:
                live.stop()

    def _draw_if_due(self, period_ns: int) -> None:
        now_ns = self._clock.now_ns()
        waited_ns = PLAIN_NS if self._drawn_ns is None else now_ns - self._drawn_ns
        if self._live is not None and waited_ns >= period_ns:
            self._draw()
        elif self._plain and self._newest is not None and self._fresh and waited_ns >= PLAIN_NS:
            self._print(self._newest)

    def _draw(self) -> None:
        with self._lock:
            if self._live is None:
                return
            width, height = self._console.size
            self._live.update(render(self._state(), width, height, self._glyphs), refresh=True)
            self._drawn_ns, self._fresh = self._clock.now_ns(), False

    def _state(self) -> ViewState:
        """What to show now, or since the view was paused."""
        controls = self._controls
        state = self._keeper.state(self._health.snapshot())
        if controls is None:
            return dataclasses.replace(state, keys=False)
        self._changes = controls.changes
        self._kept = (self._kept or state) if controls.paused else None
        return dataclasses.replace(
            self._kept or state,
            keys=controls.active,
            paused=controls.paused,
            helping=controls.helping,
            markers=controls.markers,
        )

    def _print(self, estimate: Estimate) -> None:
        line = plain_line(estimate, self._glyphs)
        self._console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
        self._drawn_ns, self._fresh = self._clock.now_ns(), False


def _state(name: str, report: ModalityReport) -> str:
    """A modality's state, with the reason if its device or stage is down or it cannot keep up."""
    reason = report.reason if report.state == "failed" or "behind" in (report.reason or "") else None
    return f"{name} {report.state}" + (f" ({reason})" if reason else "")


def plain_line(estimate: Estimate, glyphs: Glyphs) -> str:
    """One estimate as a line of plain text, for logs and pipes."""
    values = " ".join(f"{name} {value:.2f}" for name, value in estimate.as_dict().items())
    states = " ".join(_state(name, estimate.modalities[name]) for name in MODALITIES)
    sensed = estimate.latency.capture_to_estimate
    latency = "" if sensed is None else f" | {sensed:.0f} ms"
    report = estimate.modalities["text"]
    words = " ".join(part for part in (report.committed, report.partial) if part)
    return glyphs.printable(f"{estimate.t_s:7.1f} s | {values} | {states}{latency} | {words[-80:]}").rstrip(
        " |"
    )
