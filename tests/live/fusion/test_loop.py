from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from emi_engine import EngineError, FusionEngine
from emi_engine.protocol import WindowLateError
from emi_live.clock import NS_PER_S
from emi_live.config import WindowConfig
from emi_live.errors import ConfigurationError
from emi_live.fusion_loop import FusionLoop, LoopOptions
from emi_live.health import Health
from emi_live.messages import Estimate, Packet, VisionPacket, end_of_stream
from emi_live.window import Window, WindowAssembler
from emi_models import MODALITIES, Modality
from emi_models.calibration import NONE, Calibration, IntervalTable
from emi_models.checkpoint import CheckpointHeader
from emi_models.inputs import FusionInputs, FusionShapes, InputError
from tests.support.fakes import SMALL_SHAPES, FakeClock, FakeEngine, ListReader, ListWriter

HOP_NS = NS_PER_S // 5


def face(t_s: float, lag_s: float = 0.03) -> VisionPacket:
    t_ns = round(t_s * NS_PER_S)
    return VisionPacket(
        t_ns=t_ns,
        progress_ns=t_ns,
        published_ns=t_ns + round(lag_s * NS_PER_S),
        faces=1,
        features=np.ones(SMALL_SHAPES.vision_dim, np.float32),
    )


def run(
    packets: Iterable[Packet],
    *,
    exact: bool,
    clock: FakeClock | None = None,
    duration_s: float | None = None,
    readers: Mapping[Modality, ListReader] | None = None,
    cost_ns: int = 0,
) -> tuple[list[Estimate], Health]:
    """All estimates from vision packets alone."""
    clock = clock or FakeClock()
    health, writer = Health(), ListWriter()
    options = LoopOptions(
        hop_ns=HOP_NS,
        exact=exact,
        origin_ns=lambda: 0,
        duration_ns=None if duration_s is None else round(duration_s * NS_PER_S),
        bundle="compact",
    )
    loop = FusionLoop(
        options,
        readers or {"vision": ListReader(packets, None if exact else clock)},
        WindowAssembler(WindowConfig(length_s=2.0), SMALL_SHAPES, frozenset(MODALITIES)),
        FakeEngine(clock=clock, cost_ns=cost_ns),
        writer,
        dict,
        clock,
        health,
    )
    loop(threading.Event())
    assert loop.published == len(writer.packets)
    return [packet for packet in writer.packets if isinstance(packet, Estimate)], health


def clip(seconds: float, end_s: float | None = None) -> list[Packet]:
    frames: list[Packet] = [face(i / 10) for i in range(round(seconds * 10) + 1)]
    last = frames[-1].t_ns
    return [*frames, msgspec.structs.replace(end_of_stream("vision", last), published_ns=last + 50_000_000)]


@pytest.mark.parametrize("exact", [True, False])
def test_a_clip_gives_one_estimate_per_hop_until_its_end(exact: bool) -> None:
    estimates, _ = run(clip(2.0), exact=exact)
    times = [round(e.t_s, 3) for e in estimates]
    assert times[:10] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0]
    assert len(times) == (10 if exact else 11)  # live learns of the end one hop later
    assert all(e.intensities == pytest.approx((1 / 3,) * 6) for e in estimates)


def test_a_clip_shorter_than_a_hop_still_gets_an_answer() -> None:
    estimates, _ = run([face(0.0), end_of_stream("vision")], exact=True)
    assert [round(e.t_s, 3) for e in estimates] == [0.2]


def test_live_latency_runs_from_the_capture_of_the_newest_frame() -> None:
    estimates, _ = run(clip(1.0), exact=False, cost_ns=7_000_000)
    # At each tick the newest frame that has arrived is the one captured 100 ms before, and fusion takes 7 ms.
    assert [e.latency.capture_to_estimate for e in estimates[1:3]] == [pytest.approx(107), pytest.approx(107)]


def test_an_estimate_has_the_times_of_its_newest_evidence_at_each_station() -> None:
    late = 30_000_000  # a packet is published so long after its capture
    estimates, _ = run(
        [msgspec.structs.replace(packet, arrived_ns=packet.t_ns + 5) for packet in clip(1.0)],
        exact=False,
        cost_ns=7_000_000,
    )
    for estimate in estimates[1:3]:
        shown = estimate.traces["vision"]
        assert estimate.t_ns - shown.t_ns == 100_000_000  # the newest that had been published by then
        assert (shown.arrived_ns, shown.published_ns) == (shown.t_ns + 5, shown.t_ns + late)
        assert estimate.started_ns == estimate.t_ns
        assert set(estimate.traces) == {"vision"}


