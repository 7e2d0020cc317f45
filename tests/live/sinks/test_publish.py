from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from emi_live.config import BusConfig
from emi_live.errors import ConfigurationError
from emi_live.ports import CurveKeys, make_pair
from emi_live.sinks.publish import HIGH_WATER_MARK, PublishSink
from tests.live.bus.packets import estimate

LOCAL = "tcp://127.0.0.1:*"


def no_keys() -> BusConfig:
    return BusConfig.model_validate({})


def with_keys(keys: CurveKeys) -> BusConfig:
    return BusConfig.model_validate(
        {"curve_public_key": keys.public.decode(), "curve_secret_key": keys.secret.decode()}
    )


@contextmanager
def opened(address: str, config: BusConfig) -> Iterator[PublishSink]:
    sink = PublishSink(address, config)
    sink.open()
    try:
        yield sink
    finally:
        sink.close()


@contextmanager
def client(
    address: str, keys: CurveKeys | None = None, topic: bytes = b"estimate"
) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        if keys is not None:
            socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret
            socket.curve_serverkey = keys.public
        socket.connect(address)
        socket.setsockopt(zmq.SUBSCRIBE, topic)
        yield socket


def idle_until(sink: PublishSink, socket: zmq.Socket[bytes], tries: int = 250) -> bool:
    """Whether something came while the sink was only idle, as between two estimates."""
    for _ in range(tries):
        sink.idle()
        if socket.poll(20):
            return True
    return False


@pytest.mark.parametrize("topic", [b"estimate", b""])
def test_a_late_subscriber_gets_the_last_estimate_before_the_next_comes(topic: bytes) -> None:
    with opened(LOCAL, no_keys()) as sink:
        sink.write(estimate(1.0))
        sink.write(estimate(1.2))
        with client(sink.address, topic=topic) as socket:
            assert idle_until(sink, socket)
            name, payload = socket.recv_multipart()
            assert name == b"estimate"
            assert json.loads(payload) == estimate(1.2).to_json()
            sink.idle()
            assert not socket.poll(50)
            sink.write(estimate(1.4))
            assert socket.poll(5000)
            assert json.loads(socket.recv_multipart()[1])["t"] == 1.4


def test_before_the_first_estimate_and_for_other_topics_there_is_nothing() -> None:
    with opened(LOCAL, no_keys()) as sink, client(sink.address, topic=b"vision") as other:
        sink.idle()
        sink.write(estimate())
        assert not idle_until(sink, other, tries=10)


def test_a_slow_client_delays_no_other() -> None:
    with opened(LOCAL, no_keys()) as sink, client(sink.address) as slow, client(sink.address) as quick:
        sink.write(estimate(0.0))
        assert idle_until(sink, quick)
        assert idle_until(sink, slow)
        while quick.poll(100):
            quick.recv_multipart()
        for index in range(10 * HIGH_WATER_MARK):
            sink.write(estimate(float(index)))
            assert quick.poll(5000)
            assert json.loads(quick.recv_multipart()[1])["t"] == index


@pytest.mark.parametrize(
    "address",
    ["tcp://0.0.0.0:5561", "tcp://*:5561", "tcp://192.0.2.1:5561", "tcp://eth0:5561", "tcp://[::]:5561"],
)
def test_an_address_that_others_can_reach_needs_keys(address: str) -> None:
    with pytest.raises(ConfigurationError, match="emi keys"):
        PublishSink(address, no_keys())
    PublishSink(address, with_keys(make_pair()))


@pytest.mark.parametrize(
    "address",
    ["", "5561", "tcp://127.0.0.1", "tcp://:5561", "tcp://127.0.0.1:x", "udp://127.0.0.1:5", "ipc://@name"],
)
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="address"):
        PublishSink(address, no_keys())


def test_with_keys_only_their_holder_gets_estimates() -> None:
    keys = make_pair()
    with (
        opened("tcp://127.0.0.1:*", with_keys(keys)) as sink,
        client(sink.address) as without,
        client(sink.address, make_pair()) as wrong,
        client(sink.address, keys) as ours,
    ):
        sink.write(estimate())
        assert idle_until(sink, ours)
        for index in range(20):
            sink.write(estimate(float(index)))
        assert not without.poll(200)
        assert not wrong.poll(200)


def test_the_error_for_an_ipv6_address_without_brackets_shows_them() -> None:
    with pytest.raises(ConfigurationError, match=r"\[::1\]:5669"):
        PublishSink("tcp://::1:5669", no_keys())


def test_the_address_has_the_port_once_it_is_bound() -> None:
    sink = PublishSink("tcp://127.0.0.1:*", no_keys())
    assert sink.address == "tcp://127.0.0.1:*"
    sink.open()
    bound = sink.address
    sink.close()
    assert int(bound.removeprefix("tcp://127.0.0.1:")) > 0


def test_an_address_in_use_is_one_clear_line_and_is_free_after_close() -> None:
    with opened(LOCAL, no_keys()) as first:
        address = first.address
        with pytest.raises(ConfigurationError, match="in use"):
            PublishSink(address, no_keys()).open()
    with opened(address, no_keys()):
        pass
    elsewhere = PublishSink("tcp://192.0.2.1:5561", with_keys(make_pair()))
    with pytest.raises(ConfigurationError, match="bound"):
        elsewhere.open()


def test_a_socket_file_is_private_and_is_never_taken_from_another_program(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/estimates"
    with opened(address, no_keys()) as sink:
        assert stat.S_IMODE((tmp_path / "estimates").stat().st_mode) == 0o600
        with pytest.raises(ConfigurationError, match="in use"):
            PublishSink(address, no_keys()).open()
        sink.write(estimate())
        with client(address) as socket:
            assert idle_until(sink, socket)
    assert not (tmp_path / "estimates").exists()


def test_localhost_and_the_ipv6_loopback_need_no_keys() -> None:
    PublishSink("tcp://localhost:5561", no_keys())
    PublishSink("tcp://[::1]:5561", no_keys())
