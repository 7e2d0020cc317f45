"""Markers of other programs: an LSL outlet and python-osc's client set them, with their own times."""

from __future__ import annotations

import socket
import time
from typing import cast

import pytest
from pythonosc.osc_bundle_builder import OscBundleBuilder
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder
from pythonosc.udp_client import SimpleUDPClient

from emi_live import Estimate
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.messages import Mark
from emi_live.sinks.peers.marks import MarkListener
from tests.support.peers import Show, show
from tests.support.ports import free_port
from tests.support.waiting import until


def message(address: str, *values: str | int) -> OscMessage:
    builder = OscMessageBuilder(address)
    for value in values:
        builder.add_arg(value)
    return builder.build()


def ignore(label: str = "", t_ns: int | None = None, *, origin: str = "python") -> int:
    return 1


def marks(running: Show) -> list[Mark]:
    return [mark for estimate in running.estimates for mark in estimate.marks]


def test_a_stream_of_lsl_sets_markers_at_its_stamps() -> None:
    from emi_live.sinks.peers.lsl import configure

    configure(lan=False)
    import pylsl

    info = pylsl.StreamInfo("stimuli", "Markers", 1, pylsl.IRREGULAR_RATE, "string", "test-stimuli")
    outlet = pylsl.StreamOutlet(info)
    with show([]) as running, MarkListener(["lsl:stimuli"], running.engine.mark, running.engine.health):
        assert outlet.wait_for_consumers(15)
        at_s = pylsl.local_clock() - 0.4
        outlet.push_sample(["picture 7"], at_s)
        until(lambda: bool(marks(running)))
    (mark,) = marks(running)
    assert (mark.label, mark.origin) == ("picture 7", "lsl")
    ours_s = time.monotonic() - pylsl.local_clock() + at_s
    assert mark.t_ns / 1e9 == pytest.approx(ours_s, abs=0.01)


def test_messages_of_osc_set_markers_at_their_time_tag_or_on_arrival() -> None:
    port = free_port()
    listener = [f"osc:{port}"]
    with (
        show([]) as running,
        MarkListener(listener, running.engine.mark, running.engine.health),
        SimpleUDPClient("127.0.0.1", port) as client,
    ):
        before_ns = time.monotonic_ns()
        client.send(message("/marker", "go", 3))
        until(lambda: len(marks(running)) == 1)
        client.send(message("/other", "no"))
        builder = OscBundleBuilder(cast("int", time.time() - 2.0))
        builder.add_content(message("/marker", "earlier"))
        sent_ns = time.monotonic_ns()
        client.send(builder.build())
        until(lambda: len(marks(running)) == 2)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rude:
            rude.sendto(b"\xff" * 30, ("127.0.0.1", port))
        until(lambda: running.counter("marks.refused") == 1)
    first, second = marks(running)
    assert (first.label, first.origin, second.label) == ("go 3", "osc", "earlier")
    assert 0 <= first.t_ns - before_ns < 2_000_000_000
    assert second.t_ns == pytest.approx(sent_ns - 2_000_000_000, abs=20_000_000, rel=0)


def test_a_label_is_cut_and_a_time_of_another_age_is_now() -> None:
    got: list[tuple[str, int]] = []

    def mark(label: str = "", t_ns: int | None = None, *, origin: str = "python") -> int:
        got.append((label, t_ns or 0))
        return len(got)

    port = free_port()
    with MarkListener([f"osc:{port}"], mark, Health()):
        builder = OscBundleBuilder(cast("int", time.time() - 90.0))
        builder.add_content(message("/marker", "x" * 300))
        with SimpleUDPClient("127.0.0.1", port) as client:
            client.send(builder.build())
        until(lambda: bool(got))
    ((label, t_ns),) = got
    assert label == "x" * 100
    assert abs(t_ns - time.monotonic_ns()) < 10_000_000_000


@pytest.mark.parametrize("address", ["", "osc", "osc:x", "tcp:1", "osc:0.0.0.0:9001"])
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="--marks"):
        MarkListener([address], ignore, Health())


def test_a_port_in_use_is_an_error_before_the_run() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigurationError, match="another port"):
            MarkListener([f"osc:{taken.getsockname()[1]}"], ignore, Health())


def test_an_estimate_without_markers_says_nothing_of_them() -> None:
    with show([]) as running:
        running.wait_for(1)
    estimate: Estimate = running.estimates[0]
    assert "markers" not in estimate.to_json()
