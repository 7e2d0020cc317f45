"""Foxglove: what a client of its WebSocket protocol reads. The viewer itself is not run here."""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any

import pytest
from websockets.sync.client import connect

from emi_live.errors import ConfigurationError
from emi_live.sinks.peers import open_peer
from emi_models import EMOTIONS
from tests.support.peers import show
from tests.support.ports import free_port
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def test_a_client_reads_values_states_words_and_markers_at_their_time() -> None:
    port = free_port()
    messages: dict[str, list[tuple[int, bytes]]] = {}
    with show([f"foxglove:{port}"]) as running:
        running.wait_for(2)
        with connect(f"ws://127.0.0.1:{port}", subprotocols=["foxglove.sdk.v1"]) as client:  # type: ignore[list-item]
            channels: dict[int, Any] = {}
            while len(channels) < 5:
                message = json.loads(client.recv(10))
                if message["op"] == "advertise":
                    channels |= {channel["id"]: channel for channel in message["channels"]}
            wanted = [{"id": number, "channelId": number} for number in channels]
            client.send(json.dumps({"op": "subscribe", "subscriptions": wanted}))
            began, marked = time.monotonic(), False
            while len(messages) < 5 or len(messages["/emi/intensities"]) < 6:
                assert time.monotonic() - began < 15
                data = client.recv(10)
                if not isinstance(data, bytes) or data[0] != 1:  # message data: ws-protocol, spec.md
                    continue
                number, at_ns = struct.unpack("<IQ", data[1:13])
                messages.setdefault(channels[number]["topic"], []).append((at_ns, data[13:]))
                if not marked:
                    marked = running.engine.mark("on") > 0
        running.wait_for(len(running.estimates) + 2)  # the client can have one before this process has it
        sent = {estimate.t_ns: estimate for estimate in running.estimates}
    offset_ns = time.time_ns() - time.monotonic_ns()
    assert {channel["encoding"] for channel in channels.values()} == {"json", "protobuf"}
    by_topic = {channel["topic"]: channel for channel in channels.values()}
    assert by_topic["/emi/markers"]["schemaName"] == "foxglove.Log"
    schema = json.loads(by_topic["/emi/intensities"]["schema"])
    assert set(schema["properties"]) == set(EMOTIONS)
    for at_ns, payload in messages["/emi/intensities"]:
        values = json.loads(payload)
        near = min(sent, key=lambda t_ns: abs(t_ns + offset_ns - at_ns))
        assert near + offset_ns == pytest.approx(at_ns, abs=5_000_000, rel=0)
        assert values == pytest.approx(sent[near].as_dict(), abs=1e-9)
    assert json.loads(messages["/emi/words"][0][1])["word"].startswith("w")
    assert json.loads(messages["/emi/states"][0][1])["vision"].keys() >= {"state", "used"}
    assert b"on" in messages["/emi/markers"][0][1]


def test_a_viewer_that_reads_nothing_delays_nothing() -> None:
    port = free_port()
    with show([f"foxglove:{port}"]) as running:
        running.wait_for(2)
        with connect(f"ws://127.0.0.1:{port}", subprotocols=["foxglove.sdk.v1"]) as client:  # type: ignore[list-item]
            client.send(json.dumps({"op": "subscribe", "subscriptions": [{"id": 1, "channelId": 1}]}))
            until(lambda: len(running.estimates) > 15)
    assert running.counter("fusion.missed_hops") <= 1
    assert running.counter("to-foxglove.dropped") == 0


def test_a_port_in_use_is_an_error_before_the_run() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        peer = open_peer(f"foxglove:{taken.getsockname()[1]}")
        with pytest.raises(ConfigurationError, match="another port"):
            peer.bind()
        peer.unbind()


@pytest.mark.parametrize("address", ["0.0.0.0:8765", "x:y"])
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="foxglove:"):
        open_peer(f"foxglove:{address}")
