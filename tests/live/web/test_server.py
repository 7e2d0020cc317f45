"""The server with real clients over loopback: who gets in, what they get, and hostile ones."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Origin

from emi_live.errors import ConfigurationError, SourceError
from emi_live.web.access import Access, check_names
from emi_live.web.client import EmiClient
from emi_live.web.protocol import (
    PICTURE,
    Bye,
    EstimateEvent,
    Event,
    Hello,
    StateEvent,
    WarningEvent,
    decode_event,
    pack_media,
)
from emi_live.web.server import listen
from tests.live.web.conftest import PATIENCE_S, Served, serving

Headers = Mapping[str, str]
E = TypeVar("E", bound=Event)
TOKEN = "for-tests"  # noqa: S105 # it guards nothing


def request(
    served: Served, method: str, path: str, headers: Headers | None = None, body: str | None = None
) -> tuple[int, bytes, Headers]:
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
    finally:
        connection.close()


def picture() -> bytes:
    ok, data = cv2.imencode(".jpg", np.full((48, 64, 3), 128, np.uint8))
    assert ok
    return data.tobytes()


def first(client: EmiClient, kind: type[E]) -> E:
    """The next message of one kind."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        event = client.receive(PATIENCE_S)
        if isinstance(event, kind):
            return event
        assert event is not None, client.ended
    raise AssertionError(f"no {kind.__name__} came")


def test_a_session_from_the_first_picture_to_its_end(served: Served) -> None:
    with EmiClient.open(served.url) as client:
        hello = first(client, Hello)
        assert (hello.role, hello.session) == ("source", client.session)
        while first(client, StateEvent).state == "loading":
            continue
        client.command("mark")
        client.send_audio(np.zeros(1600), 0.0, 16_000)
        client.send_frame(picture(), 50.0)
        estimate = first(client, EstimateEvent)
        while "marker" not in estimate.estimate or estimate.end_ms is None:
            estimate = first(client, EstimateEvent)
        assert estimate.estimate["marker"] == 1
        assert list(estimate.estimate["intensities"]) == hello.emotions
        status, body, _ = request(served, "GET", f"/v1/sessions/{client.session}/latest")
        assert status == 200
        assert json.loads(body)["seq"] >= estimate.estimate["seq"]
        client.command("pause")
        assert first(client, StateEvent).state == "paused"
        client.command("resume")
        client.command("mute")
        while not (state := first(client, StateEvent)).muted:
            continue
        assert state.state == "running"
        client.command("end")
        assert "client" in first(client, Bye).reason
    assert request(served, "GET", f"/v1/sessions/{client.session}/latest")[0] == 404


def test_viewers_read_and_may_not_send(served: Served) -> None:
    with (
        EmiClient.open(served.url) as source,
        EmiClient(served.url, source.session, viewer=True) as viewer,
    ):
        assert first(viewer, Hello).role == "viewer"
        assert first(viewer, EstimateEvent).estimate["seq"] >= 0
        viewer.command("end")
        assert "only reads" in first(viewer, WarningEvent).text
        assert first(source, EstimateEvent) is not None
        source.command("end")
        first(viewer, Bye)


def test_a_source_may_come_back_and_is_not_waited_for_for_ever(served: Served) -> None:
    with EmiClient.open(served.url) as gone:
        first(gone, EstimateEvent)
    with EmiClient(served.url, gone.session) as back:
        assert first(back, Hello).role == "source"
        first(back, EstimateEvent)
    with EmiClient(served.url, gone.session, viewer=True) as viewer:
        assert "gone" in first(viewer, Bye).reason


def test_only_the_source_itself_takes_its_place(served: Served) -> None:
    def role(client: EmiClient, key: str) -> str:
        client._query["key"] = key
        with client._connect() as again:
            hello = decode_event(again.recv(PATIENCE_S))
            assert isinstance(hello, Hello)
            return hello.role

    with EmiClient.open(served.url) as client:
        first(client, EstimateEvent)
        own = str(client._query["key"])
        for wrong in ("", own[:-1], "x" * 65):
            assert role(client, wrong) == "viewer"
        first(client, EstimateEvent)
        assert role(client, own) == "source"
        while client.receive(PATIENCE_S) is not None:
            continue
        assert "1012" in (client.ended or ""), "it has lost its place"
        client._query["key"] = own
        assert role(client, own) == "source"


def test_when_all_sessions_are_taken_the_next_one_is_told_so() -> None:
    with serving(most=1) as served, EmiClient.open(served.url) as client:
        with pytest.raises(SourceError, match="taken"):
            EmiClient.open(served.url)
        status, body, headers = request(served, "POST", "/v1/sessions")
        assert status == 503
        assert "retry-after" in headers
        assert "taken" in json.loads(body)["error"]
        first(client, EstimateEvent)
        client.command("end")
        first(client, Bye)
        deadline = time.monotonic() + PATIENCE_S
        while served.ask(lambda: len(served.sessions.running)):
            assert time.monotonic() < deadline
        EmiClient.open(served.url).close()


def test_a_session_without_media_is_ended() -> None:
    with serving(idle_s=0.5) as served, EmiClient.open(served.url) as client:
        assert "no media" in first(client, Bye).reason


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Origin": "https://app.example"}, 201),
    ],
)
def test_other_sites_and_other_names_are_refused(headers: Headers, status: int) -> None:
    with serving(Access(origins=frozenset({"https://app.example"}))) as served:
        assert request(served, "POST", "/v1/sessions", headers)[0] == status


