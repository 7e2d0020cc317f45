"""Platform for Situated Intelligence: two frames as its `NetMQSource` takes them, by another MessagePack."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack
import pytest
import zmq

from emi_live.errors import ConfigurationError
from emi_live.sinks.peers import open_peer
from emi_models import EMOTIONS
from tests.support.peers import show
from tests.support.ports import free_port

pytestmark = pytest.mark.slow


@contextmanager
def reader(port: int) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.SUB) as made:
        made.linger = 0
        made.rcvtimeo = 10_000
        made.connect(f"tcp://127.0.0.1:{port}")
        made.subscribe("")  # NetMQSource subscribes to its topic; here to all
        yield made


def read(made: zmq.Socket[bytes]) -> tuple[str, Any, int]:
    topic, payload = made.recv_multipart()  # NetMQSource refuses a third frame
    unpacked = msgpack.unpackb(payload)
    assert set(unpacked) == {"message", "originatingTime"}
    return topic.decode(), unpacked["message"], unpacked["originatingTime"]


def moment(ticks: int) -> datetime:
    """As .NET makes a DateTime of ticks."""
    return datetime(1, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks / 10)


@pytest.mark.alone
def test_a_reader_gets_emotions_states_words_and_markers_at_their_time() -> None:
    port = free_port()
    with show([f"psi:tcp://127.0.0.1:{port}"]) as running, reader(port) as made:
        running.wait_for(3)
        read(made)
        running.engine.mark("on", time.monotonic_ns() - 200_000_000)
        got = [read(made) for _ in range(40)]
    topics: dict[str, list[tuple[Any, int]]] = {}
    for topic, message, ticks in got:
        topics.setdefault(topic, []).append((message, ticks))
    assert set(topics) == {"emotions", "states", "words", "markers"}
    message, ticks = topics["emotions"][0]
    assert list(message) == list(EMOTIONS)
    (sent,) = [one for one in running.estimates if one.as_dict() == message][:1]
    wall = datetime.fromisoformat(sent.wall)
    cut = timedelta(milliseconds=1)  # `wall` has whole milliseconds
    assert -cut < wall - moment(ticks) < timedelta(seconds=1)  # capture time, before `wall`
    assert type(ticks) is int
    steps = [
        after - one for (_, one), (_, after) in zip(topics["emotions"], topics["emotions"][1:], strict=False)
    ]
    assert all(step % 1_000_000 in (0, 1, 999_999) for step in steps)  # 0.1 s in ticks
    for states, _ in topics["states"]:
        assert {"state", "used"} <= states["text"].keys() <= {"state", "used", "age_ms"}
        assert None not in states["text"].values()  # psi's reader fails at null
    assert topics["words"][0][0]["word"].startswith("w")
    ((mark, mark_ticks),) = topics["markers"]
    assert mark == {"number": 1, "label": "on"}
    marked = next(one for one in running.estimates if one.marks)
    assert (ticks - mark_ticks) * 100 == pytest.approx(sent.t_ns - marked.marks[0].t_ns, abs=2000)


def test_a_port_in_use_is_an_error_before_the_run() -> None:
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        peer = open_peer(f"psi:tcp://127.0.0.1:{port}")
        with pytest.raises(ConfigurationError, match="another port"):
            peer.bind()


@pytest.mark.parametrize("address", ["", "127.0.0.1:9001", "tcp://127.0.0.1", "tcp://0.0.0.0:9001"])
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="psi:"):
        open_peer(f"psi:{address}")
