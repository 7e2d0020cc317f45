"""`emi bench live`: the whole engine at real pace, on a source or on coded light and sound, by station.

::

    capture ── arrived ── published ── started ── published ── received
       └ capture ┴ stage(s) ┴ bus ┴ window, fusion ┴ sink ┘

- capture: from the sensor until the engine has it; for sound, until its block is full;
- stage: until its packet is published, with the wait in the ring: `face`, `audio`, or `speech` and `text`;
- bus: until a window takes it: the hop over the bus, and above all the wait for the next estimate;
- window: assembling it;
- fusion: the engine, and publishing the estimate;
- sink: until a sink has it.

Every packet passes these stations once, on its way into the first estimate that contains it; they add up to
`total`. A delay in one part shows at its own station only.
"""

from __future__ import annotations

from bisect import bisect_left
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, cast

from emi_bench.flash_beep import (
    LIGHT,
    SOUND,
    CodeReading,
    EchoEngine,
    Flasher,
    find_code,
    light_and_sound,
)
from emi_bench.harness import UsageSampler, in_background
from emi_bench.live_report import TOTAL, CodeResponse, EdgeLosses, FlashBeepResult, LiveReport
from emi_bench.measurement import Distribution, Machine, load_average
from emi_bench.report import Interrupted
from emi_live import LiveConfig, LiveEngine
from emi_live.clock import NS_PER_MS, MonotonicClock, seconds_to_ns
from emi_live.errors import SourceError
from emi_live.health import Health
from emi_live.messages import END_OF_STREAM, Trace
from emi_live.pipeline import Builder
from emi_live.sinks.viewstate import losses
from emi_models import MODALITIES

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from emi_bench.flash_beep import OnOffTimes
    from emi_engine import FusionEngine
    from emi_live import Estimate
    from emi_live.health import HealthSnapshot
    from emi_live.messages import Trace
    from emi_models import Modality

__all__ = [
    "EDGES",
    "EstimateRecorder",
    "ReceivedEstimate",
    "after_warm_up",
    "distributions",
    "estimate_passage",
    "losses_by_edge",
    "measure_flash_beep",
    "measure_live",
    "passages",
    "stations_of",
]

STAGES: Final[Mapping[Modality, str]] = {"vision": "face", "audio": "audio", "text": "text"}
# In the order of the flow. A counter that is not in this table is shown under `ELSEWHERE`.
EDGES: Final[Mapping[str, tuple[str, ...]]] = {
    "camera, file → ring": (
        "file.late",
        "file.damaged",
        "video.out_of_order",
        "camera.buffered",
        "camera.damaged",
        "camera.lost",
    ),
    "microphone → ring": (
        "microphone.dropped",
        "microphone.overflows",
        "microphone.lost",
        "audio.not_finite",
    ),
    "camera → face": ("camera.overwritten", "face.skipped"),
    "ring → audio": ("audio.lost_samples", "audio.gaps"),
    "ring → speech": ("speech.lost_samples", "speech.gaps"),
    "speech → text": ("bus.transcript.dropped", "bus.transcript.refused"),
    "stages → window": (
        *(f"bus.{topic}.{what}" for topic in ("vision", "audio", "text") for what in ("dropped", "refused")),
        "window.discarded",
    ),
    "window → fusion": ("fusion.missed_hops", "fusion.late_windows"),
    "fusion → sinks": ("bus.estimate.dropped", "bus.estimate.refused"),
}
ELSEWHERE: Final = "elsewhere"
WARM_UP_S: Final = 2.0  # left out of the latencies: caches and threads settle
PACKET_WAIT_S: Final = 0.1  # longest wait for a packet before `stop` is checked


@dataclass(frozen=True, slots=True)
class ReceivedEstimate:
    """An estimate, and when a sink received it."""

    estimate: Estimate
    received_ns: int


