"""WebRTC for `emi serve`, on aiortc: the tracks of a browser go into a session, messages over a data channel.

No STUN or TURN server is asked unless the operator names one, and no name is looked up: a browser that hides
its address behind a name of mDNS (`….local`) is answered at the address from which its request came.

Capture times are RTP times, mapped to our clock by the frame that came with the smallest delay so far
(`ClientClock`), less what aiortc holds frames back. docs/decisions/0038 has the choices and limits.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, Final

import aioice.ice
import ifaddr
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.web.protocol import MAX_SIDE, Bye, ProtocolError, Rules, decode_command, encode
from emi_live.web.sessions import ClientClock

if TYPE_CHECKING:
    from aiortc import RTCDataChannel
    from aiortc.mediastreams import MediaStreamTrack
    from av import AudioFrame, VideoFrame

    from emi_live.web.broadcast import Outbox
    from emi_live.web.sessions import Session

__all__ = ["MAX_SDP", "Peer", "check_ice", "checked_offer", "for_browser", "use_addresses"]

logger = logging.getLogger(__name__)

MAX_SDP: Final = 64 * 1024  # characters of an offer; Chromium's have 6,000
MAX_CANDIDATES: Final = 40
CHANNEL: Final = "emi"  # the label of the data channel
CONNECT_S: Final = 10.0  # from the answer until the connection stands
CHANNEL_BYTES: Final = (
    64 * 1024
)  # that wait in the data channel before a newer estimate replaces an older one
BYTES_A_SECOND: Final = 2_000_000  # of one peer, as a mean over `BURST_S`: twice what a browser sends at 720p
BURST_S: Final = 5.0
LEAST_WINDOW: Final = 0  # bytes that aiortc's receive window may shrink to
UNDECODED: Final = 30  # pictures and blocks of sound of one track that may wait for aiortc's decoder
LOOK_S: Final = 1.0
FAREWELL_S: Final = 0.3  # for the last message
HELD_PACKETS: Final = 4  # aiortc's jitter buffer gives a packet of sound when the fourth after it has come
MS_PER_S: Final = 1000


def check_ice(urls: Sequence[str]) -> tuple[RTCIceServer, ...]:
    """The servers of `--ice`: `stun:HOST:PORT` or `turn:USER:PASSWORD@HOST:PORT`.

    Raises:
        ConfigurationError: one is of another form.
    """
    servers = []
    for url in urls:
        scheme, _, rest = url.partition(":")
        login, _, host = rest.rpartition("@")
        user, _, password = login.partition(":")
        if scheme not in ("stun", "turn", "turns") or not host or (scheme != "stun" and not password):
            raise ConfigurationError(
                f"--ice {scheme}:… is not a server; use stun:HOST:PORT, or turn: with user, password and "
                "host, as `emi serve --help` shows"
            )
        servers.append(RTCIceServer(f"{scheme}:{host}", user or None, password or None))
    return tuple(servers)


def use_addresses(*, loopback: bool) -> None:
    """Have aioice open its ports on this machine's loopback address alone, or on all its addresses.

    aioice leaves loopback out, and has no setting for it.
    """
    aioice.ice.get_host_addresses = _loopback if loopback else _all_addresses


def _loopback(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    return ["127.0.0.1"]


def _all_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    return [one for one in _own_addresses() if not ipaddress.ip_address(one).is_link_local]


def _own_addresses() -> list[str]:
    found = [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for a in ifaddr.get_adapters() for ip in a.ips]
    return [str(one) for one in found]


def checked_offer(sdp: str, client_host: str) -> str:
    """An offer with the candidates that may be tried.

    A candidate under a name of mDNS gets the address of the request; those with other names are left out. If
    the request came from this machine, so are candidates on other machines: nothing is sent to them.

    Args:
        sdp: the offer.
        client_host: the address from which the request came.

    Raises:
        ProtocolError: it is too long, or has parts that a session has no use for.
    """
    if len(sdp) > MAX_SDP:
        raise ProtocolError(f"an offer of {len(sdp)} characters; use at most {MAX_SDP}")
    here = {*_own_addresses(), "127.0.0.1", "::1"} if _is_loopback(client_host) else None
    lines, media, candidates = [], [], 0
    for line in sdp.splitlines():
        if line.startswith("m="):
            media.append(line[2:].partition(" ")[0])
        if not line.startswith("a=candidate:"):
            lines.append(line)
            continue
        fields = line.split(" ")
        candidates += 1
        if len(fields) < 8 or fields[2].lower() != "udp":  # not a candidate, or one of TCP
            continue
        if fields[4].endswith(".local"):
            fields[4] = client_host
        with suppress(ValueError):
            ipaddress.ip_address(fields[4])
            if here is None or fields[4] in here:
                lines.append(" ".join(fields))
    if candidates > MAX_CANDIDATES:
        raise ProtocolError(f"an offer with {candidates} candidates; use at most {MAX_CANDIDATES}")
    if not media or len(media) > len(set(media)) or not set(media) <= {"audio", "video", "application"}:
        raise ProtocolError("an offer must have at most one audio, one video and one application section")
    return "\r\n".join(lines) + "\r\n"


class Peer:
    """One WebRTC connection: the source of a session, for as long as it stands."""

    def __init__(self, session: Session, outbox: Outbox, ice: Sequence[RTCIceServer] = ()) -> None:
        """Nothing is opened before `answer`; `outbox` is that of the session's source."""
        configuration = RTCConfiguration(iceServers=list(ice), bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        self._connection = RTCPeerConnection(configuration)
        self._session = session
        self._outbox = outbox
        self._rules = Rules()
        self._channel: RTCDataChannel | None = None
        self._drained = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone = False
        self._connection.on("track", self._tracked)
        self._connection.on("datachannel", self._channelled)
        self._connection.on("connectionstatechange", self._changed)

    async def answer(self, sdp: str, client_host: str) -> str:
        """The answer to an offer; the connection is made in the background.

        Raises:
            ProtocolError: the offer is not one.
        """
        try:
            offer = RTCSessionDescription(checked_offer(sdp, client_host), "offer")
            await self._connection.setRemoteDescription(offer)
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except ProtocolError:
            await self.close()
            raise
        except Exception as error:  # aiortc's parser raises errors of many types
            await self.close()
            logger.debug("an offer was refused", exc_info=True)
            raise ProtocolError(f"an offer that cannot be read ({type(error).__name__})") from error
        self._start(self._watch())
        self._session.at_end.add(self.close)
        return str(self._connection.localDescription.sdp)

    async def close(self) -> None:
        """End the connection, and leave the session; a second call does nothing."""
        if self._gone:
            return
        self._gone = True
        self._session.at_end.discard(self.close)
        await self._say_farewell()
        self._session.leave(self._outbox)
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        for (
            queue
        ) in self._queues():  # aiortc would decode what waits first, and block the event loop meanwhile
            with suppress(Empty):
                while True:
                    queue.get_nowait()
        with suppress(ConnectionError):
            await self._connection.close()

    async def refuse(self, reason: str) -> None:
        """Say why, and close."""
        if not self._gone:
            logger.info("a WebRTC connection of session %s… is closed: %s", self._session.id[:6], reason)
            self._session.warn(reason, "peers_closed")
            self._outbox.put(bye := Bye(reason=reason), encode(bye))
            await self.close()

    def _queues(self) -> list[Queue[Any]]:
        """What waits for the decoder of each track; aiortc has no limit for it."""
        receivers = self._connection.getReceivers()
        return [receiver._RTCRtpReceiver__decoder_queue for receiver in receivers]  # type: ignore[attr-defined]

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a WebRTC connection failed: %s", error, exc_info=error)
            self._end()

    def _end(self, reason: str | None = None) -> None:
        """Close from within a callback."""
        if not self._gone:
            self._start(self.close() if reason is None else self.refuse(reason))

    def _changed(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self._end()

    def _tracked(self, track: MediaStreamTrack) -> None:
        self._start(self._see(track) if track.kind == "video" else self._hear(track))

    def _channelled(self, channel: RTCDataChannel) -> None:
        if self._channel is not None or channel.label != CHANNEL:
            self._end(f"a second data channel, or one that is not called {CHANNEL!r}")
            return
        self._channel = channel
        channel.bufferedAmountLowThreshold = CHANNEL_BYTES // 2
        channel.on("bufferedamountlow", self._drained.set)
        channel.on("message", self._told)
        channel.on("close", self._end)
        self._start(self._send())

    def _told(self, message: str | bytes) -> None:
        """Take one message of the data channel, at once."""
        if self._gone:
            return
        if self._rules.count(time.monotonic()):
            self._session.counters["floods"] += 1
            self._end("too many messages a second")
            return
        try:
            if isinstance(message, bytes):
                raise ProtocolError("binary messages belong to the WebSocket; here media are tracks")
            self._session.obey(decode_command(message), self._outbox)
        except ConfigurationError as error:
            self._session.warn(str(error), "messages_refused")
            if self._rules.violated():
                self._end(f"too many messages were refused: {error}")

    async def _send(self) -> None:
        channel = self._channel
        while channel is not None and channel.readyState == "open":
            message = await self._outbox.take()
            if message is None:
                self._end()
                return
            while channel.bufferedAmount > CHANNEL_BYTES and channel.readyState == "open":
                self._drained.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._drained.wait(), LOOK_S)
            if isinstance(message, str) and channel.readyState == "open":
                channel.send(message)
                if message.startswith('{"type":"bye"'):
                    self._end()
                    return

    async def _say_farewell(self) -> None:
        """Send what waits in the outbox, if it goes quickly."""
        channel = self._channel
        if channel is None or channel.readyState != "open" or self._connection.connectionState != "connected":
            return
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(FAREWELL_S):
                while self._outbox.waiting:
                    message = await self._outbox.take()
                    if message is None:  # it was cut: what waits is not to go
                        break
                    if isinstance(message, str):
                        channel.send(message)
                await asyncio.sleep(FAREWELL_S / 3)

    async def _watch(self) -> None:
        """Close what does not connect, and what sends too much."""
        await asyncio.sleep(CONNECT_S)
        if self._connection.connectionState != "connected":
            await self.refuse(f"the connection was not made within {CONNECT_S:g} s")
            return
        before, allowed = 0, BYTES_A_SECOND * BURST_S
        while not self._gone:
            stats = await self._connection.getStats()
            received = max((getattr(one, "bytesReceived", 0) for one in stats.values()), default=0)
            allowed = min(BYTES_A_SECOND * BURST_S, allowed + BYTES_A_SECOND * LOOK_S - (received - before))
            sctp = self._connection.sctp
            # Below 0, the peer has sent more than 1 MiB of messages without an end, which aiortc keeps.
            window = LEAST_WINDOW if sctp is None else sctp._advertised_rwnd
            if allowed < 0 or window < LEAST_WINDOW:
                await self.refuse("it sends too much")
                return
            if any(queue.qsize() > UNDECODED for queue in self._queues()):
                await self.refuse("it sends more than can be decoded")
                return
            before = received
            await asyncio.sleep(LOOK_S)

    async def _see(self, track: MediaStreamTrack) -> None:
        """Offer each picture to the session, which uses the newest."""
        clock, last_ms, interval_ns = ClientClock(), 0.0, 0
        while True:
            try:
                frame: VideoFrame = await track.recv()
            except MediaStreamError:
                return
            arrived_ns = time.monotonic_ns()
            if frame.width > MAX_SIDE or frame.height > MAX_SIDE:
                await self.refuse(
                    f"a picture of {frame.width} x {frame.height} pixels; use at most {MAX_SIDE}"
                )
                return
            t_ms = _ms(frame)
            if t_ms > last_ms:  # aiortc gives a picture when the first packet of the next one has come
                interval_ns = min(round((t_ms - last_ms) * NS_PER_S / MS_PER_S), NS_PER_S)
            last_ms = t_ms
            t_ns = clock.to_ours(t_ms, interval_ns, arrived_ns)
            self._session.push_picture(partial(frame.to_ndarray, format="bgr24"), t_ns)

    async def _hear(self, track: MediaStreamTrack) -> None:
        """Push each block of sound, in order."""
        clock = ClientClock()
        while True:
            try:
                frame: AudioFrame = await track.recv()
            except MediaStreamError:
                return
            length_ns = frame.samples * NS_PER_S // frame.sample_rate
            t_ns = clock.to_ours(_ms(frame), (1 + HELD_PACKETS) * length_ns, time.monotonic_ns())
            self._session.push_sound(frame, t_ns, frame.sample_rate, length_ns)


def _ms(frame: VideoFrame | AudioFrame) -> float:
    """When a frame was captured, by the clock of its track, from 0 on."""
    return float((frame.pts or 0) * (frame.time_base or Fraction(0)) * MS_PER_S)


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def for_browser(ice: Sequence[RTCIceServer]) -> list[dict[str, str]]:
    """The servers as `RTCPeerConnection` of a browser takes them."""
    fields = ({"urls": one.urls, "username": one.username, "credential": one.credential} for one in ice)
    return [{name: str(value) for name, value in one.items() if value} for one in fields]
