"""Each fake keeps the promises of what it stands for: clock, engine, and both ends of the bus."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from emi_engine import FusionEngine, load_engine
from emi_live.bus import Bus, PacketReader
from emi_live.clock import Clock, MonotonicClock
from emi_live.config import BusConfig
from emi_live.health import Health
from emi_live.messages import Packet, VisionPacket, end_of_stream
from emi_models import MODALITIES, Modality
from emi_models.checkpoint import packaged_checkpoint
from emi_models.inputs import FusionInputs
from tests.support.fakes import FakeClock, FakeEngine, ListReader, ListWriter

MS = 1_000_000


@pytest.fixture(params=[FakeClock, MonotonicClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


def test_a_clock_goes_forward_and_has_arrived_when_it_says_so(clock: Clock) -> None:
    stop, start_ns = threading.Event(), clock.now_ns()
    assert clock.wait_until(start_ns + MS, stop)
    assert clock.now_ns() >= start_ns + MS
    assert clock.wait_until(start_ns, stop)


def test_a_clock_does_not_wait_once_stopped(clock: Clock) -> None:
    stop, start_ns = threading.Event(), clock.now_ns()
    stop.set()
    assert not clock.wait_until(start_ns + 3_600_000 * MS, stop)
    assert not clock.wait_until(start_ns, stop)


@pytest.fixture(
    params=[
        FakeEngine,
        lambda: load_engine(packaged_checkpoint("compact"), "torch"),
        lambda: load_engine(packaged_checkpoint("compact"), "onnxruntime"),
    ],
    ids=["fake", "torch", "onnxruntime"],
)
def engine(request: pytest.FixtureRequest) -> Iterator[FusionEngine]:
    make: Callable[[], FusionEngine] = request.param
    with make() as made:
        yield made


@pytest.mark.parametrize("batch", [1, 3])
def test_an_engine_gives_six_finite_numbers_a_row_and_keeps_nothing(engine: FusionEngine, batch: int) -> None:
    window = FusionInputs.empty(engine.shapes, batch)
    first, second = engine.infer(window), engine.infer(window)
    assert first.shape == (batch, 6)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert np.array_equal(first, second)
    first[:] = 9
    assert not np.array_equal(engine.infer(window), first)


def test_an_engine_names_itself_and_can_be_closed_twice(engine: FusionEngine) -> None:
    assert engine.name
    engine.close()
    engine.close()


def test_an_engine_names_the_modalities_that_change_its_answer(engine: FusionEngine) -> None:
    empty = engine.infer(FusionInputs.empty(engine.shapes))
    used = [name for name in MODALITIES if not np.array_equal(engine.infer(with_only(engine, name)), empty)]
    assert tuple(used) == engine.modalities


def with_only(engine: FusionEngine, modality: Modality) -> FusionInputs:
    """A window of ones in which this modality alone is present."""
    window = FusionInputs.empty(engine.shapes)
    getattr(window, modality).fill_(1.0)
    getattr(window, f"{modality}_present").fill_(True)
    if modality != "text":
        getattr(window, f"{modality}_mask").fill_(True)
    return window


def packets() -> list[Packet]:
    return [
        *(VisionPacket(t_ns=t, progress_ns=t, faces=0, features=None) for t in range(3)),
        end_of_stream("vision", 3),
    ]


@pytest.mark.parametrize("real", [False, True], ids=["fake", "bus"])
def test_what_is_written_is_read_in_order_and_ends(real: bool) -> None:
    with Bus(BusConfig(), Health(), lossless=True) as bus:
        if real:
            reader = bus.subscriber("vision")
            writer = bus.publisher("vision")
            for packet in packets():
                writer.publish(packet)
            read = _drain(reader)
        else:
            kept = ListWriter()
            for packet in packets():
                kept.publish(packet)
            fake = ListReader(kept.packets)
            read = _drain(fake)
            assert fake.ended
    assert [packet.t_ns for packet in read] == [0, 1, 2, 3]


def _drain(reader: PacketReader) -> list[Packet]:
    read: list[Packet] = []
    while not reader.ended and reader.wait(5.0):
        packet = reader.read()
        if packet is not None:
            read.append(packet)
    assert reader.read() is None
    return read
