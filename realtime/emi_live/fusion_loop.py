"""The loop that turns windows into estimates, on the clock (`live`) or on what has arrived (`exact`)."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from emi_engine import EngineError, FusionEngine
from emi_engine.protocol import WindowLateError
from emi_live.bus import PacketReader, PacketWriter
from emi_live.clock import NS_PER_MS, NS_PER_S, Clock
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.messages import (
    END_OF_STREAM,
    MAX_LABEL,
    MAX_MARKS,
    NOTHING_YET,
    AudioPacket,
    Estimate,
    Latency,
    LearnedNeutral,
    Mark,
    ModalityReport,
    OwnNeutral,
    Packet,
    Range,
    Trace,
)
from emi_live.window import Condition, Window, WindowAssembler
from emi_models import MODALITIES, Modality
from emi_models.inputs import InputError
from emi_models.targets import shown_values

__all__ = ["Event", "FusionLoop", "Hop", "LoopOptions", "Smoother"]

FAILURES = 3  # failures of an engine in a row before it is replaced; one bad window is not enough
WAIT_S = 0.1  # longest wait for a packet before `stop` is checked again
FORGET_S = 3.0  # without a value for longer, the filter starts again


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """When estimates are made, and what they carry.

    `origin_ns` returns where t = 0 is on the clock of capture times; None until the first media arrive.
    """

    hop_ns: int
    exact: bool
    origin_ns: Callable[[], int | None]
    duration_ns: int | None
    bundle: str
    contributions: bool = False
    source: str = ""
    session: str = ""
    smooth_s: float = 0.0  # of the intensities that are shown; 0 in exact mode
    baseline: Literal["off", "running", "calibrate"] = "off"  # as the windows have it


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One pass of the loop: all that it used, apart from the packets."""

    end_ns: int
    origin_ns: int
    wall: str
    conditions: dict[Modality, Condition]
    marks: tuple[Mark, ...] = ()
    estimate: Estimate | None = field(default=None, compare=False)  # None where a recording is read


Event: TypeAlias = Packet | Hop


