"""`emi serve --cluster`: ids, the choice of a replica, taking over, and two replicas on a real Ray."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import psutil
import pytest

from emi_live.errors import ConfigurationError
from emi_live.web.client import EmiClient
from emi_live.web.protocol import EstimateEvent, Event, Hello, WarningEvent
from emi_live.web.sessions import Tickets
from tests.live.web.conftest import PATIENCE_S, serving

SECRET, TOKEN = b"for tests", "for-tests"


def test_an_id_tells_its_server_and_none_can_be_made_up() -> None:
    one, two = Tickets("one", SECRET), Tickets("two", SECRET)
    ticket = one.issue()
    assert ticket.startswith("one.")
    assert two.foreign(ticket)
    assert not one.foreign(ticket)
    assert not Tickets("two", b"another").foreign(ticket)
    assert not any(two.foreign(wrong) for wrong in (ticket[:-1], "one.x.y", "", "one", ticket + "0"))


@dataclass(frozen=True)
class _Id:
    unique_id: str


@dataclass(frozen=True)
class _Replica:
    replica_id: _Id


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, as it is imported
def test_requests_of_a_session_go_to_its_replica_and_all_of_them_to_the_same_other_one_if_it_is_gone() -> (
    None
):
    pytest.importorskip("ray")
    from emi_live.web.replicas import ID, choose

    replicas = [_Replica(_Id(name)) for name in ("aaa", "bbb", "ccc", "ddd")]
    tickets = [Tickets("bbb", SECRET).issue() for _ in range(40)]
    for ticket in tickets:
        found = ID.search(f"\x94/v1/sessions/{ticket}/latest\x94".encode())
        assert choose(replicas, found) == [replicas[1]]
    left = [one for one in replicas if one is not replicas[1]]
    heirs = []
    for ticket in tickets:
        found = ID.search(f"/v1/sessions/{ticket}".encode())
        (heir,) = choose(left, found)
        assert choose(left[::-1], found) == [heir]
        heirs.append(heir)
    assert set(heirs) == set(left), "one replica would get all people of the lost one"
    assert choose(replicas, ID.search(b"/v1/sessions")) == replicas


def jpeg(grey: int) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((48, 64, 3), grey, np.uint8))[1].tobytes())


def send(client: EmiClient, stop: threading.Event) -> None:
    """Pictures and sound at real pace."""
    while not stop.wait(0.04):
        now_ms = 1000 * time.monotonic()
        client.send_frame(jpeg(100), now_ms)
        client.send_audio(np.zeros(640), now_ms - 40, 16_000)


def heard(client: EmiClient, kind: type[Event], within_s: float = PATIENCE_S) -> Any:
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        event = client.receive(0.2)
        assert client.ended is None, client.ended
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__} in {within_s} s")


def test_a_server_takes_over_a_session_of_another_one_with_its_last_media_and_tells_the_gap() -> None:
    stop = threading.Event()
    with (
        serving(most=1, tickets=Tickets("one", SECRET)) as one,  # type: ignore[arg-type]
        serving(most=1, tickets=Tickets("two", SECRET)) as two,  # type: ignore[arg-type]
    ):
        with EmiClient.open(one.url, resume=True) as client:
            before = client.session
            with EmiClient(two.url, before, viewer=True) as viewer:
                assert viewer.receive(PATIENCE_S) is None
                assert "1013" in (viewer.ended or ""), "it may come again when the source is here"
            sender = threading.Thread(target=send, args=(client, stop))
            sender.start()
            try:
                started_s = time.monotonic()
                while time.monotonic() - started_s < 2.5:
                    heard(client, EstimateEvent)
                client._server = two.url  # as a proxy sends it there
                one.cut()
                assert "moved" in heard(client, WarningEvent).text
                assert client.session.startswith("two.")
                with EmiClient(two.url, before, viewer=True) as viewer:
                    assert heard(viewer, Hello).session == client.session
                taken = two.sessions.running[client.session]
                heard(client, EstimateEvent)
                assert taken.counters["sound_ms"] >= 2000, "what was said before has come again"
                assert taken.counters["pictures"] >= 10
            finally:
                stop.set()
                sender.join(PATIENCE_S)
        with EmiClient(two.url, "one.issued.elsewhere", resume=True) as stranger:
            stranger.receive(PATIENCE_S)
            assert "no such session" in (stranger.ended or "")


@dataclass(frozen=True)
class OnRay:
    """A service of two replicas."""

    url: str
    pid: int

    def status(self, session: str) -> int:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        connection.request("GET", f"/v1/sessions/{session}/latest", headers=headers)
        try:
            return connection.getresponse().status
        finally:
            connection.close()

    def children(self) -> list[psutil.Process]:
        """Its processes, Ray's among them."""
        found: list[psutil.Process] = psutil.Process(self.pid).children(recursive=True)
        return found


