from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from emi_live.bus import Bus, wire
from emi_live.bus.ports import CurveKeys, KeyGate, make_pair
from emi_live.config import BusConfig
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from tests.live.bus.packets import vision
from tests.live.bus.test_bus import config, running


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
    with zmq.Context() as context:
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
