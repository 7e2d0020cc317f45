"""Timing the bus: one packet at a time from a thread to another, and then as many as it carries.

A hop is timed from the publisher's stamp, before the packet is encoded, until the reader has the packet,
checked and decoded. Both are threads of one process, as in the engine. A packet is sent after the one before
has been read, so a hop never waits for another.
"""

from __future__ import annotations

import socket
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_bench.harness import in_background
from emi_bench.live_report import BusReport, Flood, HopTimes
from emi_bench.measurement import Machine, load_average, percentile
from emi_bench.report import Interrupted
from emi_live.bus import Bus
from emi_live.clock import NS_PER_S, MonotonicClock
from emi_live.config import BusConfig
from emi_live.errors import ConfigurationError, StageError
from emi_live.health import Health
from emi_live.messages import (
    AudioPacket,
    Estimate,
    Latency,
    ModalityReport,
    TextPacket,
    Trace,
    VisionPacket,
    end_of_stream,
)
from emi_live.ports import make_pair
from emi_live.wire import encode
from emi_models import EMOTIONS, MODALITIES
from emi_models.inputs import COMPACT_SHAPES, TAEMI_SHAPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from emi_live.messages import Packet
    from emi_models.inputs import FusionShapes

__all__ = ["TRANSPORTS", "make_packets", "measure_bus", "measure_flood", "measure_hops"]

TRANSPORTS: Final = ("inproc", "ipc", "tcp", "tcp+curve")
WARM_UP: Final = 200  # packets before any is timed; a tenth of it with gaps
NS_PER_US: Final = 1_000
PATIENCE_S: Final = 10.0  # for one packet
ATTEMPTS: Final = 20  # to find a free port
SPARSE_GAP_S: Final = 0.033  # one frame of a camera
SPARSE_SHARE: Final = 20  # with gaps, so many times fewer packets are timed
LEAST_SPARSE: Final = 20
T_NS = 1_000_000_000_000  # an ordinary capture time
AUDIO_FRAMES = 10  # 0.2 s