@pytest.fixture(scope="module")
def on_ray() -> Iterator[OnRay]:
    pytest.importorskip("ray")
    command = [str(Path(sys.executable).with_name("emi")), "serve", "--cluster", "auto", "--port", "0"]
    command += ["--replicas", "2", "--networks", "1", "--token", TOKEN, "--offline"]
    command += ["--set", "speech.backend=none", "--set", "face.enabled=false"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        try:
            for line in process.stderr:
                lines.append(line)
                if found := re.search(r"open (http://\S+?)/#", line):
                    yield OnRay(found[1], process.pid)
                    break
            else:
                raise AssertionError("".join(lines))
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
    assert process.returncode == 0, rest


@pytest.mark.slow
def test_two_replicas_serve_the_same_application_and_keep_to_loopback(on_ray: OnRay) -> None:
    from emi_live.errors import SourceError

    with pytest.raises(SourceError, match="token"):
        EmiClient.open(on_ray.url)
    clients = [EmiClient.open(on_ray.url, token=TOKEN) for _ in range(4)]
    try:
        for client in clients:
            assert heard(client, Hello).session == client.session
            assert heard(client, EstimateEvent).estimate["engine"] == "onnxruntime-cpu"
        owners = [client.session.partition(".")[0] for client in clients]
        assert len(set(owners)) == 2, "new sessions go to the replica with the fewest connections"
        for client in clients * 3:  # by any proxy, to the replica that has it
            assert on_ray.status(client.session) == 200
        ours = [one.net_connections() for one in on_ray.children()]
        listens = [socket.laddr.ip for sockets in ours for socket in sockets if socket.status == "LISTEN"]
        assert listens
        assert set(listens) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    finally:
        for client in clients:
            client.command("end")
            client.close()


@pytest.mark.slow
def test_a_session_goes_on_within_five_seconds_when_its_replica_is_killed(on_ray: OnRay) -> None:
    stop = threading.Event()
    with EmiClient.open(on_ray.url, token=TOKEN, resume=True) as client:
        before = client.session
        sender = threading.Thread(target=send, args=(client, stop))
        sender.start()
        try:
            started_s = time.monotonic()
            while time.monotonic() - started_s < 2.0:
                heard(client, EstimateEvent)
            replica = next(one for one in on_ray.children() if has(one, before.partition(".")[0]))
            replica.kill()
            warning = heard(client, WarningEvent)
            assert "moved" in warning.text
            assert float(warning.text.rpartition(": ")[2].split()[0]) <= 5.0
            assert client.session != before
            heard(client, EstimateEvent)
            assert on_ray.status(client.session) == 200
            client.command("end")
        finally:
            stop.set()
            sender.join(PATIENCE_S)


def has(process: psutil.Process, replica: str) -> bool:
    """Whether a process is that replica: its log is named after it."""
    logs = [one.path for one in process.open_files()]
    return "People" in " ".join(process.cmdline()) and any(replica in path for path in logs)


def test_a_number_of_replicas_that_is_none_is_refused() -> None:
    from emi_live.cli.serve import _replicas

    assert (_replicas("3"), _replicas("1:8")) == ((3, 3), (1, 8))
    for wrong in ("", "0", "8:1", "two", ":2", "-1"):
        with pytest.raises(ConfigurationError, match="replicas"):
            _replicas(wrong)