class FusionLoop:
    """Reads the three modality topics, and publishes one estimate per hop."""

    def __init__(
        self,
        options: LoopOptions,
        readers: Mapping[Modality, PacketReader],
        assembler: WindowAssembler,
        engine: FusionEngine,
        publisher: PacketWriter,
        conditions: Callable[[], Mapping[Modality, Condition]],
        clock: Clock,
        health: Health,
        fallback: Callable[[FusionEngine, Exception], FusionEngine | None] = lambda engine, error: None,
    ) -> None:
        """Connect the parts; nothing is read yet.

        Args:
            options: when estimates are made, and what they are labelled with.
            readers: by modality; one without a reader never contributes.
            assembler: collects packets; this loop is its only user.
            engine: the loop closes it.
            publisher: gets the estimates.
            conditions: state of each modality's part, for the window.
            clock: of capture times.
            health: counters.
            fallback: returns the engine that replaces one that failed `FAILURES` times in a row, or None.
        """
        self._options = options
        self._readers = readers
        self._assembler = assembler
        self._engine = engine
        self._session = engine.session()
        self._lock = threading.Lock()  # guards the three below
        self._successors: list[FusionEngine] = []
        self._closed = False
        self._marks: list[tuple[Mark, bool]] = []  # set since the last estimate; whether it has a time
        self._hop = 1  # live mode: the next one that is due; kept over a restart
        self._publisher = publisher
        self._conditions = conditions
        self._clock = clock
        self._health = health
        self._fallback = fallback
        self._failures = 0  # of the current engine, in a row
        self._smooth = Smoother(options.smooth_s)
        self._calibration = engine.header.intervals
        self._newest_ns: int | None = None  # newest capture time in any packet
        self._waits_for: tuple[Modality, int] | None = None  # exact mode: with the window's end
        self._traces: dict[str, deque[Trace]] = {modality: deque() for modality in readers}
        self._observers: list[Callable[[Window], None]] = []
        self._journal: Callable[[Event], None] | None = None
        self.published = 0

    def observe(self, observer: Callable[[Window], None]) -> None:
        """Call `observer` with each window, in the loop's thread after its estimate; set it before the run.

        The arrays of the window are valid until the observer returns.
        """
        self._observers.append(observer)

    def record(self, journal: Callable[[Event], None]) -> None:
        """Call `journal` with each packet that is taken and each hop, in the loop's thread; set it before."""
        self._journal = journal

    @property
    def waits_for(self) -> tuple[Modality, int] | None:
        """In exact mode, the modality whose packets the loop waits for, and the time that they must reach.

        None: it waits for none, e.g. because no reader takes the estimates.
        """
        return self._waits_for

    def swap(self, engine: FusionEngine) -> None:
        """Use this engine from the next window on, and close the previous one; any thread may call.

        Windows are cut for the new engine: frames, modalities and spans may differ.

        Raises:
            ConfigurationError: the engine takes features of another size, or the loop is closed; then the
                caller still owns the engine.
        """
        mine, its = self._engine, engine
        if mine.header.task != its.header.task:
            raise ConfigurationError(
                f"the checkpoint cannot take over: its task is {its.header.task}, and words come for "
                f"{mine.header.task}; start again with it"
            )
        for modality in its.modalities:
            one, other = (getattr(shapes, f"{modality}_dim") for shapes in (mine.shapes, its.shapes))
            if modality in mine.modalities and one != other:
                raise ConfigurationError(
                    f"the checkpoint cannot take over: its shapes are {its.shapes}, with {other} values in a "
                    f"frame of {modality}, and {one} come; start again with it"
                )
        with self._lock:
            if self._closed:
                raise ConfigurationError("the engine has ended; start another one with the checkpoint")
            self._successors.append(engine)

    def mark(self, number: int, t_ns: int | None = None, label: str = "", origin: str = "") -> None:
        """Give the next estimate a marker; any thread may call.

        Args:
            number: of the marker.
            t_ns: its capture time; None = now, or the end of the next window in exact mode.
            label: what happened.
            origin: who says so.

        Raises:
            ConfigurationError: too many wait for one estimate, or it cannot be sent.
        """
        timed = t_ns is not None or not self._options.exact
        at_ns = t_ns if t_ns is not None else self._clock.now_ns() if timed else 0
        if len(label) > MAX_LABEL or not -(2**62) < at_ns < 2**62:
            raise ConfigurationError(
                f"a marker has at most {MAX_LABEL} characters and a time in nanoseconds, not "
                f"{len(label)} characters at {t_ns}"
            )
        with self._lock:
            if len(self._marks) >= MAX_MARKS:
                raise ConfigurationError(
                    f"{MAX_MARKS} markers wait for the next estimate; set fewer, or shorten window.hop_s"
                )
            self._marks.append((Mark(number, at_ns, label, origin), timed))

    def _take_marks(self, end_ns: int) -> tuple[Mark, ...]:
        with self._lock:
            marks, self._marks = self._marks[:MAX_MARKS], self._marks[MAX_MARKS:]
        return tuple(mark if timed else replace(mark, t_ns=end_ns) for mark, timed in marks)

    def close(self) -> None:
        """Close the engine, and those that were to follow it; the loop must have ended."""
        with self._lock:
            self._closed = True
            engines = [*self._successors, self._engine]
            self._successors.clear()
        for engine in engines:
            engine.close()

    def __call__(self, stop: threading.Event) -> None:
        """Run in the calling thread until the media end, the duration is over, or `stop` is set."""
        for modality in MODALITIES:
            if modality not in self._readers:
                self._assembler.close(modality)
        if self._options.exact:
            self._run_exact(stop)
        else:
            self._run_live(stop)

    def _run_live(self, stop: threading.Event) -> None:
        hop_ns = self._options.hop_ns
        origin_ns = self._options.origin_ns()
        if origin_ns is None:
            origin_ns = self._clock.now_ns()
        while self._clock.wait_until(origin_ns + self._hop * hop_ns, stop):
            missed = (self._clock.now_ns() - origin_ns) // hop_ns - self._hop
            if missed > 0:  # the machine was too slow: skip to the hop that is due now
                self._health.count("fusion.missed_hops", int(missed))
                self._hop += int(missed)
            end_ns = origin_ns + self._hop * hop_ns
            for reader in self._readers.values():
                self._drain(reader)
            self._emit(end_ns, origin_ns)
            if self._media_over(end_ns) or self._duration_over(end_ns, origin_ns):
                return
            self._hop += 1

    def _run_exact(self, stop: threading.Event) -> None:
        end_ns: int | None = None
        origin_ns: int | None = None
        while not stop.is_set():
            if end_ns is None and (origin_ns := self._origin_exact()) is not None:
                end_ns = origin_ns + self._options.hop_ns
            # Only streams behind the window's end are read, so that those ahead of it are held back. A stream
            # in a gap is not behind: its stage promises how far the gap goes.
            needed_ns = END_OF_STREAM if end_ns is None else end_ns
            behind = [
                modality for modality in self._readers if self._assembler.progress_ns(modality) < needed_ns
            ]
            if behind:
                self._waits_for = behind[0], needed_ns
                # Read all of them: one may need media that the source cannot give while another is full.
                if not any([self._take(self._readers[modality]) for modality in behind]):
                    self._readers[behind[0]].wait(WAIT_S)
                continue
            self._waits_for = None
            if end_ns is None or origin_ns is None:  # only ends of streams came
                origin_ns = 0
                end_ns = self._options.hop_ns
            if self.published and self._media_over(end_ns - self._options.hop_ns):
                return
            self._emit(end_ns, origin_ns)
            if self._duration_over(end_ns, origin_ns):
                return
            end_ns += self._options.hop_ns

    def _origin_exact(self) -> int | None:
        """Where t = 0 is; None until the first media arrive."""
        origin_ns = self._options.origin_ns()
        return 0 if origin_ns is None and self._newest_ns is not None else origin_ns

    def _media_over(self, end_ns: int) -> bool:
        """Whether a window that ended there had all media, and no more will come."""
        return self._assembler.ready(END_OF_STREAM) and end_ns >= (self._newest_ns or 0)

    def _duration_over(self, end_ns: int, origin_ns: int) -> bool:
        duration_ns = self._options.duration_ns
        return duration_ns is not None and end_ns - origin_ns >= duration_ns

    def _drain(self, reader: PacketReader) -> None:
        while self._take(reader):
            pass

    def _take(self, reader: PacketReader) -> bool:
        packet = reader.read()
        if packet is None:
            return False
        if packet.t_ns != NOTHING_YET:
            self._newest_ns = max(NOTHING_YET if self._newest_ns is None else self._newest_ns, packet.t_ns)
        self._assembler.add(packet)
        if self._journal is not None:
            self._journal(packet)
        if not self._options.exact and _is_shown(packet):
            self._traces[packet.topic].append(Trace.of(packet))
        return True

    def _emit(self, end_ns: int, origin_ns: int, recorded: Hop | None = None) -> None:
        self._take_over()
        marks = self._take_marks(end_ns)
        if recorded is None:
            conditions = self._assembler.with_breaks(end_ns, self._conditions())
            wall = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        else:
            conditions, wall, marks = recorded.conditions, recorded.wall, (*recorded.marks, *marks)
        traces = self._newest_traces(end_ns)
        started_ns = 0 if self._options.exact else self._clock.now_ns()
        started = time.perf_counter_ns()
        discarded = self._assembler.discarded
        window = self._assembler.assemble(end_ns, conditions)
        self._health.count("window.discarded", self._assembler.discarded - discarded)
        assembled = time.perf_counter_ns()
        try:
            raw = self._infer(window)
        except WindowLateError:  # the next window is newer: nothing is computed for this hop
            if self._options.exact:
                raise
            self._health.count("fusion.late_windows")
            with self._lock:
                self._marks = [*((mark, True) for mark in marks), *self._marks]
            return
        inferred = time.perf_counter_ns()
        header = self._engine.header
        shown = shown_values(raw, header.targets, header.task)
        ranged = any((target.low, target.high) != (0.0, 1.0) for target in header.targets)
        sensed_ms = None
        if not self._options.exact and window.sensed_ns is not None:
            sensed_ms = (self._clock.now_ns() - window.sensed_ns) / NS_PER_MS
        intensities = tuple(self._smooth.push(shown[0], end_ns).tolist())
        intervals = None
        if self._calibration is not None:
            used = [modality for modality in MODALITIES if window.reports[modality].used]
            intervals = self._calibration.intervals(intensities, used, window.gone)
        estimate = Estimate(
            t_ns=end_ns,
            progress_ns=end_ns,
            t_s=(end_ns - origin_ns) / NS_PER_S,
            wall=wall,
            intensities=intensities,
            intervals=intervals,
            baseline=self._own_neutral(window),
            modalities=_with_contributions(window.reports, shown) if len(shown) > 1 else window.reports,
            latency=Latency(
                window=(assembled - started) / NS_PER_MS,
                fusion=(inferred - assembled) / NS_PER_MS,
                capture_to_estimate=sensed_ms,
            ),
            engine=self._engine.name,
            bundle=self._options.bundle,
            source=self._options.source,
            session=self._options.session,
            marker=marks[-1].number if marks else None,
            marks=marks,
            names=tuple(target.name for target in header.targets),
            ranges=tuple(Range(t.low, t.high) for t in header.targets) if ranged else (),
            task="emi" if header.task == "emi" else "bah",
            started_ns=started_ns,
            traces=traces,
        )
        self._publisher.publish(estimate)
        self.published += 1
        self._health.count("fusion.estimates")
        if self._journal is not None:
            self._journal(
                Hop(
                    end_ns=end_ns,
                    origin_ns=origin_ns,
                    wall=wall,
                    conditions=conditions,
                    marks=marks,
                    estimate=estimate,
                )
            )
        for observe in self._observers:
            observe(window)

    def _own_neutral(self, window: Window) -> OwnNeutral | None:
        mode = self._options.baseline
        if mode == "off":
            return None
        known = {name: LearnedNeutral(one.seconds, one.ready) for name, one in window.learned.items()}
        return OwnNeutral(mode, known.get("vision"), known.get("audio"))

    def _infer(self, window: Window) -> NDArray[np.float32]:
        """The engine's values; an engine that fails is tried again, then replaced by its fallback.

        So a window whose engine failed still gets its estimate, from an engine that works. Values that are
        not finite are a failure. Without another engine, the last error is raised.
        """
        while True:
            try:
                raw = self._session.infer(window.stream, counterfactuals=self._options.contributions)
                if not np.isfinite(raw).all():
                    raise EngineError(f"{self._engine.name} gave values that are not finite")
            except (InputError, WindowLateError):  # not the engine's fault
                raise
            except Exception as error:  # any error of a runtime
                self._health.count("fusion.engine_failures")
                self._failures += 1
                if self._failures < FAILURES:
                    self._session.restart()
                    continue
                successor = self._fallback(self._engine, error)
                if successor is None:
                    raise
                session, before = successor.session(), self._engine
                self._engine, self._session, self._failures = successor, session, 0
                self._calibration = successor.header.intervals
                with suppress(Exception):  # it has failed: closing may fail too
                    before.close()
            else:
                self._failures = 0
                return raw

    def _take_over(self) -> None:
        """Change to the engine given to `swap`, if any."""
        with self._lock:
            successors, self._successors = self._successors, []
        for engine in successors:
            session, before = engine.session(), self._engine
            self._engine, self._session, self._failures = engine, session, 0
            self._calibration = engine.header.intervals
            self._smooth.reset()  # another network has another scale
            self._assembler.retune(engine.shapes, frozenset(engine.modalities), engine.header.spans_s)
            before.close()

    def _newest_traces(self, end_ns: int) -> dict[Modality, Trace]:
        """Of each modality, the trace of the newest packet in the window; older ones are dropped."""
        newest: dict[Modality, Trace] = {}
        for modality in MODALITIES:
            traces = self._traces.get(modality, deque())
            while len(traces) > 1 and traces[1].t_ns <= end_ns:
                traces.popleft()
            if traces and traces[0].t_ns <= end_ns:
                newest[modality] = traces[0]
        return newest


