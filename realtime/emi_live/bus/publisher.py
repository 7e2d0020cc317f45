"""The sending end of one topic."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import zmq

from emi_live.bus.handle import SLICE_MS, Handle
from emi_live.bus.wire import encode
from emi_live.clock import Clock
from emi_live.errors import StageError, WireError
from emi_live.messages import END_OF_STREAM, Packet

__all__ = ["Publisher"]

logger = logging.getLogger(__name__)

JOIN_TIMEOUT_S: Final = 10.0  # subscribers in the same process join within milliseconds
END_TIMEOUT_S: Final = 1.0  # how long the last packet of a live stream is repeated
MAX_NOTICES: Final = 256  # (un)subscriptions looked at per packet: a flood of them cannot hold up a stage


class Publisher:
    """Stamps and sends the packets of one topic; used by one thread.

    The first packet waits until every subscriber of this process has joined, so none is lost. Live, sending
    never waits: at the high-water mark a packet is dropped for the subscriber that is behind, which counts
    it; only the last packet is repeated, for up to 1 s, until all subscribers of this process have read it.
    Lossless, sending waits until all subscribers have room. Once the bus is stopped, packets are discarded.
    """

    def __init__(
        self,
        topic: str,
        handle: Handle,
        *,
        token: bytes,
        subscribers: Callable[[], int],
        stop: threading.Event,
        clock: Clock,
        lossless: bool,
    ) -> None:
        """Take over a bound XPUB socket, for `Bus.publisher`; `token` begins a joiner's notice."""
        self.topic = topic
        self.handle = handle
        self._token = token
        self._subscribers = subscribers
        self._stop = stop
        self._clock = clock
        self._lossless = lossless
        self._present: set[bytes] = set()  # subscribers of this process that joined and have not seen the end
        self._complete = False  # whether all have joined
        self._seq = 0

    def publish(self, packet: Packet) -> None:
        """Send one packet, stamped with its sequence number and the time.

        Raises:
            WireError: the packet is of another topic, or one that no receiver would accept.
            StageError: lossless, and a subscriber of this process did not join in time.
        """
        if packet.topic != self.topic:
            raise WireError(f"a {packet.topic} packet was given to the publisher of {self.topic}")
        socket = self.handle.use()
        if not self._complete:
            self._await_subscribers(socket)
        self._read_notices(socket)
        frames = encode(dataclasses.replace(packet, seq=self._seq, published_ns=self._clock.now_ns()))
        self._seq += 1
        if self._lossless:
            self._send_patiently(socket, frames)
        elif not self._stop.is_set():
            socket.send_multipart(frames)
            if packet.progress_ns == END_OF_STREAM:
                self._repeat(socket, frames)

    def close(self) -> None:
        """Close the socket; call it from the thread that publishes, or after that ended."""
        self.handle.close()

    def _send_patiently(self, socket: zmq.Socket[bytes], frames: list[bytes]) -> None:
        while not self._stop.is_set():
            try:
                socket.send_multipart(frames)  # waits for room, for SLICE_MS at most
            except zmq.Again:
                self._read_notices(socket)
            else:
                return

    def _repeat(self, socket: zmq.Socket[bytes], frames: list[bytes]) -> None:
        deadline = time.monotonic() + END_TIMEOUT_S
        while self._present and not self._stop.is_set() and time.monotonic() < deadline:
            if socket.poll(SLICE_MS):
                self._read_notices(socket)
            else:
                socket.send_multipart(frames)

    def _await_subscribers(self, socket: zmq.Socket[bytes]) -> None:
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        while len(self._present) < (expected := self._subscribers()) and not self._stop.is_set():
            if time.monotonic() > deadline:
                joined = f"{len(self._present)} of {expected} subscribers of {self.topic} joined"
                if self._lossless:
                    raise StageError(
                        f"{joined} within {JOIN_TIMEOUT_S:g} s: use bus.transport=inproc or --mode live"
                    )
                logger.warning(
                    "%s within %g s; the others miss what is sent until then", joined, JOIN_TIMEOUT_S
                )
                break
            if socket.poll(SLICE_MS):
                self._read_notices(socket)
        self._complete = True

    def _read_notices(self, socket: zmq.Socket[bytes]) -> None:
        for _ in range(MAX_NOTICES):
            try:  # without asking for EVENTS, where pyzmq reads all that has come and keeps Python's lock
                notice = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            name = notice[1:]
            if not name.startswith(self._token) or not name.endswith(self.topic.encode()):
                continue
            if notice[:1] == b"\x01":
                self._present.add(name)
            else:
                self._present.discard(name)
