"""Sessions that move between servers of this process, and clients that lose theirs without a word."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from emi_live.errors import SourceError
from emi_live.web.client import EmiClient, _request
from emi_live.web.protocol import SOUND, EstimateEvent, Hello, StateEvent, WarningEvent
from emi_live.web.sessions import Tickets
from tests.live.web.clients import SECRET, heard, sending, status_of, told_to_have_moved
from tests.live.web.conftest import PATIENCE_S, Served, serving
from tests.support.ports import free_port
from tests.support.web import Door


def test_a_server_takes_over_a_session_of_another_one_with_its_last_media_and_tells_the_gap() -> None:
    with (
        serving(most=1, tickets=Tickets("one", SECRET)) as one,  # type: ignore[arg-type]
        serving(most=1, tickets=Tickets("two", SECRET)) as two,  # type: ignore[arg-type]
    ):
        with EmiClient.open(one.url, resume=True) as client:
            before = client.session
            with EmiClient(two.url, before, viewer=True) as viewer:
                assert viewer.receive(PATIENCE_S) is None
                assert "1013" in (viewer.ended or ""), "it may come again when the source is here"
            with sending(client):
                started_s = time.monotonic()
                while time.monotonic() - started_s < 2.5:
                    heard(client, EstimateEvent)
                client._servers = [two.url]  # as a proxy sends it there
                one.cut()
                assert "moved" in heard(client, WarningEvent).text
                assert client.session.startswith("two.")
                with EmiClient(two.url, before, viewer=True) as viewer:
                    assert heard(viewer, Hello).session == client.session
                taken = two.sessions.running[client.session]
                heard(client, EstimateEvent)
                assert taken.counters["sound_ms"] >= 2000, "what was said before has come again"
                assert taken.counters["pictures"] >= 10
        with EmiClient(two.url, "one.issued.elsewhere", resume=True) as stranger:
            stranger.receive(PATIENCE_S)
            assert "no such session" in (stranger.ended or "")


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("lost", ["the server", "the door too"])
def test_a_session_goes_on_within_five_seconds_when_nothing_comes_any_more(lost: str) -> None:
    with (
        serving(most=1, tickets=Tickets("one", SECRET)) as one,  # type: ignore[arg-type]
        serving(most=1, tickets=Tickets("two", SECRET)) as two,  # type: ignore[arg-type]
        Door(one.port) as door,
        EmiClient.open([door.url, two.url] if lost == "the door too" else door.url, resume=True) as client,
        sending(client),
    ):
        started_s = time.monotonic()
        while time.monotonic() - started_s < 2.5:
            heard(client, EstimateEvent)
        door.lose(None if lost == "the door too" else two.port)
        warning = told_to_have_moved(client)
        assert client.session.startswith("two.")
        assert float(warning.text.rpartition(": ")[2].split()[0]) <= 5.0
        heard(client, EstimateEvent)
        assert two.sessions.running[client.session].counters["sound_ms"] >= 2000, "it was sent again"


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["its door", "its network"])
def test_a_session_goes_on_while_its_server_still_holds_the_old_connection(lost: str) -> None:
    with serving(most=1) as one, Door(one.port) as door:
        doors = [door.url, one.url] if lost == "its door" else door.url
        with EmiClient.open(doors, resume=True) as client, sending(client):
            heard(client, EstimateEvent)
            (session,) = one.sessions.running.values()
            old = session.source
            door.lose(None if lost == "its door" else one.port)
            client.command("mute")  # it is lost, like all that is sent
            assert heard(client, Hello).role == "source", "its own old connection is in nobody's way"
            while not heard(client, StateEvent).muted:
                continue
            before = session.counters["sound_ms"]
            while session.counters["sound_ms"] < before + 500:
                heard(client, EstimateEvent)
            assert session.source not in (None, old)
            assert session.counters["messages_refused"] == 0
        with EmiClient([f"http://127.0.0.1:{free_port()}", one.url], client.session, viewer=True) as viewer:
            heard(viewer, Hello)


@pytest.mark.slow
@pytest.mark.parametrize("wish", ["mute", "pause"])
def test_a_session_that_moves_stays_muted_or_paused_and_nothing_of_then_is_sent_again(wish: str) -> None:
    def is_so(state: StateEvent) -> bool:
        return state.muted if wish == "mute" else state.state == "paused"

    with (
        serving(most=1, tickets=Tickets("one", SECRET)) as one,  # type: ignore[arg-type]
        serving(most=1, tickets=Tickets("two", SECRET)) as two,  # type: ignore[arg-type]
        Door(one.port) as door,
        EmiClient.open(door.url, resume=True) as client,
        sending(client),
    ):
        heard(client, EstimateEvent)
        client.command(wish)
        until_ms = 1000 * time.monotonic()
        while not is_so(heard(client, StateEvent)):
            continue
        door.lose(two.port)
        assert heard(client, Hello).session.startswith("two.")
        while not is_so(heard(client, StateEvent)):
            continue
        assert client._kept is not None
        sounds = [t_ms for t_ms, message in client._kept._messages if message[0] == SOUND]
        assert sounds
        assert max(sounds) <= until_ms


@pytest.mark.slow
@pytest.mark.parametrize("answers", ["late", "never"])
def test_a_client_stays_while_its_server_is_only_slow(answers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if answers == "never":
        monkeypatch.setattr("emi_live.web.client.ASK_S", 0.2)
    asked: list[object] = []
    monkeypatch.setattr("emi_live.web.client._request", partial(_recorded, asked, _request))
    with serving(most=1) as one, EmiClient.open(one.url, resume=True) as client:
        asked.clear()
        with sending(client):
            heard(client, EstimateEvent)
            before = client._socket
            one.loop.call_soon_threadsafe(threading.Event().wait, 2.5)
            until_s = time.monotonic() + 3.5
            while time.monotonic() < until_s:
                client.receive(0.2)
            heard(client, EstimateEvent)
            assert asked
            assert client._socket is before


def _recorded(asked: list[object], do: Callable[..., Any], *arguments: Any) -> Any:
    asked.append(arguments)
    return do(*arguments)


def test_a_server_that_ends_sends_its_sources_elsewhere_and_takes_nobody_back() -> None:
    with serving(most=2, tickets=Tickets("one", SECRET)) as one:  # type: ignore[arg-type]
        with EmiClient.open(one.url) as client:
            heard(client, Hello)
            asyncio.run_coroutine_threadsafe(one.sessions.drain(), one.loop).result(PATIENCE_S)
            while client.receive(PATIENCE_S) is not None:
                continue
            assert "1012" in (client.ended or ""), client.ended
            with EmiClient(one.url, client.session) as again:
                assert again.receive(PATIENCE_S) is None
                assert "1013" in (again.ended or ""), "a proxy may not know yet that it ends"
            assert status_of(one.url, client.session) == 503
        with pytest.raises(SourceError, match="try again"):
            EmiClient.open(one.url)


def test_a_server_that_ends_closes_webrtc_even_if_messages_wait() -> None:
    pytest.importorskip("aiortc")
    from emi_live.web.rtc import use_addresses
    from tests.support.rtc_peer import Browser, Pictures, ask

    async def talk(one: Served) -> None:
        browser = Browser(Pictures())
        session = (await ask(one.url, "/v1/sessions"))["id"]
        await browser.accept(await ask(one.url, f"/v1/sessions/{session}/offer", await browser.offer()))
        await browser.first(Hello)
        closed = asyncio.Event()
        browser.channel.on("close", closed.set)

        async def end() -> None:
            for _ in range(3):  # they wait in the outbox when it is cut
                one.sessions.running[session].warn("for the test", "tests")
            await one.sessions.drain()

        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(end(), one.loop))
        await asyncio.wait_for(closed.wait(), PATIENCE_S)
        await browser.connection.close()

    use_addresses(loopback=True)
    try:
        with serving(most=1, tickets=Tickets("one", SECRET)) as one:  # type: ignore[arg-type]
            asyncio.run(asyncio.wait_for(talk(one), PATIENCE_S))
    finally:
        use_addresses(loopback=False)
