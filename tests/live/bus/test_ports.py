"""Bound ports: CURVE keys, and clients that are too many, send too much, nothing, or no ZeroMQ at all."""

from __future__ import annotations

import resource
import socket as sockets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq

from emi_live import wire
from emi_live.bus import Bus
from emi_live.config import BusConfig
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.ports import MAX_CLIENTS, Context, CurveKeys, KeyGate, make_pair
from emi_live.sinks.publish import PublishSink
from tests.live.bus.packets import estimate, vision
from tests.live.bus.test_bus import config, running

FLOOD = 2_000_000  # subscriptions of 12 bytes, where the connection is not cut before
MIB = 1 << 20


def keyed(keys: CurveKeys, **settings: object) -> BusConfig:
    pair = {"curve_public_key": keys.public.decode(), "curve_secret_key": keys.secret.decode()}
    return config("tcp", **pair, **settings)


@contextmanager
def outsider(address: str, client: CurveKeys | None, server: bytes | None) -> Iterator[zmq.Socket[bytes]]:
    """A subscriber of another program that presents `client` and expects a server with the key `server`."""
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        if client is not None and server is not None:
            socket.curve_publickey, socket.curve_secretkey = client.public, client.secret
            socket.curve_serverkey = server
        socket.connect(address)
        socket.setsockopt(zmq.SUBSCRIBE, b"vision")
        yield socket


def test_only_who_has_our_keys_gets_anything() -> None:
    keys, others = make_pair(), make_pair()
    settings = keyed(keys)
    with Bus(settings, Health(), lossless=False) as bus:
        publisher, inside = bus.publisher("vision"), bus.subscriber("vision")
        address = f"tcp://127.0.0.1:{settings.base_port}"
        with (
            outsider(address, None, None) as without_keys,
            outsider(address, others, keys.public) as with_wrong_key,
            outsider(address, others, others.public) as with_wrong_pair,
            outsider(address, keys, keys.public) as ours,
        ):
            count, received = 0, -1
            while not ours.poll(20):  # until it has joined; the others connect at the same time
                publisher.publish(vision(count))
                count += 1
                assert count < 500
            for _ in range(50):
                publisher.publish(vision(count))
                count += 1
            while received != count - 1:
                assert ours.poll(5000)
                received = wire.decode(ours.recv_multipart()).seq
            for refused in (without_keys, with_wrong_key, with_wrong_pair):
                assert not refused.poll(200)
        assert inside.wait(5.0)
        assert inside.read() is not None


def test_without_the_gate_nobody_gets_in() -> None:
    keys = make_pair()
    with zmq.Context() as context, context.socket(zmq.XPUB) as server:
        keys.guard(server)
        port = server.bind_to_random_port("tcp://127.0.0.1")
        with outsider(f"tcp://127.0.0.1:{port}", keys, keys.public):
            assert not server.poll(300)


def test_the_gate_refuses_what_is_not_a_request_of_ours_and_ends_its_thread() -> None:
    keys = make_pair()
    before = threading.active_count()
    with Context() as context:
        gate = KeyGate(context, keys)
        with context.socket(zmq.REQ) as peer:
            peer.linger = 0
            peer.connect("inproc://zeromq.zap.01")
            for request in (
                [b""],
                [b"1.0", b"1", b"emi-live", b"", b"", b"NULL"],
                [b"1.0", b"1", b"emi-live", b"", b"", b"PLAIN", b"user", b"password"],
                [b"1.0", b"1", b"emi-live", b"", b"", b"CURVE", b"x" * 32],
            ):
                peer.send_multipart(request)
                assert peer.poll(5000)
                assert peer.recv_multipart()[2] == b"400"
        gate.close()
    assert threading.active_count() == before


def test_starting_and_stopping_leaves_no_thread() -> None:
    keys = make_pair()
    settings = keyed(keys)
    before = threading.active_count()
    for _ in range(5):
        with Bus(settings, Health(), lossless=True) as bus:
            publisher, reader = bus.publisher("vision"), bus.subscriber("vision")
            with running(lambda p=publisher: p.publish(vision())):  # type: ignore[misc] # bound now, on purpose
                assert reader.wait(5.0)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("public", "secret", "message"),
    [
        ("a" * 40, None, "curve_secret_key"),
        (None, "a" * 40, "curve_public_key"),
        ("short", "shorter", "emi keys"),
        ("ä" * 40, "a" * 40, "emi keys"),
        (make_pair().public.decode(), make_pair().secret.decode(), "belong"),
    ],
    ids=["no secret", "no public", "short", "not ASCII", "of two pairs"],
)
def test_keys_that_cannot_work_are_refused(public: str | None, secret: str | None, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Bus(config("tcp", curve_public_key=public, curve_secret_key=secret), Health(), lossless=True)


def test_a_secret_key_is_not_shown() -> None:
    keys = make_pair()
    assert keys.secret.decode() not in repr(keys)
    assert keys.secret.decode() not in str(keys)


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


def cut_off(health: Health, name: str = "publish") -> int:
    return health.snapshot().counters.get(f"{name}.refused", 0)


def gets(sink: PublishSink, subscriber: zmq.Socket[bytes]) -> bool:
    sink.write(estimate())
    return bool(subscriber.poll(20))


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with Context() as context:
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
    received = b""
    while b"READY" not in received:  # what comes before is no subscription yet, and ends the connection
        received += flood.recv(1000)
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
        assert until(lambda: cut_off(health) == 1, sink)
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
        assert until(lambda: cut_off(health) >= 11, sink)
        assert gets(sink, honest)


@pytest.mark.slow
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
    settings = config("tcp")
    with Bus(settings, health, lossless=False) as bus:
        subscription, publisher = bus.subscriber("vision"), bus.publisher("vision")
        with plain(f"tcp://127.0.0.1:{settings.base_port}") as flood:
            subscribe_until_cut(flood)
        for _ in range(500):
            if cut_off(health, "bus.vision"):
                break
            threading.Event().wait(0.02)
        assert cut_off(health, "bus.vision") == 1
        assert publisher.topic in subscription.topics
