"""`emi watch` shows what each endpoint of ours publishes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from emi_live.cli.watch import READERS, Seen, read
from emi_live.config import BusConfig
from emi_live.errors import ConfigurationError, SourceError
from emi_live.sinks.publish import PublishSink
from emi_live.web.local import WebSink
from emi_models import EMOTIONS
from tests.live.sinks.peers.test_mqtt import BROKER, broker
from tests.support.peers import Show, show
from tests.support.ports import free_port

EMI = Path(sys.executable).with_name("emi")
DOMAIN = 78


@pytest.fixture(scope="module")
def published() -> Iterator[tuple[dict[str, str], Show]]:
    """The address of each kind to watch, and the one run that publishes on all of them."""
    osc, mqtt, psi, zeromq = (free_port() for _ in range(4))
    addresses = {
        "lsl": "lsl:emi-watched",
        "osc": f"osc:{osc}",
        "psi": f"psi:tcp://127.0.0.1:{psi}",
        "ros2": f"ros2:/watched?domain={DOMAIN}",
        "tcp": f"tcp://127.0.0.1:{zeromq}",
    }
    peers = [addresses["lsl"], f"osc:127.0.0.1:{osc}", addresses["psi"], addresses["ros2"]]
    publish = PublishSink(addresses["tcp"], BusConfig())
    page = WebSink("127.0.0.1:0", version="1", notice=None)
    addresses["http"] = page.url
    if BROKER is None:
        with show(peers, publish, page) as running:
            yield addresses, running
    else:
        addresses["mqtt"] = f"mqtt:127.0.0.1:{mqtt}"
        with broker(mqtt), show([*peers, addresses["mqtt"]], publish, page) as running:
            yield addresses, running


def first(address: str, running: Show) -> Seen:
    """What is seen of an endpoint once values, states, words and a marker have come."""
    stop, seen, marked = threading.Event(), Seen(), False
    for tries, seen in enumerate(read(address, stop)):
        assert tries < 400, seen
        if seen.messages >= 2 and not marked:
            marked = running.engine.mark("here") > 0
        spoken = bool(seen.words) or address.startswith(
            ("tcp", "mqtt", "http")
        )  # the test's run has no text stage
        if seen.messages >= 3 and seen.marker and spoken:
            stop.set()
    return seen


@pytest.mark.parametrize("kind", ["lsl", "osc", "psi", "ros2", "tcp", "mqtt", "http"])
def test_an_endpoint_is_shown(published: tuple[dict[str, str], Show], kind: str) -> None:
    addresses, running = published
    if kind not in addresses:
        pytest.skip("needs apt-get install mosquitto")
    seen = first(addresses[kind], running)
    assert set(seen.values) == set(EMOTIONS)
    assert all(0 <= value <= 1 for value in seen.values.values())
    assert set(seen.states) == {"vision", "audio", "text"}
    assert seen.marker == "here"


def test_every_kind_is_tested() -> None:
    assert set(READERS) == {"lsl", "osc", "psi", "ros2", "tcp", "mqtt", "ipc", "http", "https"}


def emi(*args: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONUTF8": "1"}
    return subprocess.run([str(EMI), "watch", *args], capture_output=True, text=True, env=environ, timeout=60)


@pytest.mark.slow
def test_the_command_prints_lines_or_a_picture(published: tuple[dict[str, str], Show]) -> None:
    address = published[0]["psi"]
    done = emi(address, "--lines", "--count", "2")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) >= 2
    assert set(lines[-1]["values"]) == set(EMOTIONS)
    shown = emi(address, "--count", "2")
    assert shown.returncode == 0, shown.stderr
    assert "empathic pain" in shown.stdout


@pytest.mark.slow
def test_silence_and_wrong_addresses_are_one_line_with_the_remedy() -> None:
    port = free_port()
    for args, word in (
        ((f"psi:tcp://127.0.0.1:{port}", "--wait", "0.5"), "is emi-live running"),
        ((f"http://127.0.0.1:{port}",), "cannot be reached"),
    ):
        done = emi(*args)
        assert done.returncode in (2, 3), done
        (line,) = done.stderr.strip().splitlines()[-1:]
        assert line.startswith("error: ")
        assert word in line
        assert "Traceback" not in done.stderr


def test_errors_are_those_of_users() -> None:
    with pytest.raises(ConfigurationError, match="use one of"):
        next(read("parrot:", threading.Event()))
    with pytest.raises(ConfigurationError, match="does not answer"):
        next(read(f"mqtt:127.0.0.1:{free_port()}", threading.Event()))
    with pytest.raises(ConfigurationError, match="address"):
        next(read("tcp://nowhere", threading.Event()))
    with pytest.raises(SourceError, match="reached"):
        next(read(f"http://127.0.0.1:{free_port()}", threading.Event()))
