"""The view of a running engine in the terminal, or one line a second where there is no terminal."""

from __future__ import annotations

import dataclasses
import threading
from typing import Final

from rich.console import Console
from rich.live import Live

from emi_live.clock import NS_PER_S, Clock, MonotonicClock
from emi_live.health import Health
from emi_live.messages import Estimate, ModalityReport
from emi_live.sinks.glyphs import Glyphs, glyphs_for
from emi_live.sinks.keys import Controls
from emi_live.sinks.progress import ProgressMeter
from emi_live.sinks.view import render
from emi_live.sinks.viewstate import StateKeeper, ViewState
from emi_models.vocabulary import EMOTIONS, MODALITIES

__all__ = ["NOTICE", "TerminalSink", "plain_line"]

NOTICE: Final = "intensities say what shows, not what is felt · on this machine, nothing stored"
FRAME_NS: Final = NS_PER_S // 15  # no more than 15 redraws a second: exact mode makes hundreds of estimates
REFRESH_NS: Final = NS_PER_S // 2  # redraw this often without an estimate, for a new size or a stall
PLAIN_NS: Final = NS_PER_S  # one plain line a second
FRAME_COUNTER: Final = "video.frames"


class TerminalSink:
    """Shows the newest estimate on the whole screen; leaves the screen as it was when closed.

    Where the console is not a terminal, or a dumb one, it writes one line a second instead. It redraws when
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
    ) -> None:
        """Prepare the view; nothing is written before `open`.

        Args:
            health: where drops and frames are counted.
            source: what is being watched, in words.
            notice: the line at the bottom; the default holds only without `--json` and `--publish`.
            controls: what the keys have set; None: there are no keys.
            exact: the run reads a file as fast as it can, and its progress is shown.
            until_s: where such a run stops before the file does.
            console: where to; default: standard output.
            clock: for rates and redraws.
        """
        self._health = health
        self._console = console or Console()
        self._clock = clock or MonotonicClock()
        meter = ProgressMeter(self._clock, until_s) if exact else None
        self._keeper = StateKeeper(self._clock, source, notice, meter=meter)
        self._controls = controls
        self._changes = 0  # of the controls, that have been drawn
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
        """Give the screen back; what it showed before is there again. `open` takes it anew."""
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
    """What a modality is, and why if its device or stage is down or it cannot keep up."""
    told = report.reason if report.state == "failed" or "behind" in (report.reason or "") else None
    return f"{name} {report.state}" + (f" ({told})" if told else "")


def plain_line(estimate: Estimate, glyphs: Glyphs) -> str:
    """One estimate as a line of plain text, for logs and pipes."""
    values = " ".join(
        f"{name} {value:.2f}" for name, value in zip(EMOTIONS, estimate.intensities, strict=True)
    )
    states = " ".join(_state(name, estimate.modalities[name]) for name in MODALITIES)
    sensed = estimate.latency.capture_to_estimate
    latency = "" if sensed is None else f" | {sensed:.0f} ms"
    report = estimate.modalities["text"]
    words = " ".join(part for part in (report.committed, report.partial) if part)
    return glyphs.printable(f"{estimate.t_s:7.1f} s | {values} | {states}{latency} | {words[-80:]}").rstrip(
        " |"
    )
