"""The whole engine at real pace, on a source or on light and sound in a code, and the report of the run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, cast

from emi_bench.background import UsageSampler, in_background
from emi_bench.live.flash_beep import (
    LIGHT,
    SOUND,
    CodeReading,
    EchoEngine,
    Flasher,
    find_code,
    light_and_sound,
)
from emi_bench.live.report import CodeResponse, FlashBeepResult, LiveReport
from emi_bench.live.stations import (
    ReceivedEstimate,
    after_warm_up,
    distributions,
    estimate_passage,
    losses_by_edge,
    stations_of,
)
from emi_bench.machine import Machine, load_average
from emi_bench.report_file import Interrupted
from emi_bench.stats import Distribution
from emi_live import LiveConfig, LiveEngine
from emi_live.clock import MonotonicClock, seconds_to_ns
from emi_live.errors import SourceError
from emi_live.health import Health
from emi_live.messages import END_OF_STREAM, Trace
from emi_live.pipeline import Builder
from emi_models import MODALITIES

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from emi_bench.live.flash_beep import OnOffTimes
    from emi_engine import FusionEngine
    from emi_live import Estimate
    from emi_models import Modality

__all__ = ["EstimateRecorder", "measure_flash_beep", "measure_live"]

WARM_UP_S: Final = 2.0  # left out of the latencies: caches and threads settle
PACKET_WAIT_S: Final = 0.1  # longest wait for a packet before `stop` is checked


class EstimateRecorder:
    """A sink that keeps each estimate and when it was received."""

    name = "recorder"
    finished = False

    def __init__(self) -> None:
        self.seen: list[ReceivedEstimate] = []  # complete when the engine is closed
        self._clock = MonotonicClock()

    def open(self) -> None:
        """There is nothing to open."""

    def write(self, estimate: Estimate) -> None:
        """Keep the estimate."""
        self.seen.append(ReceivedEstimate(estimate, self._clock.now_ns()))

    def idle(self) -> None:
        """There is nothing to do."""

    def close(self) -> None:
        """There is nothing to release."""


class PacketRecorder:
    """The body of a worker that reads all packets of the stages, and keeps their stamps."""

    def __init__(self, live: LiveEngine) -> None:
        """Subscribe to an engine that is loaded and not started."""
        self.traces: dict[Modality, list[Trace]] = {modality: [] for modality in MODALITIES}
        self._reader = live.subscribe(MODALITIES)

    def __call__(self, stop: threading.Event) -> None:
        """Read in the calling thread until `stop`."""
        while not stop.is_set():
            self._reader.wait(PACKET_WAIT_S)
            while (packet := self._reader.read()) is not None:
                if packet.progress_ns != END_OF_STREAM:
                    self.traces[cast("Modality", packet.topic)].append(Trace.of(packet))


def measure_live(config: LiveConfig, on_estimate: Callable[[Estimate], None] = lambda _: None) -> LiveReport:
    """Run the engine over its source and report; a file is played at its own pace.

    Args:
        config: as for `emi-live`; `mode` is set to `live`.
        on_estimate: called with each estimate during the run.

    Raises:
        EmiError: as `LiveEngine` raises.
        SourceError: the source gave no estimate.
    """
    load_before = load_average()
    recorder, sampler = EstimateRecorder(), UsageSampler()
    live = LiveEngine(_live(config), sinks=[recorder])
    live.load()
    packets = PacketRecorder(live)
    interrupted = _run(live, packets, sampler, on_estimate)
    report = _report(live, recorder, packets, sampler, load_before, _name_of(config), None)
    if interrupted:
        raise Interrupted(report)
    return report


def _run(
    live: LiveEngine,
    packets: PacketRecorder,
    sampler: UsageSampler,
    on_estimate: Callable[[Estimate], None],
    *bodies: tuple[str, Callable[[threading.Event], None]],
) -> bool:
    """Run to the end, or to Ctrl-C; True if it was interrupted."""
    interrupted = False
    with ExitStack() as running:
        running.enter_context(live)
        watching: list[tuple[str, Callable[[threading.Event], None]]] = [
            ("packets", packets),
            ("usage", sampler),
        ]
        for name, body in (*watching, *bodies):
            running.enter_context(in_background(name, body))
        try:
            for estimate in live.estimates():
                on_estimate(estimate)
        except KeyboardInterrupt:
            interrupted = True
    return interrupted


def measure_flash_beep(
    config: LiveConfig,
    duration_s: float,
    on_estimate: Callable[[Estimate], None] = lambda _: None,
    *,
    light_stamp_error_s: float = 0.0,
    sound_stamp_error_s: float = 0.0,
) -> LiveReport:
    """Show light and sound in a code to the engine, and report how long they take to reach an estimate.

    The errors make the source give wrong capture times, for tests.

    Raises:
        EmiError: as `LiveEngine` raises.
        CodeUnreadableError: the code cannot be found in the estimates.
    """
    config = _live(config.model_copy(update={"duration_s": duration_s}))
    load_before = load_average()
    recorder, sampler, encoders = EstimateRecorder(), UsageSampler(), light_and_sound()
    parts = list(encoders.announcements)
    engine = EchoEngine(_load_engine(config, parts.append))
    live = LiveEngine(config, sinks=[recorder], engine=engine, encoders=encoders)
    live.load()
    packets = PacketRecorder(live)
    flasher = Flasher(
        live,
        duration_s,
        light_stamp_error_s=light_stamp_error_s,
        sound_stamp_error_s=sound_stamp_error_s,
    )
    interrupted = _run(live, packets, sampler, on_estimate, ("flash-beep", flasher))
    live.announcements += parts
    hop_ns = seconds_to_ns(config.window.hop_s)
    seen = after_warm_up(recorder.seen, WARM_UP_S)
    found = FlashBeepResult(
        light=_response("light", flasher.light, seen, "vision", LIGHT, hop_ns),
        sound=_response("sound", flasher.sound, seen, "audio", SOUND, hop_ns),
    )
    report = _report(live, recorder, packets, sampler, load_before, "flash and beep", found)
    if interrupted:
        raise Interrupted(report)
    return report


def _live(config: LiveConfig) -> LiveConfig:
    import torch

    torch.set_num_threads(config.fusion.threads)  # as `emi-live` does
    return config.model_copy(update={"mode": "live"})


def _load_engine(config: LiveConfig, announce: Callable[[str], None]) -> FusionEngine:
    """The engine that `emi-live` would run with these settings."""
    return Builder(config, Health(), MonotonicClock(), announce, lambda: None).load_engine()


def _response(
    what: str, times: OnOffTimes, seen: list[ReceivedEstimate], modality: Modality, place: int, hop_ns: int
) -> CodeResponse:
    readings = [
        CodeReading(
            one.estimate.intensities[place], one.estimate.published_ns, one.estimate.traces[modality].t_ns
        )
        for one in seen
        if modality in one.estimate.traces
    ]
    return find_code(what, times, readings, hop_ns)


def _report(
    live: LiveEngine,
    recorder: EstimateRecorder,
    packets: PacketRecorder,
    sampler: UsageSampler,
    load_before: float,
    source: str,
    flash_beep: FlashBeepResult | None,
) -> LiveReport:
    config, health = live.config, live.health.snapshot()
    if not recorder.seen:
        raise SourceError(f"{source} gave no estimate; is it shorter than a hop, or was it lost at once?")
    measured = after_warm_up(recorder.seen, WARM_UP_S)
    estimates = [one.estimate for one in measured]
    seconds = recorder.seen[-1].estimate.t_s
    memory = [sample.rss_mib for sample in sampler.samples]
    quarter, half = len(memory) // 4, len(memory) // 2
    return LiveReport(
        machine=Machine.here(),
        load_before=load_before,
        source=source,
        parts=live.announcements,
        hop_s=config.window.hop_s,
        window_s=config.window.length_s,
        transport=config.bus.transport,
        seconds=seconds,
        warm_up_s=WARM_UP_S,
        estimates=len(recorder.seen),
        face_frames_per_s=health.counters.get("face.frames", 0) / seconds,
        stations=stations_of(recorder.seen, packets.traces, WARM_UP_S),
        per_estimate=distributions([estimate_passage(one) for one in measured]),
        capture_to_estimate_ms=Distribution.of(
            [e.latency.capture_to_estimate for e in estimates if e.latency.capture_to_estimate is not None]
        ),
        engine_ms=Distribution.of([e.latency.fusion for e in estimates]),
        ages_ms={
            modality: ages
            for modality in MODALITIES
            if (ages := Distribution.of(_ages(estimates, modality))) is not None
        },
        edges=losses_by_edge(health),
        usage=sampler.samples,
        peak_rss_mib=max(memory, default=0.0),
        rss_growth_mib=_mean(memory[half:]) - _mean(memory[quarter:half]),
        cpu_cores=_mean([sample.cores for sample in sampler.samples]),
        flash_beep=flash_beep,
    )


def _ages(estimates: list[Estimate], modality: Modality) -> list[float]:
    reports = [estimate.modalities[modality] for estimate in estimates]
    return [report.age_ms for report in reports if report.state == "live" and report.age_ms is not None]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _name_of(config: LiveConfig) -> str:
    source = config.source
    return source.input.name if source.input is not None else f"camera {source.camera}"
