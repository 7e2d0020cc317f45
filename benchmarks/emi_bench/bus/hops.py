"""Timing the bus: one packet at a time from a thread to another, and then as many as will go.

A hop runs from the publisher's stamp, before the packet is put into bytes, to the packet, checked and
decoded, in the reader's hands; both are threads of one process, as in the engine. The next packet is sent
when the one before has been read, so a hop never waits for another.
"""

from __future__ import annotations

import socket
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emi_bench.stats import percentile
from emi_bench.work import working
from emi_live.bus import Bus
from emi_live.bus.curve import make_pair
from emi_live.bus.wire import encode
from emi_live.clock import NS_PER_S, MonotonicClock
from emi_live.config import BusConfig
from emi_live.errors import ConfigurationError, StageError
from emi_live.health import Health
from emi_live.messages import end_of_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emi_live.messages import Packet

__all__ = ["TRANSPORTS", "Flood", "Hops", "measure_flood", "measure_hops"]

TRANSPORTS: Final = ("inproc", "ipc", "tcp", "tcp+curve")
WARM_UP: Final = 200  # packets before any is timed; a tenth of it where each waits for its gap
NS_PER_US: Final = 1_000
PATIENCE_S: Final = 10.0  # for one packet
ATTEMPTS: Final = 20  # to find free ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Hops:
    """Hops of one kind of packet over one transport, in microseconds."""

    transport: str
    packet: str
    bytes: int  # of the three frames
    gap_ms: float  # of idleness before each packet; 0: none
    n: int
    min_us: float
    mean_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """What comes through when a publisher sends as fast as it can, without ever waiting."""

    transport: str
    packet: str
    bytes: int
    seconds: float
    high_water_mark: int  # packets that may wait at either end
    published: int
    received: int
    dropped: int  # as the reader counts them, from gaps in the sequence

    @property
    def received_per_s(self) -> float:
        """Packets that were read, a second."""
        return self.received / self.seconds


def measure_hops(transport: str, name: str, packet: Packet, n: int, gap_s: float = 0.0) -> Hops:
    """Time `n` hops of a packet, after a warm-up.

    Raises:
        ConfigurationError: the transport cannot be had here.
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
        with working("bus-sender", send):
            for index in range(warm_up + n):
                ready.set()
                got = subscription.read() if subscription.wait(PATIENCE_S) else None
                now_ns = clock.now_ns()
                if got is None:
                    raise StageError(f"packet {index} was lost over {transport}: is the machine overloaded?")
                if index >= warm_up:
                    hops_us.append((now_ns - got.published_ns) / NS_PER_US)
    return Hops(
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
    """Publish a stage's packet without a pause for so long, and read what comes.

    Raises:
        ConfigurationError: the transport cannot be had here.
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
        with working("bus-sender", send):
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
        received=received - 1,  # the end is no packet of the flood
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
    from emi_live.bus.wire import TOPICS

    for _ in range(ATTEMPTS):
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            base = int(probe.getsockname()[1]) - TOPICS.index(topic)
        if 1024 <= base <= 65_500:
            return base
    raise ConfigurationError("no free TCP port was found on 127.0.0.1; close some programs and try again")
