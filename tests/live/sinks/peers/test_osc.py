"""Open Sound Control: what python-osc's server reads."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pythonosc.osc_bundle import OscBundle
from pythonosc.osc_packet import OscPacket

from emi_live.clock import NS_PER_S, offset_ns
from emi_live.errors import ConfigurationError
from emi_live.sinks.peers import open_peer
from emi_models import EMOTIONS
from tests.support.peers import show
from tests.support.waiting import until


class Ear:
    """A UDP port, and every message that came, as (time tag, address, values)."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.1)
        self.port = self.socket.getsockname()[1]
        self.heard: list[tuple[float, str, list[Any]]] = []

    def listen(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                continue
            # `OscPacket` shows the time of arrival for a tag that is past, so the bundle is read for it.
            tag = OscBundle(data).timestamp if OscBundle.dgram_is_bundle(data) else 0.0
            for timed in OscPacket(data).messages:
                self.heard.append((tag, timed.message.address, list(timed.message.params)))


@contextmanager
def ear() -> Iterator[Ear]:
    made, stop = Ear(), threading.Event()
    thread = threading.Thread(target=made.listen, args=(stop,))
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        thread.join()
        made.socket.close()


def test_a_server_reads_values_states_words_and_markers() -> None:
    with ear() as heard, show([f"osc:127.0.0.1:{heard.port}"]) as running:
        running.wait_for(8)
        running.engine.mark("on")
        until(lambda: any(address == "/emi/marker" for _, address, _ in heard.heard))
        until(lambda: any(address == "/emi/word" for _, address, _ in heard.heard))
    first = next(index for index, message in enumerate(heard.heard) if message[1] == "/emi/seq")
    sent = running.estimates[0]
    bundle = heard.heard[first : first + 10]
    values = {address: params for _, address, params in bundle}
    assert values["/emi/seq"] == [sent.seq, pytest.approx(sent.t_s, abs=1e-5)]
    for name in EMOTIONS:
        assert values[f"/emi/{name}"] == [pytest.approx(sent[name], abs=1e-6)]
    report = sent.modalities["vision"]
    assert values["/emi/state/vision"] == [report.state, report.used]
    words = [params[0] for _, address, params in heard.heard if address == "/emi/word"]
    assert words == [f"w{number}" for number in range(1, len(words) + 1)]
    assert next(params for _, address, params in heard.heard if address == "/emi/marker") == [1, "on"]


def test_the_time_tag_is_the_capture_time() -> None:
    with ear() as heard, show([f"osc:127.0.0.1:{heard.port}"]) as running:
        until(lambda: [address for _, address, _ in heard.heard].count("/emi/seq") >= 3)
        running.wait_for(3)
    tags = [tag for tag, address, _ in heard.heard if address == "/emi/seq"][:3]
    offset_s = offset_ns(time.time_ns) / NS_PER_S
    sent = [estimate.t_ns / NS_PER_S + offset_s for estimate in running.estimates[:3]]
    assert tags == pytest.approx(sent, abs=0.002, rel=0)


def test_an_avatar_of_vrchat_gets_its_parameters_as_plain_messages() -> None:
    with ear() as heard, show([f"osc:127.0.0.1:{heard.port}?preset=vrchat"]) as running:
        joys = "/avatar/parameters/EmiJoy"
        until(lambda: [address for _, address, _ in heard.heard].count(joys) >= 3)
        running.wait_for(3)
    addresses = {address for _, address, _ in heard.heard}
    names = ("Admiration", "Amusement", "Determination", "EmpathicPain", "Excitement", "Joy")
    used = ("VisionUsed", "AudioUsed", "TextUsed")
    assert addresses == {f"/avatar/parameters/Emi{name}" for name in (*names, *used)}
    joy = [params[0] for _, address, params in heard.heard if address == joys][:3]
    assert joy == pytest.approx([estimate["joy"] for estimate in running.estimates[:3]], abs=1e-6)


def test_nobody_listens_and_the_run_goes_on() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with show([f"osc:127.0.0.1:{port}"]) as running:
        running.wait_for(4)
    assert running.counter("to-osc.lost") <= 1  # the system may tell of a closed port


@pytest.mark.parametrize(
    ("address", "word"),
    [("127.0.0.1", "port"), ("127.0.0.1:9000?preset=unity", "vrchat"), ("127.0.0.1:9000?x=1", "preset")],
)
def test_an_invalid_address_is_refused(address: str, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        open_peer(f"osc:{address}")


def test_the_preset_knows_the_port_of_vrchat() -> None:
    assert "port 9000" in open_peer("osc:?preset=vrchat").where
