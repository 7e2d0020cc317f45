"""The loop that turns windows into estimates, on the clock (`live`) or on what has arrived (`exact`)."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from emi_engine import FusionEngine
from emi_live.bus.ends import PacketReader, PacketWriter
from emi_live.clock import NS_PER_MS, NS_PER_S, Clock
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.messages import END_OF_STREAM, AudioPacket, Estimate, Latency, ModalityReport, Packet, Trace
from emi_live.window import Condition, Window, WindowAssembler
from emi_models.vocabulary import MODALITIES, Modality

__all__ = ["FusionLoop", "FusionPlan"]

WAIT_S = 0.1  # longest wait for a packet before looking at `stop` again


@dataclass(frozen=True, slots=True)
class FusionPlan:
    """When estimates are made.

    `origin_ns` says where t = 0 is on the clock of capture times; it may be None until the first media
    arrived.
    """

    hop_ns: int
    exact: bool
    origin_ns: Callable[[], int | None]
    duration_ns: int | None
    bundle: str
    contributions: bool = False


class FusionLoop:
    """Reads the three modality topics, and publishes one estimate per hop."""

    def __init__(
        self,
        plan: FusionPlan,
        readers: Mapping[Modality, PacketReader],
        assembler: WindowAssembler,
        engine: FusionEngine,
        publisher: PacketWriter,
        conditions: Callable[[], Mapping[Modality, Condition]],
        clock: Clock,
        health: Health,
    ) -> None:
        """A modality without a reader never contributes; `conditions` tells the window why."""
        self._plan = plan
        self._readers = readers
        self._assembler = assembler
        self._engine = engine
        self._session = engine.session()
        self._lock = threading.Lock()  # around the three below
        self._successors: list[FusionEngine] = []
        self._closed = False
        self._marker: int | None = None  # set since the last estimate
        self._hop = 1  # of live mode, the next one due; kept over a restart
        self._publisher = publisher
        self._conditions = conditions
        self._clock = clock
        self._health = health
        self._newest_ns: int | None = None  # newest capture time that any packet spoke of
        self._traces: dict[str, deque[Trace]] = {modality: deque() for modality in readers}
        self._observers: list[Callable[[Window], None]] = []
        self.published = 0
        for modality in MODALITIES:
            if modality not in readers:
                assembler.close(modality)

    def observe(self, observer: Callable[[Window], None]) -> None:
        """Show each window to `observer`, in the loop's thread after its estimate; before the loop runs.

        What the window holds is valid until the observer returns.
        """
        self._observers.append(observer)

    def swap(self, engine: FusionEngine) -> None:
        """Answer with this engine from the next window on, and close the one before; from any thread.

        Raises:
            ConfigurationError: the engine takes other windows than those that are cut here, or the loop is
                closed; then it is still the caller's.
        """
        mine, its = self._engine, engine
        for what, one, other in (
            ("shapes", mine.shapes, its.shapes),
            ("modalities", mine.modalities, its.modalities),
            ("spans", dict(mine.header.spans_s), dict(its.header.spans_s)),
        ):
            if one != other:
                raise ConfigurationError(
                    f"the checkpoint cannot take over: its {what} are {other}, those of the one that runs "
                    f"{one}; start anew with it"
                )
        with self._lock:
            if self._closed:
                raise ConfigurationError("the engine has ended; start another one with the checkpoint")
            self._successors.append(engine)

    def mark(self, number: int) -> None:
        """Let the next estimate carry this number; from any thread."""
        with self._lock:
            self._marker = number

    def close(self) -> None:
        """Close the engine, and those that did not come to answer; the loop must have ended."""
        with self._lock:
            self._closed = True
            engines = [*self._successors, self._engine]
            self._successors.clear()
        for engine in engines:
            engine.close()

    def __call__(self, stop: threading.Event) -> None:
        """Run in the calling thread until the media end, the duration is over, or `stop` is set."""
        if self._plan.exact:
            self._run_exact(stop)
        else:
            self._run_live(stop)

    def _run_live(self, stop: threading.Event) -> None:
        hop_ns = self._plan.hop_ns
        origin_ns = self._plan.origin_ns()
        if origin_ns is None:
            origin_ns = self._clock.now_ns()
        while self._clock.wait_until(origin_ns + self._hop * hop_ns, stop):
            missed = (self._clock.now_ns() - origin_ns) // hop_ns - self._hop
            if missed > 0:  # the machine is too slow for this hop: answer for now, not for then
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
        origin_ns = 0
        while not stop.is_set():
            if end_ns is None and self._newest_ns is not None:
                origin_ns = self._plan.origin_ns() or 0
                end_ns = origin_ns + self._plan.hop_ns
            # Only streams that lag behind the window are read, so that those ahead of it feel back-pressure.
            behind = [
                reader
                for modality, reader in self._readers.items()
                if self._assembler.progress_ns(modality) < (end_ns or 0)
            ]
            if behind:
                if not self._take(behind[0]):
                    behind[0].wait(WAIT_S)
                continue
            if end_ns is None:  # nothing but ends of streams ever came
                end_ns = origin_ns + self._plan.hop_ns
            if self.published and self._media_over(end_ns - self._plan.hop_ns):
                return
            self._emit(end_ns, origin_ns)
            if self._duration_over(end_ns, origin_ns):
                return
            end_ns += self._plan.hop_ns

    def _media_over(self, end_ns: int) -> bool:
        """Whether a window that ended there has seen all that there will ever be."""
        return self._assembler.ready(END_OF_STREAM) and end_ns >= (self._newest_ns or 0)

    def _duration_over(self, end_ns: int, origin_ns: int) -> bool:
        duration_ns = self._plan.duration_ns
        return duration_ns is not None and end_ns - origin_ns >= duration_ns

    def _drain(self, reader: PacketReader) -> None:
        while self._take(reader):
            pass

    def _take(self, reader: PacketReader) -> bool:
        packet = reader.read()
        if packet is None:
            return False
        self._newest_ns = max(self._newest_ns or packet.t_ns, packet.t_ns)
        self._assembler.add(packet)
        if not self._plan.exact and _is_shown(packet):
            self._traces[packet.topic].append(Trace.of(packet))
        return True

    def _emit(self, end_ns: int, origin_ns: int) -> None:
        self._take_over()
        with self._lock:
            marker, self._marker = self._marker, None
        traces = self._newest_traces(end_ns)
        started_ns = 0 if self._plan.exact else self._clock.now_ns()
        started = time.perf_counter_ns()
        discarded = self._assembler.discarded
        window = self._assembler.assemble(end_ns, self._conditions())
        self._health.count("window.discarded", self._assembler.discarded - discarded)
        assembled = time.perf_counter_ns()
        raw = self._session.infer(window.stream, counterfactuals=self._plan.contributions)
        inferred = time.perf_counter_ns()
        shown = np.clip(raw, 0.0, 1.0).astype(np.float64)
        sensed_ms = None
        if not self._plan.exact and window.sensed_ns is not None:
            sensed_ms = (self._clock.now_ns() - window.sensed_ns) / NS_PER_MS
        estimate = Estimate(
            t_ns=end_ns,
            progress_ns=end_ns,
            t_s=(end_ns - origin_ns) / NS_PER_S,
            wall=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            intensities=tuple(shown[0].tolist()),
            modalities=_with_contributions(window.reports, shown) if len(shown) > 1 else window.reports,
            latency=Latency(
                window=(assembled - started) / NS_PER_MS,
                fusion=(inferred - assembled) / NS_PER_MS,
                capture_to_estimate=sensed_ms,
            ),
            engine=self._engine.name,
            bundle=self._plan.bundle,
            marker=marker,
            started_ns=started_ns,
            traces=traces,
        )
        self._publisher.publish(estimate)
        self.published += 1
        self._health.count("fusion.estimates")
        for observe in self._observers:
            observe(window)

    def _take_over(self) -> None:
        """Go on with the engine that `swap` was given, if any."""
        with self._lock:
            successors, self._successors = self._successors, []
        for engine in successors:
            session, before = engine.session(), self._engine
            self._engine, self._session = engine, session
            before.close()

    def _newest_traces(self, end_ns: int) -> dict[Modality, Trace]:
        """Of each modality, the newest packet that the window could show; older ones are forgotten."""
        newest: dict[Modality, Trace] = {}
        for modality in MODALITIES:
            traces = self._traces.get(modality, deque())
            while len(traces) > 1 and traces[1].t_ns <= end_ns:
                traces.popleft()
            if traces and traces[0].t_ns <= end_ns:
                newest[modality] = traces[0]
        return newest


def _is_shown(packet: Packet) -> bool:
    """Whether a window can show something of it."""
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
