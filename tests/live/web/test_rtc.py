"""WebRTC: a peer of aiortc in place of a browser, and peers that mean no good."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from aiortc import MediaStreamTrack

from emi_live.errors import ConfigurationError
from emi_live.web.client import EmiClient
from emi_live.web.protocol import (
    Bye,
    EstimateEvent,
    Hello,
)
from emi_live.web.rtc import MAX_SDP, check_ice, checked_offer, for_browser, use_addresses
from tests.live.web.conftest import PATIENCE_S, Served, serving
from tests.live.web.test_server import first, request
from tests.support.rtc_peer import Browser, Pictures, Tone

CANDIDATE: Final = "a=candidate:1 1 udp 1 ::1 9 typ host\n"


def run(talk: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(talk, 2 * PATIENCE_S))


async def post(served: Served, session: str, offer: Any) -> tuple[int, Any]:
    path = f"/v1/sessions/{session}/offer"
    status, body, _ = await asyncio.to_thread(request, served, "POST", path, body=json.dumps(offer))
    return status, json.loads(body)


async def begin(served: Served) -> str:
    _, body, _ = await asyncio.to_thread(request, served, "POST", "/v1/sessions")
    answer = json.loads(body)
    assert answer["webrtc"]
    return str(answer["id"])


@asynccontextmanager
async def connected(served: Served, *tracks: MediaStreamTrack) -> AsyncIterator[tuple[Browser, str]]:
    browser, session = Browser(*tracks), await begin(served)
    try:
        status, answer = await post(served, session, await browser.offer())
        assert status == 200, answer
        await browser.accept(answer)
        yield browser, session
    finally:
        await browser.connection.close()
        await asyncio.to_thread(request, served, "DELETE", f"/v1/sessions/{session}")


@pytest.fixture(scope="module", autouse=True)
def loopback() -> Iterator[None]:
    """Both sides use this machine's loopback address alone, as with `emi serve`."""
    use_addresses(loopback=True)
    yield
    use_addresses(loopback=False)


def test_tracks_go_in_and_estimates_come_back(served: Served) -> None:
    async def talk() -> None:
        async with connected(served, Pictures(), Tone()) as (browser, session):
            assert (await browser.first(Hello)).session == session
            browser.command("clock", ms=5000.0)
            told = time.monotonic()
            while (await browser.first(EstimateEvent)).end_ms is None:
                continue
            estimate = await browser.first(EstimateEvent)
            now_ms = 5000 + 1000 * (time.monotonic() - told)
            assert estimate.end_ms is not None
            assert abs(now_ms - estimate.end_ms) < 2000, "on the clock of the browser"
            browser.command("mark")
            while "marker" not in (await browser.first(EstimateEvent)).estimate:
                continue
            counters = served.sessions.running[session].counters
            while counters["pictures"] < 10 or counters["sound_ms"] < 500:
                await browser.first(EstimateEvent)
            assert not counters["media_refused"]
            with EmiClient(served.url, session, viewer=True) as viewer:
                await asyncio.to_thread(first, viewer, EstimateEvent)
            latest = f"/v1/sessions/{session}/latest"
            assert (await asyncio.to_thread(request, served, "GET", latest))[0] == 200
            browser.command("end")
            assert "client" in (await browser.first(Bye)).reason

    run(talk())


def test_a_browser_that_hides_its_address_is_answered_where_its_request_came_from(served: Served) -> None:
    async def talk() -> None:
        browser, session = Browser(Pictures()), await begin(served)
        offer = await browser.offer()
        offer["sdp"] = re.sub(r"udp (\d+) 127\.0\.0\.1", r"udp \1 0a1b2c3d.local", offer["sdp"])
        assert ".local" in offer["sdp"]
        status, answer = await post(served, session, offer)
        assert status == 200, answer
        await browser.accept(answer)
        await browser.first(EstimateEvent)
        await browser.connection.close()

    run(talk())


@pytest.mark.parametrize(
    ("address", "client", "kept"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0a1b.local", "127.0.0.1", "127.0.0.1"),
        ("0a1b.local", "198.51.100.7", "198.51.100.7"),
        ("198.51.100.9", "198.51.100.7", "198.51.100.9"),
        ("198.51.100.9", "127.0.0.1", None),
        ("printer.example", "198.51.100.7", None),
    ],
)
def test_candidates_that_may_be_tried(address: str, client: str, kept: str | None) -> None:
    line = f"a=candidate:1 1 udp 2122194687 {address} 42299 typ host"
    lines = checked_offer(f"v=0\nm=audio 9 RTP/AVP 0\n{line}\na=end-of-candidates\n", client).splitlines()
    found = [one.split(" ")[4] for one in lines if one.startswith("a=candidate")]
    assert found == ([] if kept is None else [kept])


@pytest.mark.parametrize("url", ["stun:", "http://a", "turn:host:3478", "x"])
def test_servers_of_another_form_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="--ice"):
        check_ice([url])


def test_servers_are_told_to_browsers() -> None:
    servers = check_ice(["stun:stun.example:3478", "turn:me:secret@turn.example:3478"])
    assert for_browser(servers) == [
        {"urls": "stun:stun.example:3478"},
        {"urls": "turn:turn.example:3478", "username": "me", "credential": "secret"},
    ]