def test_a_packet_newer_than_the_window_is_not_its_evidence() -> None:
    early = [
        face(0.1, lag_s=0.0),
        msgspec.structs.replace(face(0.25), published_ns=0),
        end_of_stream("vision", NS_PER_S),
    ]
    estimates, _ = run(early, exact=False)
    assert [e.traces["vision"].t_ns / NS_PER_S for e in estimates[:2]] == [0.1, 0.25]


def test_exact_has_no_traces_either() -> None:
    estimates, _ = run(clip(1.0), exact=True)
    assert {(e.started_ns, len(e.traces)) for e in estimates} == {(0, 0)}


def test_exact_has_no_latency_since_capture_times_are_the_file_s() -> None:
    estimates, _ = run(clip(1.0), exact=True)
    assert {e.latency.capture_to_estimate for e in estimates} == {None}


def test_an_engine_slower_than_the_hop_skips_to_now_and_counts_what_it_missed() -> None:
    estimates, health = run(clip(4.0), exact=False, cost_ns=round(2.5 * HOP_NS))
    gaps = np.diff([e.t_s for e in estimates])
    assert gaps.min() > 0.2
    counters = health.snapshot().counters
    assert counters["fusion.missed_hops"] + counters["fusion.estimates"] >= 20


class Failing(FakeEngine):
    """Fails at its third window, once."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.asked = 0

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        self.asked += 1
        if self.asked == 3:
            raise InputError("a passing trouble")
        return super().infer(window)


def test_a_loop_that_is_run_again_goes_on_where_it_was() -> None:
    clock, health, writer = FakeClock(), Health(), ListWriter()
    engine = Failing(clock)
    loop = FusionLoop(
        LoopOptions(hop_ns=HOP_NS, exact=False, origin_ns=lambda: 0, duration_ns=NS_PER_S, bundle="compact"),
        {"vision": ListReader(clip(5.0), clock)},
        WindowAssembler(WindowConfig(length_s=2.0), SMALL_SHAPES, frozenset(MODALITIES)),
        engine,
        writer,
        dict,
        clock,
        health,
    )
    with pytest.raises(InputError):
        loop(threading.Event())
    loop(threading.Event())
    times = [round(packet.t_ns / NS_PER_S, 1) for packet in writer.packets]
    assert times == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert health.snapshot().counters.get("fusion.missed_hops", 0) == 0
    successor = FakeEngine()
    loop.swap(successor)  # which never comes to answer
    loop.close()
    assert engine.closed
    assert successor.closed
    with pytest.raises(ConfigurationError, match="ended"):
        loop.swap(FakeEngine())


class Recording(FakeEngine):
    """Keeps the sizes of its windows."""

    def __init__(self, shapes: FusionShapes, uses: tuple[Modality, ...] = MODALITIES) -> None:
        super().__init__(shapes)
        self._uses = uses
        self.frames: list[int] = []

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return self._uses

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        window.check(self.shapes)
        self.frames.append(int(window.vision_mask.sum()))
        return super().infer(window)


def test_a_successor_with_other_windows_takes_over_between_two() -> None:
    """One that takes 20 video frames, then one of 5, one without vision, and one of 20 again."""
    clock, writer = FakeClock(), ListWriter()
    first = Recording(SMALL_SHAPES)
    few = Recording(replace(SMALL_SHAPES, vision_frames=5, audio_frames=70))
    deaf = Recording(replace(SMALL_SHAPES, vision_dim=9), ("audio",))
    last = Recording(SMALL_SHAPES)
    engines = [first, few, deaf, last]
    loop = FusionLoop(
        LoopOptions(hop_ns=HOP_NS, exact=False, origin_ns=lambda: 0, duration_ns=None, bundle="compact"),
        {"vision": ListReader(clip(8.0), clock)},
        WindowAssembler(WindowConfig(length_s=2.0), SMALL_SHAPES, frozenset(MODALITIES)),
        first,
        writer,
        dict,
        clock,
        Health(),
    )

    def swap(window: Window) -> None:
        if len(writer.packets) % 10 == 0 and len(writer.packets) < 40:
            loop.swap(engines[len(writer.packets) // 10])

    loop.observe(swap)
    loop(threading.Event())
    assert [len(engine.frames) for engine in engines[:3]] == [10, 10, 10]
    assert len(writer.packets) == 41
    assert max(first.frames) == 19
    assert set(few.frames) == {5}
    assert last.frames[:3] == [0, 2, 4]  # video frames are kept again once they are used again
    assert [engine.closed for engine in engines] == [True, True, True, False]
    used = [packet.modalities["vision"].used for packet in writer.packets if isinstance(packet, Estimate)]
    assert used == [True] * 20 + [False] * 11 + [True] * 10


class Broken(FakeEngine):
    """Fails at every window from the third on, by an error or by its values."""

    name = "broken"

    def __init__(self, how: str, works: int = 2) -> None:
        super().__init__()
        self.how, self.works, self.asked = how, works, 0

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        self.asked += 1
        answer = super().infer(window)
        if self.asked > self.works:
            if self.how == "raises":
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            answer[0, 3] = np.nan if self.how == "nan" else np.inf
        return answer


def broken_run(engine: Broken, successors: list[FusionEngine]) -> tuple[FusionLoop, ListWriter, Health]:
    health, writer = Health(), ListWriter()

    def fallback(failed: FusionEngine, error: Exception) -> FusionEngine | None:
        return successors.pop(0) if successors else None

    loop = FusionLoop(
        LoopOptions(hop_ns=HOP_NS, exact=True, origin_ns=lambda: 0, duration_ns=NS_PER_S, bundle="compact"),
        {"vision": ListReader(clip(5.0))},
        WindowAssembler(WindowConfig(length_s=2.0), SMALL_SHAPES, frozenset(MODALITIES)),
        engine,
        writer,
        dict,
        FakeClock(),
        health,
        fallback,
    )
    return loop, writer, health


@pytest.mark.parametrize("how", ["raises", "nan", "inf"])
def test_an_engine_that_keeps_failing_is_replaced_and_no_hop_is_lost(how: str) -> None:
    first, second, last = Broken(how), Broken(how, works=0), FakeEngine()
    loop, writer, health = broken_run(first, [second, last])
    loop(threading.Event())
    estimates = [packet for packet in writer.packets if isinstance(packet, Estimate)]
    assert [round(estimate.t_s, 1) for estimate in estimates] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert [estimate.engine for estimate in estimates] == ["broken", "broken", "fake", "fake", "fake"]
    assert all(np.isfinite(estimate.intensities).all() for estimate in estimates)
    assert (first.asked, second.asked) == (2 + 3, 3)
    assert first.closed
    assert second.closed
    assert health.snapshot().counters["fusion.engine_failures"] == 6


@pytest.mark.parametrize("how", ["raises", "nan"])
def test_the_last_engine_s_failure_ends_the_loop_and_publishes_nothing_of_it(how: str) -> None:
    loop, writer, _ = broken_run(Broken(how), [])
    with pytest.raises((RuntimeError, EngineError), match=r"illegal|finite"):
        loop(threading.Event())
    assert len(writer.packets) == 2


@pytest.mark.parametrize("exact", [True, False])
def test_duration_ends_the_run(exact: bool) -> None:
    estimates, _ = run(clip(5.0), exact=exact, duration_s=1.0)
    assert [round(e.t_s, 3) for e in estimates] == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_exact_leaves_streams_that_are_ahead_in_their_queue() -> None:
    """Back-pressure: a stream is read only as far as the window needs it."""
    vision, audio = ListReader(clip(5.0)), ListReader()
    stop = threading.Event()

    class StopsWhenDry(ListReader):
        def wait(self, timeout_s: float) -> bool:
            stop.set()
            return False

    audio = StopsWhenDry()
    writer = ListWriter()
    loop = FusionLoop(
        LoopOptions(hop_ns=HOP_NS, exact=True, origin_ns=lambda: 0, duration_ns=None, bundle="compact"),
        {"vision": vision, "audio": audio},
        WindowAssembler(WindowConfig(length_s=2.0), SMALL_SHAPES, frozenset(MODALITIES)),
        FakeEngine(),
        writer,
        dict,
        FakeClock(),
        Health(),
    )
    loop(stop)
    assert not writer.packets
    assert len(vision._packets) > 45


def test_estimates_are_valid_json_with_the_contract_s_keys() -> None:
    estimates, _ = run(clip(1.0), exact=True)
    line = json.loads(json.dumps(estimates[-1].to_json(), allow_nan=False))
    keys = ["seq", "t", "wall", "intensities", "intervals", "modalities", "latency_ms", "engine", "bundle"]
    assert list(line) == [*keys, "schema", "source", "session"]
    assert line["schema"] == 1
    assert line["modalities"]["vision"] == {"state": "live", "used": True, "age_ms": 0.0, "frames": 11}
    assert line["modalities"]["text"]["committed"] == ""
    assert line["t"] == 1.0


class Calibrated(FakeEngine):
    """A fake engine whose checkpoint is calibrated for faces."""

    @property
    def header(self) -> CheckpointHeader:
        tables = {
            name: {"joy": IntervalTable((), (width,), (width,), 100)}
            for name, width in (("vision", 0.1), (NONE, 0.5))
        }
        return replace(super().header, calibration=Calibration(tables).to_json())


def estimates_of(engine: FusionEngine, smooth_s: float = 0.0) -> list[Estimate]:
    """Of a face that is seen for a second, and then for two seconds more not."""
    writer, clock = ListWriter(), FakeClock()
    options = LoopOptions(
        hop_ns=HOP_NS,
        exact=True,
        origin_ns=lambda: 0,
        duration_ns=3 * NS_PER_S,
        bundle="compact",
        smooth_s=smooth_s,
    )
    packets: list[Packet] = [face(0.04 * n) for n in range(1, 26)]
    packets += [msgspec.structs.replace(face(0.04 * n), faces=0, features=None) for n in range(26, 80)]
    loop = FusionLoop(
        options,
        {"vision": ListReader([*packets, end_of_stream("vision")], None)},
        WindowAssembler(WindowConfig(length_s=2.0), SMALL_SHAPES, frozenset(MODALITIES)),
        engine,
        writer,
        dict,
        clock,
        Health(),
    )
    loop(threading.Event())
    return [packet for packet in writer.packets if isinstance(packet, Estimate)]


def test_intervals_widen_while_a_face_is_lost_and_are_widest_without_it() -> None:
    found = estimates_of(Calibrated())
    bounds = [estimate.intervals[5] for estimate in found if estimate.intervals is not None]
    widths = [high - low for low, high in filter(None, bounds)]
    assert len(widths) == len(found)
    assert widths[2] == pytest.approx(0.2)
    lost = [estimate.modalities["vision"].used for estimate in found].index(False)
    assert widths[3] == pytest.approx(0.2)
    assert widths[lost - 1] > 2 * widths[3]
    assert widths[lost:] == pytest.approx([0.5] * (len(widths) - lost))  # from 0: nothing is there
    assert all(estimate.intervals is not None and estimate.intervals[0] is None for estimate in found)
    assert found[0].to_json()["intervals"]["joy"] is not None


def test_without_a_calibration_there_is_no_interval() -> None:
    found = estimates_of(FakeEngine())
    assert {estimate.intervals for estimate in found} == {None}
    assert found[0].to_json()["intervals"] is None


def test_smoothing_makes_the_step_smaller_when_a_face_goes() -> None:
    def largest_step(smooth_s: float) -> float:
        values = [estimate.intensities[5] for estimate in estimates_of(FakeEngine(), smooth_s)]
        return float(np.abs(np.diff(values)).max())

    assert largest_step(1.0) < 0.9 * largest_step(0.0)


class Busy(FakeEngine):
    """Is busy with the windows of others at each third window."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.asked = 0

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        self.asked += 1
        if self.asked % 3 == 0:
            raise WindowLateError("busy until the deadline")
        return super().infer(window)


def test_a_window_that_a_shared_engine_drops_is_left_out_and_its_marker_comes_with_the_next() -> None:
    clock, health, writer = FakeClock(), Health(), ListWriter()
    loop = FusionLoop(
        LoopOptions(hop_ns=HOP_NS, exact=False, origin_ns=lambda: 0, duration_ns=NS_PER_S, bundle="compact"),
        {"vision": ListReader(clip(5.0), clock)},
        WindowAssembler(WindowConfig(length_s=2.0), SMALL_SHAPES, frozenset(MODALITIES)),
        Busy(clock),
        writer,
        dict,
        clock,
        health,
    )
    loop.observe(lambda window: None if window.end_ns != 2 * HOP_NS else loop.mark(7, label="seen"))
    loop(threading.Event())
    estimates = [packet for packet in writer.packets if isinstance(packet, Estimate)]
    assert [round(e.t_s, 1) for e in estimates] == [0.2, 0.4, 0.8, 1.0]
    assert [[mark.number for mark in e.marks] for e in estimates] == [[], [], [7], []]
    counters = health.snapshot().counters
    assert counters["fusion.late_windows"] == 1
    assert "fusion.engine_failures" not in counters