def _is_shown(packet: Packet) -> bool:
    """Whether the packet has content for a window."""
    if packet.progress_ns == END_OF_STREAM:
        return False
    return not isinstance(packet, AudioPacket) or len(packet.frames) > 0


def _with_contributions(
    reports: Mapping[Modality, ModalityReport], shown: NDArray[np.float64]
) -> dict[Modality, ModalityReport]:
    """The reports with what each modality added to the first row; rows as of `FusionSession.infer`."""
    return {
        name: replace(reports[name], contribution=tuple((shown[0] - without).tolist()))
        for name, without in zip(MODALITIES, shown[1:], strict=True)
    }


class Smoother:
    """Smooths the values of one stream by an exponential filter over capture time.

    On the test clips it has less flicker at the same lag than a One-Euro filter, which follows the jumps that
    new words make (docs/decisions/0034).
    """

    def __init__(self, smooth_s: float) -> None:
        """Smooth with a time constant of `smooth_s` seconds; 0: not at all."""
        self._smooth_s = smooth_s
        self._last: tuple[int, NDArray[np.float64]] | None = None

    def reset(self) -> None:
        """Start again with the next values."""
        self._last = None

    def push(self, values: NDArray[np.float64], t_ns: int) -> NDArray[np.float64]:
        """The smoothed values (6,) at `t_ns`; times must grow."""
        if self._smooth_s == 0:
            return values
        if self._last is not None:
            at_ns, shown = self._last
            step_s = (t_ns - at_ns) / NS_PER_S
            if 0 < step_s <= FORGET_S:
                values = values + math.exp(-step_s / self._smooth_s) * (shown - values)
        self._last = t_ns, values
        return values