def test_pages_of_a_site_that_was_named_may_read_answers() -> None:
    site = {"Origin": "https://app.example"}
    with serving(Access(token=TOKEN, origins=frozenset(site.values()))) as served:
        asked = {
            **site,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        status, _, headers = request(served, "OPTIONS", "/v1/sessions", asked)
        assert status == 204
        assert headers["access-control-allow-origin"] == "https://app.example"
        assert headers["access-control-allow-headers"] == "Authorization"
        for extra, wanted in (({}, 401), ({"Authorization": f"Bearer {TOKEN}"}, 201)):
            status, _, headers = request(served, "POST", "/v1/sessions", {**site, **extra})
            assert status == wanted
            assert headers["access-control-allow-origin"] == "https://app.example"
        assert (
            request(served, "GET", "/emi.js", site)[2]["access-control-allow-origin"] == "https://app.example"
        )
        foreign = {"Origin": "https://evil.example"}
        assert "access-control-allow-origin" not in request(served, "OPTIONS", "/v1/sessions", foreign)[2]
        assert "access-control-allow-origin" not in request(served, "GET", "/emi.js")[2]


def test_a_page_of_another_site_cannot_open_a_socket(served: Served) -> None:
    url = served.url.replace("http", "ws") + "/v1/sessions/anything"
    with pytest.raises(WebSocketException, match="403"):
        connect(url, origin=Origin("http://evil.example"), proxy=None).__enter__()


def test_without_the_token_nothing_under_v1_answers() -> None:
    with serving(Access(token=TOKEN)) as served:
        assert request(served, "POST", "/v1/sessions")[0] == 401
        assert request(served, "POST", "/v1/sessions", {"Authorization": "Bearer wrong"})[0] == 401
        assert request(served, "GET", "/")[0] == 200
        with pytest.raises(SourceError, match="token"):
            EmiClient.open(served.url)
        with EmiClient.open(served.url, token=TOKEN) as client:
            first(client, EstimateEvent)
            with pytest.raises(SourceError):
                EmiClient(served.url, client.session)


def test_the_page_is_small_and_loads_nothing_from_elsewhere(served: Served) -> None:
    size = 0
    for path in ("/", "/page.css", "/page.js", "/emi.js", "/faces.js", "/microphone.js"):
        status, body, headers = request(served, "GET", path)
        assert status == 200
        assert "default-src 'none'" in headers["content-security-policy"]
        assert b'src="http' not in body
        size += len(body)
    assert size < 60_000
    assert request(served, "GET", "/nothing")[0] == 404
    assert request(served, "GET", "/../../etc/passwd")[0] == 404


def test_operators_see_counts(served: Served) -> None:
    status, body, _ = request(served, "GET", "/healthz")
    assert status == 200
    assert json.loads(body)["most"] == 8
    assert b"emi_sessions " in request(served, "GET", "/metrics")[1]


def test_hostile_messages_end_only_their_own_connection(served: Served) -> None:
    with EmiClient.open(served.url) as good, EmiClient.open(served.url) as bad:
        first(good, EstimateEvent)
        first(bad, EstimateEvent)
        bad._send(b"\xff" * 40)
        assert first(bad, WarningEvent).counter == "messages_refused"
        bad.send_frame(picture()[:-40] + bytes(40), 1.0)  # its header is right, its content damaged
        for _ in range(30):
            bad._send("{]")
        assert "refused" in first(bad, Bye).reason
        first(good, EstimateEvent)
        good.command("end")


def test_a_message_that_is_too_large_closes_the_connection(served: Served) -> None:
    with EmiClient.open(served.url) as good, EmiClient.open(served.url) as bad:
        first(bad, Hello)
        bad._socket.send(pack_media(PICTURE, 0.0, bytes(2 << 20)))
        while bad.receive(PATIENCE_S) is not None:
            continue
        assert "1009" in str(bad.ended)
        first(good, EstimateEvent)
        good.command("end")


def test_a_flood_is_cut_off(served: Served) -> None:
    with EmiClient.open(served.url) as client:
        first(client, EstimateEvent)

        def flood() -> None:
            try:
                for number in range(6000):
                    client.send_audio(np.zeros(16), float(number), 16_000)
            except SourceError:
                return

        thread = threading.Thread(target=flood)
        thread.start()
        reason = first(client, Bye).reason
        thread.join(PATIENCE_S)
        assert "too many" in reason


@pytest.mark.slow
def test_a_reader_that_does_not_read_delays_nobody(served: Served) -> None:
    with EmiClient.open(served.url) as source, EmiClient(served.url, source.session, viewer=True) as asleep:
        first(source, Hello)
        seen = [first(source, EstimateEvent).estimate["seq"] for _ in range(10)]
        assert seen == sorted(seen)
        assert first(asleep, Hello)
        source.command("end")


def test_many_who_connect_and_leave_change_nothing(served: Served) -> None:
    with EmiClient.open(served.url) as good:
        for _ in range(100):
            EmiClient(served.url, good.session, viewer=True).close()
        with EmiClient(served.url, "unknown") as lost:
            assert "no such session" in first(lost, Bye).reason
        first(good, EstimateEvent)
        good.command("end")


def test_a_server_that_stops_says_so() -> None:
    with serving() as served:
        client = EmiClient.open(served.url)
        first(client, EstimateEvent)
        served.server.should_exit = True
        assert "stops" in first(client, Bye).reason
        client.close()


def test_addresses_are_checked() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(ConfigurationError, match="port"):
            listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigurationError, match="IP address"):
        listen("no.such.host", 0)
    with pytest.raises(ConfigurationError, match="host name"):
        check_names(["https://x.example/"])
    assert check_names(["My.Host"]) == {"my.host"}
