"""Strangers on a bound port: too many, too talkative, silent, or no ZeroMQ at all."""

from __future__ import annotations

import resource
import socket as sockets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq

from emi_live.bus import Bus
from emi_live.bus.ports import MAX_CLIENTS
from emi_live.config import BusConfig
from emi_live.health import Health
from emi_live.sinks.publish import PublishSink
from tests.live.bus.packets import estimate

FLOOD = 2_000_000  # subscriptions of 12 bytes, where the connection is not cut before
MIB = 1 << 20


@contextmanager
def published() -> Iterator[tuple[PublishSink, Health]]:
    health = Health()
    sink = PublishSink("tcp://127.0.0.1:*", BusConfig.model_validate({}), health)
    sink.open()
    try:
        yield sink, health
    finally:
        sink.close()


@contextmanager
def plain(address: str) -> Iterator[sockets.socket]:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    with sockets.create_connection((host, int(port)), timeout=20) as connection:
        yield connection


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def until(done: Callable[[], bool], sink: PublishSink, tries: int = 1000) -> bool:
    for _ in range(tries):
        sink.idle()
        if done():
            return True
        threading.Event().wait(0.02)
    return False


def refused(health: Health, name: str = "publish") -> int:
    return health.snapshot().counters.get(f"{name}.refused", 0)


def gets(sink: PublishSink, subscriber: zmq.Socket[bytes]) -> bool:
    sink.write(estimate())
    return bool(subscriber.poll(20))


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        yield context


@pytest.fixture
def honest(context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[zmq.Socket[bytes]]:
    with context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.setsockopt(zmq.SUBSCRIBE, b"estimate")
        yield socket


ZMTP_NULL = (
    *(b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + b"NULL" + bytes(16) + b"\x00" + bytes(31),),
    *(b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB",),
)


def subscribe_until_cut(flood: sockets.socket) -> None:
    flood.sendall(b"".join(ZMTP_NULL))
    heard = b""
    while b"READY" not in heard:  # what comes before is no subscription yet, and ends the connection
        heard += flood.recv(1000)
    for start in range(0, FLOOD, 1000):
        topics = (f"{number:09d}".encode() for number in range(start, start + 1000))
        try:
            flood.sendall(b"".join(b"\x00\x0a\x01" + topic for topic in topics))
        except ConnectionError:
            return
    pytest.fail(f"{FLOOD} subscriptions were taken")


def test_a_flood_of_subscriptions_is_cut_and_nobody_else_notices(honest: zmq.Socket[bytes]) -> None:
    with published() as (sink, health), plain(sink.address) as flood:
        honest.connect(sink.address)
        assert until(lambda: gets(sink, honest), sink)
        before = memory()
        subscribe_until_cut(flood)
        assert until(lambda: refused(health) == 1, sink)
        assert memory() - before < 64 * MIB
        while honest.poll(0):
            honest.recv_multipart()
        assert gets(sink, honest)


def test_clients_that_are_too_many_are_refused_and_the_first_are_kept(honest: zmq.Socket[bytes]) -> None:
    with published() as (sink, health), ExitStack() as open_:
        honest.connect(sink.address)
        assert until(lambda: gets(sink, honest), sink)
        for _ in range(MAX_CLIENTS + 10):
            open_.enter_context(plain(sink.address))
        assert until(lambda: refused(health) >= 11, sink)
        assert gets(sink, honest)


def test_garbage_and_a_client_that_says_nothing_leave_nothing_behind(honest: zmq.Socket[bytes]) -> None:
    with published() as (sink, _), ExitStack() as open_:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\x00", b""):
            open_.enter_context(plain(sink.address)).sendall(garbage)
        silent = open_.enter_context(plain(sink.address))
        assert until(lambda: _closed(silent), sink)
        honest.connect(sink.address)
        assert until(lambda: gets(sink, honest), sink)


def _closed(connection: sockets.socket) -> bool:
    connection.setblocking(False)
    try:
        return not connection.recv(1000)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_the_bus_on_tcp_cuts_a_flood_too() -> None:
    health = Health()
    config = BusConfig.model_validate({"transport": "tcp", "base_port": 24_570})
    with Bus(config, health, lossless=False) as bus:
        subscription, publisher = bus.subscriber("vision"), bus.publisher("vision")
        with plain("tcp://127.0.0.1:24570") as flood:
            subscribe_until_cut(flood)
        for _ in range(500):
            if refused(health, "bus.vision"):
                break
            threading.Event().wait(0.02)
        assert refused(health, "bus.vision") == 1
        assert publisher.topic in subscription.topics
