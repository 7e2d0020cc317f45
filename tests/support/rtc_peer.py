"""A peer of aiortc in place of a browser.

As a program, `rtc_peer.py URL` connects and waits for an estimate.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import sys
import time
from fractions import Fraction
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from av import AudioFrame, VideoFrame

from emi_live.web.protocol import Command, EstimateEvent, Event, decode_event, encode

E = TypeVar("E", bound=Event)
PATIENCE_S: Final = 30.0


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


class _Mute:
    """A transport that sends nothing, and does all else."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def sendto(self, *_: object) -> None:
        """Lose the packet."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def mute(ice: Any) -> None:
    """Have a connection of aioice send nothing more."""
    for pair in ice._nominated.values():
        silent: Any = _Mute(pair.protocol.transport)
        pair.protocol.transport = silent


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
        """The body of the request."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        description = self.connection.localDescription
        return {"type": description.type, "sdp": description.sdp}

    async def accept(self, answer: dict[str, str]) -> None:
        """Connect, once the server has answered."""
        await self.connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        await asyncio.wait_for(self.open.wait(), PATIENCE_S)

    async def first(self, kind: type[E]) -> E:
        """The first message of a kind."""
        async with asyncio.timeout(PATIENCE_S):
            while not isinstance(event := await self.events.get(), kind):
                continue
        return event

    def cut(self) -> None:
        """Send nothing more, without a word: what a pulled cable does."""
        mute(self.channel.transport.transport.transport._connection)

    def command(self, type_: Any, **more: Any) -> None:
        """Send a command."""
        self.channel.send(encode(Command(type=type_, **more)))


async def ask(url: str, path: str, body: object = None) -> Any:
    """What a server answers to a POST; it is waited for."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
        try:
            connection.request("POST", path, None if body is None else json.dumps(body))
            return json.loads(connection.getresponse().read())
        except ConnectionError:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0.2)
        finally:
            connection.close()


async def main(url: str) -> None:
    """Send pictures and sound, with a candidate that hides behind a name, until an estimate comes."""
    from emi_live.web.rtc import use_addresses

    use_addresses(loopback=True)
    browser = Browser(Pictures(), Tone())
    session = (await ask(url, "/v1/sessions"))["id"]
    offer = await browser.offer()
    offer["sdp"] = re.sub(r"udp (\d+) 127\.0\.0\.1", r"udp \1 0a1b2c3d.local", offer["sdp"])
    await browser.accept(await ask(url, f"/v1/sessions/{session}/offer", offer))
    await browser.first(EstimateEvent)
    sys.stdout.write("an estimate has come\n")
    await browser.connection.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