def measure_bus(
    transports: Sequence[str], n: int, flood_s: float, progress: Callable[[str, float, float], None]
) -> BusReport:
    """Time every kind of packet over each transport, then one with gaps, then a flood.

    Args:
        transports: names of `TRANSPORTS`.
        n: timed packets in each case.
        flood_s: seconds of each flood; 0: none.
        progress: called with what is measured, the cases done, and the number of cases.

    Raises:
        ConfigurationError: a transport is not available.
        StageError: a packet did not arrive.
        Interrupted: Ctrl-C; the report has what was measured before.
    """
    load_before = load_average()
    packets = make_packets()
    first, packet = next(iter(packets.items()))
    hops: list[HopTimes] = []
    floods: list[Flood] = []
    total = len(transports) * (len(packets) + 2)

    def report() -> BusReport:
        return BusReport(machine=Machine.here(), load_before=load_before, hops=hops, floods=floods)

    try:
        for index, transport in enumerate(transports):
            done = index * (len(packets) + 2)
            for name, each in packets.items():
                progress(f"{transport}, {name}", done, total)
                hops.append(measure_hops(transport, name, each, n))
                done += 1
            progress(f"{transport}, with gaps", done, total)
            sparse = max(LEAST_SPARSE, n // SPARSE_SHARE)
            hops.append(measure_hops(transport, first, packet, sparse, SPARSE_GAP_S))
            if flood_s:
                progress(f"{transport}, flooded", done + 1, total)
                floods.append(measure_flood(transport, first, packet, flood_s))
    except KeyboardInterrupt:
        raise Interrupted(report()) from None
    return report()


def measure_hops(transport: str, name: str, packet: Packet, n: int, gap_s: float = 0.0) -> HopTimes:
    """Time `n` hops of a packet, after a warm-up.

    Raises:
        ConfigurationError: the transport is not available.
        StageError: a packet did not arrive.
    """
    clock, health, ready, idle = MonotonicClock(), Health(), threading.Event(), threading.Event()
    warm_up = WARM_UP // 10 if gap_s else WARM_UP
    with _bus(transport, health, packet.topic) as bus:
        publisher, subscription = bus.publisher(packet.topic), bus.subscriber(packet.topic)

        def send(stop: threading.Event) -> None:
            for _ in range(warm_up + n):
                while not ready.wait(0.1):
                    if stop.is_set():
                        return
                ready.clear()
                if gap_s:
                    idle.wait(gap_s)  # never set
                publisher.publish(packet)

        hops_us = []
        with in_background("bus-sender", send):
            for index in range(warm_up + n):
                ready.set()
                got = subscription.read() if subscription.wait(PATIENCE_S) else None
                now_ns = clock.now_ns()
                if got is None:
                    raise StageError(f"packet {index} was lost over {transport}: is the machine overloaded?")
                if index >= warm_up:
                    hops_us.append((now_ns - got.published_ns) / NS_PER_US)
    return HopTimes(
        transport=transport,
        packet=name,
        bytes=_size(packet),
        gap_ms=1000 * gap_s,
        n=n,
        min_us=min(hops_us),
        mean_us=sum(hops_us) / n,
        p50_us=percentile(hops_us, 50),
        p90_us=percentile(hops_us, 90),
        p99_us=percentile(hops_us, 99),
        p999_us=percentile(hops_us, 99.9),
        max_us=max(hops_us),
    )


def measure_flood(
    transport: str, name: str, packet: Packet, seconds: float, high_water_mark: int = 1000
) -> Flood:
    """Publish a packet as fast as possible for so many seconds, and count what is read.

    Raises:
        ConfigurationError: the transport is not available.
        StageError: the end of the flood did not arrive.
    """
    clock, health = MonotonicClock(), Health()
    published = 0
    with _bus(transport, health, packet.topic, high_water_mark) as bus:
        publisher, subscription = bus.publisher(packet.topic), bus.subscriber(packet.topic)

        def send(stop: threading.Event) -> None:
            nonlocal published
            until_ns = clock.now_ns() + round(seconds * NS_PER_S)
            while not stop.is_set() and clock.now_ns() < until_ns:
                publisher.publish(packet)
                published += 1
            publisher.publish(end_of_stream(packet.topic))

        received = 0
        with in_background("bus-sender", send):
            start_ns = clock.now_ns()
            while not subscription.ended:
                if subscription.wait(PATIENCE_S) is False:
                    raise StageError(f"nothing arrives over {transport} any more: is the machine overloaded?")
                while subscription.read() is not None:
                    received += 1
            took_ns = clock.now_ns() - start_ns
    return Flood(
        transport=transport,
        packet=name,
        bytes=_size(packet),
        seconds=took_ns / NS_PER_S,
        high_water_mark=high_water_mark,
        published=published,
        received=received - 1,  # without the packet that ends the stream
        dropped=health.snapshot().counters.get(f"bus.{packet.topic}.dropped", 0),
    )


def _size(packet: Packet) -> int:
    return sum(len(frame) for frame in encode(packet))


@contextmanager
def _bus(transport: str, health: Health, topic: str, high_water_mark: int = 1000) -> Iterator[Bus]:
    settings: dict[str, object] = {
        "transport": transport.partition("+")[0],
        "high_water_mark": high_water_mark,
    }
    if transport == "tcp+curve":
        keys = make_pair()
        settings |= {"curve_public_key": keys.public.decode(), "curve_secret_key": keys.secret.decode()}
    if transport.startswith("tcp"):
        settings["base_port"] = _free_port(topic)
    with Bus(BusConfig.model_validate(settings), health, lossless=False) as bus:
        yield bus


def _free_port(topic: str) -> int:
    """A base port at which the topic's own port is free."""
    from emi_live.wire import TOPICS

    for _ in range(ATTEMPTS):
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            base = int(probe.getsockname()[1]) - TOPICS.index(topic)
        if 1024 <= base <= 65_500:
            return base
    raise ConfigurationError("no free TCP port was found on 127.0.0.1; close some programs and try again")


def make_packets() -> dict[str, Packet]:
    """One packet of each kind by name, with random values and real sizes; the first is the smallest."""
    return {
        "vision 58": _vision(COMPACT_SHAPES),
        f"audio {AUDIO_FRAMES} x {COMPACT_SHAPES.audio_dim}": _audio(COMPACT_SHAPES),
        "text 384": _text(COMPACT_SHAPES),
        "estimate": _estimate(),
        "vision 768": _vision(TAEMI_SHAPES),
        f"audio {AUDIO_FRAMES} x 1027": _audio(TAEMI_SHAPES),
    }


def _random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).random(shape, np.float32)


def _vision(shapes: FusionShapes) -> VisionPacket:
    return VisionPacket(t_ns=T_NS, progress_ns=T_NS, faces=1, features=_random(shapes.vision_dim))


def _audio(shapes: FusionShapes) -> AudioPacket:
    frames = _random(AUDIO_FRAMES, shapes.audio_dim)
    return AudioPacket(t_ns=T_NS, progress_ns=T_NS, frames=frames, last_voice_ns=T_NS)


def _text(shapes: FusionShapes) -> TextPacket:
    words = "you did an amazing job i really admire how you handled that"
    return TextPacket(
        t_ns=T_NS,
        progress_ns=T_NS,
        embedding=_random(shapes.text_dim),
        committed=words,
        partial="thank you",
        last_word_ns=T_NS,
    )


def _estimate() -> Estimate:
    words = _text(COMPACT_SHAPES)
    return Estimate(
        t_ns=T_NS,
        progress_ns=T_NS,
        t_s=8.2,
        wall="2026-01-01T12:00:00.123Z",
        intensities=tuple(float(value) for value in _random(len(EMOTIONS))),
        modalities={
            "vision": ModalityReport("live", True, 41.0, frames=30),
            "audio": ModalityReport("live", True, 20.0, frames=150),
            "text": ModalityReport("live", True, 900.0, committed=words.committed, partial=words.partial),
        },
        latency=Latency(0.4, 3.1, 57.0),
        engine="onnxruntime-cpu",
        bundle="compact",
        started_ns=T_NS,
        traces={modality: Trace(T_NS, T_NS, T_NS, T_NS) for modality in MODALITIES},
    )