@pytest.mark.parametrize(
    ("offer", "word"),
    [
        ({}, "JSON"),
        ({"type": "answer", "sdp": "v=0"}, "JSON"),
        ({"type": "offer", "sdp": "v=0"}, "section"),
        ({"type": "offer", "sdp": "m=audio 9 x 0\n" * 2}, "section"),
        ({"type": "offer", "sdp": "m=audio x\n"}, "cannot be read"),
        ({"type": "offer", "sdp": "v=0\nm=audio 9 UDP/TLS/RTP/SAVPF 111\n"}, "cannot be read"),
        (
            {"type": "offer", "sdp": "m=video 9 x 0\n" + 50 * CANDIDATE},
            "candidates",
        ),
        ({"type": "offer", "sdp": "x" * (MAX_SDP + 1)}, "characters"),
        ({"type": "offer", "sdp": "x" * 200_000}, "bytes"),
    ],
)
def test_offers_that_are_none_are_refused_in_one_line(
    served: Served, offer: dict[str, str], word: str
) -> None:
    async def talk() -> None:
        session = await begin(served)
        status, answer = await post(served, session, offer)
        assert status == 400
        assert word in answer["error"]
        assert "\n" not in answer["error"]
        assert served.ask(lambda: served.sessions.running[session].source) is None, "the place stays free"
        await asyncio.to_thread(request, served, "DELETE", f"/v1/sessions/{session}")

    run(talk())


def test_a_session_has_one_source_and_not_any_number_of_offers() -> None:
    async def talk() -> None:
        with serving(most=2) as served:
            async with connected(served, Pictures()) as (browser, session):
                other = Browser(Tone())
                status, answer = await post(served, session, await other.offer())
                await other.connection.close()
                assert (status, "source already" in answer["error"]) == (400, True)
                await browser.first(EstimateEvent)
            session, refusals = await begin(served), []
            for _ in range(12):
                refusals.append(
                    (await post(served, session, {"type": "offer", "sdp": "m=audio x"}))[1]["error"]
                )
            assert "cannot be read" in refusals[0]
            assert "more than" in refusals[-1]

    run(talk())


@pytest.mark.slow
def test_who_offers_and_vanishes_or_sends_nothing_frees_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emi_live.web.rtc.CONNECT_S", 1.0)

    async def talk() -> None:
        with serving(most=3, idle_s=2.0, comeback_s=1.0) as served:
            async with connected(served, Pictures()) as (good, mine):
                vanished, absent, silent = await begin(served), Browser(Pictures()), Browser()
                status, _ = await post(served, vanished, await absent.offer())
                assert status == 200
                quiet = await begin(served)
                _, answer = await post(served, quiet, await silent.offer())
                await silent.accept(answer)
                assert "no media" in (await silent.first(Bye)).reason
                async with asyncio.timeout(PATIENCE_S):
                    while len(served.sessions.running) > 1:
                        await good.first(EstimateEvent)
                assert list(served.sessions.running) == [mine], "others do not notice"
                assert served.sessions.counters["peers_closed"] == 1
                await silent.connection.close()
                await absent.connection.close()

    run(talk())


@pytest.mark.parametrize(
    ("message", "count", "word"),
    [
        ('{"type":"clock","ms":1}', 60, "a second"),
        ("{", 25, "refused"),
        (b"x", 25, "refused"),
    ],
)
def test_a_flood_over_the_data_channel_ends_only_its_own_connection(
    served: Served, message: str | bytes, count: int, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emi_live.web.protocol.MESSAGES_A_SECOND", 8)

    async def talk() -> None:
        async with connected(served, Pictures()) as (good, mine), connected(served, Tone()) as (bad, _):
            for _ in range(count):
                bad.channel.send(message)
            assert word in (await bad.first(Bye)).reason
            await good.first(EstimateEvent)
            served_still = served.ask(lambda: served.sessions.running[mine].source)
            assert served_still is not None

    run(talk())


def test_a_picture_that_is_too_large_and_a_second_channel_end_the_connection(served: Served) -> None:
    async def talk() -> None:
        async with connected(served, Pictures(2056)) as (browser, _):
            assert "2056 x 48" in (await browser.first(Bye)).reason
        async with connected(served, Tone()) as (browser, _):
            browser.connection.createDataChannel("another")
            assert "second data channel" in (await browser.first(Bye)).reason

    run(talk())


@pytest.mark.parametrize(
    ("limit", "value", "word"),
    [
        ("BYTES_A_SECOND", 300, "too much"),
        ("UNDECODED", -1, "decoded"),
        ("LEAST_WINDOW", 1 << 30, "too much"),
    ],
)
def test_who_sends_too_much_is_cut_off(
    served: Served, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, word: str
) -> None:
    monkeypatch.setattr("emi_live.web.rtc.CONNECT_S", 0.5)
    monkeypatch.setattr(f"emi_live.web.rtc.{limit}", value)

    async def talk() -> None:
        async with connected(served, Pictures(), Tone()) as (browser, _):
            assert word in (await browser.first(Bye)).reason

    run(talk())


@pytest.mark.slow
def test_a_network_that_goes_silent_is_noticed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody hangs up: packets just stop, as without a cable. ICE asks six times for a sign of life."""
    monkeypatch.setattr("aioice.ice.CONSENT_INTERVAL", 0.2)

    async def talk() -> None:
        async with connected(served, Pictures(), Tone()) as (browser, mine):
            await browser.first(EstimateEvent)
            session = served.sessions.running[mine]
            assert session.lost_s is None
            browser.cut()
            async with asyncio.timeout(PATIENCE_S):
                while session.lost_s is None:
                    await asyncio.sleep(0.1)
            state = session.state()
            assert state.state == "lost"

    run(talk())


def test_a_server_that_stops_tells_its_peers() -> None:
    async def talk() -> None:
        browser = Browser(Pictures())
        with serving(most=1) as served:
            _, answer = await post(served, session := await begin(served), await browser.offer())
            await browser.accept(answer)
            await browser.first(EstimateEvent)
            assert session in served.sessions.running
            closing = asyncio.create_task(asyncio.to_thread(setattr, served.server, "should_exit", True))
            assert "stops" in (await browser.first(Bye)).reason
            await closing
        await browser.connection.close()

    run(talk())