def after_warm_up(seen: Sequence[ReceivedEstimate], warm_up_s: float) -> list[ReceivedEstimate]:
    """The estimates whose age counts: after the first seconds, and before the media ended.

    The media of a modality have ended if its evidence never changes again.
    """
    last = len(seen)
    for modality in ("vision", "audio"):
        stamps = [
            one.estimate.traces[modality].t_ns if modality in one.estimate.traces else 0 for one in seen
        ]
        if stamps and stamps[-1]:
            last = min(last, stamps.index(stamps[-1]) + 1)
    return [one for one in seen[:last] if one.estimate.t_s > warm_up_s]


def passages(
    seen: Sequence[ReceivedEstimate], modality: Modality, packets: Sequence[Trace]
) -> Iterator[tuple[ReceivedEstimate, dict[str, float]]]:
    """For each packet, the first estimate with it, and the milliseconds at each station and in `TOTAL`.

    Packets that no estimate used, or whose arrival is unknown, are left out.

    Args:
        seen: estimates, in order.
        modality: of the packets.
        packets: what its stage published, in order.
    """
    taking = [one for one in seen if modality in one.estimate.traces]
    newest = [one.estimate.traces[modality].t_ns for one in taking]  # never goes back
    for packet in packets:
        index = bisect_left(newest, packet.t_ns)
        while index < len(taking) and taking[index].estimate.started_ns < packet.published_ns:
            index += 1  # a packet before this one had the same capture time, as at a gap
        if index == len(taking) or not packet.arrived_ns:
            continue
        one = taking[index]
        times = {"capture": _ms(packet.t_ns, packet.arrived_ns)}
        if modality == "text":
            times["speech"] = _ms(packet.arrived_ns, packet.transcribed_ns)
            times["text"] = _ms(packet.transcribed_ns, packet.published_ns)
        else:
            times[STAGES[modality]] = _ms(packet.arrived_ns, packet.published_ns)
        times["bus"] = _ms(packet.published_ns, one.estimate.started_ns)
        times |= estimate_passage(one)
        times[TOTAL] = _ms(packet.t_ns, one.received_ns)
        yield one, times


def estimate_passage(one: ReceivedEstimate) -> dict[str, float]:
    """Milliseconds at the stations of an estimate: window, fusion, sink."""
    estimate = one.estimate
    return {
        "window": estimate.latency.window,
        "fusion": _ms(estimate.started_ns, estimate.published_ns) - estimate.latency.window,
        "sink": _ms(estimate.published_ns, one.received_ns),
    }


def stations_of(
    seen: Sequence[ReceivedEstimate], packets: Mapping[Modality, Sequence[Trace]], warm_up_s: float
) -> dict[Modality, dict[str, Distribution]]:
    """The distribution over packets at each station, for each modality that has any after the warm-up."""
    found: dict[Modality, dict[str, Distribution]] = {}
    for modality in MODALITIES:
        ways = passages(seen, modality, packets.get(modality, ()))
        rows = [times for one, times in ways if one.estimate.t_s > warm_up_s]
        if rows:
            found[modality] = distributions(rows)
    return found


def distributions(rows: Sequence[Mapping[str, float]]) -> dict[str, Distribution]:
    """The distribution of each column; all rows have the same names."""
    columns = {name: Distribution.of([row[name] for row in rows]) for name in (rows[0] if rows else ())}
    return {name: values for name, values in columns.items() if values is not None}


def _ms(since_ns: int, until_ns: int) -> float:
    return (until_ns - since_ns) / NS_PER_MS


def losses_by_edge(health: HealthSnapshot) -> list[EdgeLosses]:
    """Every edge with its losses, in the order of the flow; edges without a loss too."""
    counted = {loss.name: loss.count for loss in losses(health)}
    edges = [
        EdgeLosses(name, {counter: counted.pop(counter) for counter in counters if counter in counted})
        for name, counters in EDGES.items()
    ]
    return edges + ([EdgeLosses(ELSEWHERE, counted)] if counted else [])


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
    # Smoothing is left out: it delays what the estimates say, which is what is measured here.
    fusion = config.fusion.model_copy(update={"smooth_s": 0.0})
    config = _live(config.model_copy(update={"duration_s": duration_s, "fusion": fusion}))
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
    if find_spec("torch") is not None:
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
