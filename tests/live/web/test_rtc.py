"""WebRTC: a peer of aiortc in place of a browser, and peers that mean no good."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from av import AudioFrame, VideoFrame

from emi_live.web.client import EmiClient
from emi_live.web.protocol import Bye, Command, EstimateEvent, Event, Hello, WarningEvent, decode_event, encode
from emi_live.web.rtc import MAX_CANDIDATES, MAX_SDP, check_ice, checked_offer, use_addresses
from tests.live.web.conftest import PATIENCE_S, Served, serving
from tests.live.web.test_server import E, first, request


class Paced(MediaStreamTrack):
    """Gives its frames on time."""

    def __init__(self) -> None:
        super().__init__()
        self._number = -1
        self._began_s = time.monotonic()

    async def due(self, period_s: float) -> None:
        """Wait until the next frame is due."""
        self._number += 1
        await asyncio.sleep(self._began_s + self._number * period_s - time.monotonic())


class Pictures(Paced):
    """Grey pictures, 15 a second."""

    kind = "video"

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self._width = width

    async def recv(self) -> VideoFrame:
        await self.due(1 / 15)
        frame = VideoFrame.from_ndarray(np.full((48, self._width, 3), 99, np.uint8), format="bgr24")
        frame.pts, frame.time_base = self._number * 6000, Fraction(1, 90_000)
        return frame


class Tone(Paced):
    """A tone in blocks of 20 ms."""

    kind = "audio"

    async def recv(self) -> AudioFrame:
        await self.due(0.02)
        t = (np.arange(960) + 960 * self._number) / 48_000
        samples = (8000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)[None]
        frame = AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 960 * self._number, Fraction(1, 48_000)
        return frame


class Browser:
    """The other side of a session."""

    def __init__(self, *tracks: MediaStreamTrack) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self.connection.createDataChannel("emi")
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.channel.on("message", lambda text: self.events.put_nowait(decode_event(text)))
        self.open = asyncio.Event()
        self.channel.on("open", self.open.set)
        for track in tracks:
            self.connection.addTrack(track)

    async def offer(self) -> dict[str, str]:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        description = self.connection.localDescription
        return {"type": description.type, "sdp": description.sdp}

    async def connect(self, served: Served, session: str) -> None:
        status, body = await post(served, session, await self.offer())
        assert status == 200, body
        await self.connection.setRemoteDescription(RTCSessionDescription(body["sdp"], "answer"))
        await asyncio.wait_for(self.open.wait(), PATIENCE_S)

    async def first(self, kind: type[E]) -> E:
        async with asyncio.timeout(PATIENCE_S):
            while not isinstance(event := await self.events.get(), kind):
                continue
        return event

    def command(self, type_: Any, **more: Any) -> None:
        self.channel.send(encode(Command(type=type_, **more)))


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
        await browser.connect(served, session)
        yield browser, session
    finally:
        await browser.connection.close()


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
            assert (await asyncio.to_thread(request, served, "GET", f"/v1/sessions/{session}/latest"))[0] == 200
            browser.command("end")
            assert "client" in (await browser.first(Bye)).reason

    run(talk())
