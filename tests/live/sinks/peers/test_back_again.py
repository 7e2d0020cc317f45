"""A reader that goes away and comes back reads on, for the kinds whose readers come to us."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import zmq
from websockets.sync.client import connect

from tests.live.sinks.peers.test_psi import reader
from tests.support.peers import Show, show
from tests.support.ports import free_port
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def check(address: str, read_some: Callable[[], None]) -> None:
    """Read, be away for some estimates, and read again; the engine and the peer notice nothing."""
    with show([address]) as running:
        running.wait_for(2)
        read_some()
        running.wait_for(len(running.estimates) + 5)
        read_some()
        unharmed(running, address.partition(":")[0])


def unharmed(running: Show, kind: str) -> None:
    seqs = [estimate.seq for estimate in running.estimates]
    assert seqs == list(range(len(seqs)))
    assert running.counter(f"to-{kind}.lost") == 0
    assert running.counter(f"to-{kind}.dropped") == 0
    assert running.engine.health.status(f"to-{kind}").state == "running"


def test_psi() -> None:
    port = free_port()

    def read_some() -> None:
        with reader(port) as made:
            for _ in range(3):
                made.recv_multipart()

    check(f"psi:tcp://127.0.0.1:{port}", read_some)


def test_psi_a_reader_that_takes_nothing_costs_only_itself() -> None:
    port = free_port()
    with zmq.Context() as context, context.socket(zmq.SUB) as slow:
        slow.linger = 0
        slow.set_hwm(1)
        slow.connect(f"tcp://127.0.0.1:{port}")
        slow.subscribe("")
        with show([f"psi:tcp://127.0.0.1:{port}"]) as running:
            running.wait_for(15)
            unharmed(running, "psi")


def test_foxglove() -> None:
    port = free_port()

    def read_some() -> None:
        with connect(f"ws://127.0.0.1:{port}", subprotocols=["foxglove.sdk.v1"]) as client:  # type: ignore[list-item]
            while json.loads(client.recv(10))["op"] != "advertise":
                pass
            client.send(json.dumps({"op": "subscribe", "subscriptions": [{"id": 1, "channelId": 1}]}))
            until(lambda: isinstance(client.recv(10), bytes))
            client.socket.close()  # as a laptop that is closed

    check(f"foxglove:{port}", read_some)


def test_ros2() -> None:
    from cyclonedds.qos import Policy, Qos
    from cyclonedds.sub import DataReader
    from cyclonedds.topic import Topic

    from emi_live.ros2 import dds_name, messages, participant

    kind = messages()["emi_msgs/EmotionIntensities"]
    profile = Qos(Policy.Reliability.BestEffort, Policy.History.KeepLast(5))

    def read_some() -> None:
        here = participant(79, lan=False)
        made = DataReader(here, Topic(here, dds_name("/emi/again"), kind), profile)
        until(lambda: any(hasattr(one, "seq") for one in made.take(N=5)))

    check("ros2:/emi/again?domain=79", read_some)


def test_lsl_an_inlet_survives_a_restart_of_emi_live() -> None:
    """The source id is the same for every run, so an inlet finds the stream again by itself."""
    from emi_live.sinks.peers.lsl import configure

    configure(lan=False)
    import pylsl

    with show(["lsl:emi-again"]) as running:
        running.wait_for(2)
        (found,) = pylsl.resolve_byprop("name", "emi-again", 1, 10)
        inlet = pylsl.StreamInlet(found, recover=True)
        until(lambda: inlet.pull_sample(0.2)[0] is not None)
        unharmed(running, "lsl")
    ended_s = pylsl.local_clock()
    until(lambda: inlet.pull_sample(0.05)[0] is None)
    with show(["lsl:emi-again"]) as running:
        until(lambda: (inlet.pull_sample(0.2)[1] or 0.0) > ended_s, timeout_s=20)
        unharmed(running, "lsl")
    inlet.close_stream()
