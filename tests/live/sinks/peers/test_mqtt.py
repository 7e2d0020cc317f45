"""MQTT: what Debian's mosquitto_sub reads through Debian's mosquitto, which is killed and started again."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from emi_live.errors import ConfigurationError
from emi_live.sinks.peers import open_peer
from emi_models import EMOTIONS
from tests.support.peers import show
from tests.support.ports import free_port
from tests.support.waiting import until

pytestmark = pytest.mark.slow

BROKER = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
LISTENER = shutil.which("mosquitto_sub")

needs_broker = pytest.mark.skipif(
    BROKER is None or LISTENER is None, reason="needs apt-get install mosquitto mosquitto-clients"
)


@contextmanager
def broker(port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([str(BROKER), "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(port))
        yield process
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def listener(port: int, out: IO[str], topic: str = "#") -> Iterator[None]:
    command = [str(LISTENER), "-p", str(port), "-t", topic, "-F", "%t %r %p"]
    process = subprocess.Popen(command, stdout=out)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def heard(path: Path) -> list[tuple[str, bool, str]]:
    lines = [
        line.split(" ", 2) for line in path.read_text(encoding="utf-8").splitlines() if line.count(" ") >= 2
    ]
    return [(topic, retained == "1", payload) for topic, retained, payload in lines]


@needs_broker
def test_a_listener_reads_estimates_numbers_states_words_and_markers(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "heard"
    with (
        broker(port),
        path.open("w") as out,
        listener(port, out),
        show([f"mqtt:127.0.0.1:{port}"]) as running,
    ):
        until(lambda: any(topic == "emi-live/estimate" for topic, _, _ in heard(path)))
        running.engine.mark("on")
        until(lambda: any(topic == "emi-live/marker" for topic, _, _ in heard(path)))
        until(lambda: any(topic == "emi-live/words" for topic, _, _ in heard(path)))
        messages = heard(path)
        running.engine.close()
        until(lambda: ("emi-live/status", False, "offline") in heard(path))
    by_topic: dict[str, list[str]] = {}
    for topic, _, payload in messages:
        by_topic.setdefault(topic, []).append(payload)
    lines = [json.loads(text) for text in by_topic["emi-live/estimate"]]
    sent = {estimate.seq: estimate.to_json() for estimate in running.estimates}
    assert lines == [sent[line["seq"]] for line in lines]
    for name in EMOTIONS:
        number = float(by_topic[f"emi-live/{name}"][0])
        assert number == pytest.approx(lines[0]["intensities"][name], abs=1e-4)
    assert by_topic["emi-live/state/vision"][0] == lines[0]["modalities"]["vision"]["state"]
    assert json.loads(by_topic["emi-live/marker"][0])["label"] == "on"
    assert by_topic["emi-live/status"][0] == "online"


@needs_broker
def test_home_assistant_finds_one_sensor_an_intensity(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "heard"
    address = f"mqtt:127.0.0.1:{port}?prefix=hall/emi&discovery=ha"
    with broker(port), show([address]) as running:
        running.wait_for(6)
        with path.open("w") as out, listener(port, out, "ha/#"):  # late: discovery is retained
            until(lambda: len(heard(path)) >= len(EMOTIONS))
    found = [json.loads(payload) for _, retained, payload in heard(path) if retained]
    assert [sensor["state_topic"] for sensor in found] == [f"hall/emi/{name}" for name in EMOTIONS]
    assert len({sensor["unique_id"] for sensor in found}) == len(EMOTIONS)
    assert len({json.dumps(sensor["device"]) for sensor in found}) == 1
    for sensor in found:
        assert sensor["availability_topic"] == "hall/emi/status"
        # https://www.home-assistant.io/integrations/sensor.mqtt: what a sensor needs and what we use
        assert {"name", "unique_id", "state_topic", "state_class", "device"} <= sensor.keys()


@needs_broker
def test_a_broker_that_is_killed_and_comes_back_costs_no_estimate_of_the_engine(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "heard"
    with show([f"mqtt:127.0.0.1:{port}"]) as running:
        until(lambda: running.engine.health.status("to-mqtt").state == "failed")  # not there yet
        with broker(port) as process, path.open("w") as out, listener(port, out):
            until(lambda: any(topic == "emi-live/estimate" for topic, _, _ in heard(path)))
            process.kill()
            until(lambda: running.engine.health.status("to-mqtt").state == "failed")
        before = len(running.estimates)
        running.wait_for(before + 10)
        with broker(port), path.open("w") as out, listener(port, out):
            until(lambda: any(topic == "emi-live/estimate" for topic, _, _ in heard(path)))
            newest = json.loads(next(text for topic, _, text in heard(path) if topic == "emi-live/estimate"))
            lost, dropped = running.counter("to-mqtt.lost"), running.counter("to-mqtt.dropped")
        seqs = [estimate.seq for estimate in running.estimates]
        assert newest["seq"] > before + 5  # old ones are not sent late
    assert seqs == list(range(len(seqs)))
    assert running.counter("fusion.missed_hops") <= 2
    assert lost == 2
    assert dropped > 0


@needs_broker
def test_a_broker_that_hangs_is_left_and_the_engine_goes_on() -> None:
    """A port that takes the connection and never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with show([f"mqtt:127.0.0.1:{port}"]) as running:
            until(lambda: running.engine.health.status("to-mqtt").state == "failed")
            running.wait_for(len(running.estimates) + 3)
            began = time.monotonic()
        assert time.monotonic() - began < 5
    assert "no answer" in running.engine.health.status("to-mqtt").detail


@pytest.mark.parametrize("address", ["127.0.0.1:x", "?prefix=a/", "?prefix=a%23", "?discovery=", "?qos=1"])
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="mqtt:"):
        open_peer(f"mqtt:{address}")
