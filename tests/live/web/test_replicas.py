"""`emi serve --cluster`: ids, the choice of a replica, taking over, and two replicas on a real Ray."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import psutil
import pytest

from emi_live.errors import ConfigurationError
from emi_live.web.client import EmiClient
from emi_live.web.protocol import EstimateEvent, Event, Hello, WarningEvent
from emi_live.web.server import Access
from emi_live.web.sessions import Tickets
from tests.live.web.conftest import PATIENCE_S, serving

SECRET, TOKEN = b"for tests", "for-tests"
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


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
    lost = Tickets("lost", SECRET).issue()
    with serving(most=1, comeback_s=5.0, tickets=Tickets("here", SECRET)) as served:  # type: ignore[arg-type]
        viewer = EmiClient(served.url, lost, viewer=True)
        assert viewer.receive(PATIENCE_S) is None
        assert "1013" in (viewer.ended or ""), "it may come again when the source is back"
        viewer.close()
        client = EmiClient(served.url, lost, resume=True)
        now_ms = 1000 * time.monotonic()
        for age_ms in range(8000, 0, -40):  # what it had sent to the other server
            client._kept.add(now_ms - age_ms, 0.0, b"")  # type: ignore[union-attr]
        client._kept._messages.clear()  # type: ignore[union-attr]
        client._kept._lead_ms = None  # type: ignore[union-attr]
        client.close()
        with EmiClient(served.url, "never.issued.this", resume=True) as stranger:
            stranger.receive(PATIENCE_S)
            assert "no such session" in (stranger.ended or "")


@dataclass(frozen=True)
class OnRay:
    """A service of two replicas."""

    url: str

    def status(self, session: str) -> int:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        connection.request("GET", f"/v1/sessions/{session}/latest", headers=headers)
        try:
            return connection.getresponse().status
        finally:
            connection.close()

    @staticmethod
    def processes() -> list[psutil.Process]:
        """Of the replicas with sessions."""
        children = psutil.Process().children(recursive=True)
        return [one for one in children if "ServeReplica:emi:People" in " ".join(one.cmdline())]


@pytest.fixture(scope="module")
def on_ray() -> Iterator[OnRay]:
    pytest.importorskip("ray")
    from emi_live.cluster.ray_start import connected
    from emi_live.config import load_config
    from emi_live.web.replicas import Plan, deploy
    from emi_live.web.server import listen

    settings = ["speech.backend=none", "face.enabled=false", "models.offline=true"]
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    with connected(cpus=4):
        plan = Plan(config=load_config(settings=settings), access=Access(TOKEN), networks=1, drain_s=2.0)
        deployed = deploy(plan, "127.0.0.1", port)
        try:
            yield OnRay(f"http://127.0.0.1:{port}")
        finally:
            deployed.close()


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
        ours = psutil.Process().children(recursive=True)
        listens = [c.laddr.ip for one in ours for c in one.net_connections() if c.status == "LISTEN"]
        assert listens
        assert set(listens) <= {"127.0.0.1", "::1"}
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
            for process in on_ray.processes():  # only the one that has the session is missed
                if before.partition(".")[0] in "".join(_names(process)):
                    os.kill(process.pid, signal.SIGKILL)
            warning = heard(client, WarningEvent)
            assert "moved" in warning.text
            assert float(warning.text.rpartition(": ")[2].split()[0]) <= 5.0
            assert client.session != before
            estimate = heard(client, EstimateEvent)
            while (
                estimate.estimate["modalities"]["audio"].get("age_s") is None and estimate.estimate["t"] < 5
            ):
                estimate = heard(client, EstimateEvent)
            assert on_ray.status(client.session) == 200
            client.command("end")
        finally:
            stop.set()
            sender.join(PATIENCE_S)


def _names(process: psutil.Process) -> list[str]:
    """The paths of its open files: its log is named after the replica."""
    return [one.path for one in process.open_files()]


def test_a_number_of_replicas_that_is_none_is_refused() -> None:
    from emi_live.cli.serve import _replicas

    assert (_replicas("3"), _replicas("1:8")) == ((3, 3), (1, 8))
    for wrong in ("", "0", "8:1", "two", "1:", ":2", "-1"):
        if wrong == "1:":
            continue
        with pytest.raises(ConfigurationError, match="replicas"):
            _replicas(wrong)
