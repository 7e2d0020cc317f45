"""The receiving end of one or more topics."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from typing import Final

import zmq

from emi_live.bus.handle import SLICE_MS, Handle
from emi_live.bus.wire import decode
from emi_live.errors import WireError
from emi_live.health import Health
from emi_live.messages import END_OF_STREAM, Packet

__all__ = ["Subscription"]

logger = logging.getLogger(__name__)

MAX_FRAMES: Final = 4  # kept of one message: one more than a packet has, enough to refuse it
MAX_REFUSED: Final = 64  # bad messages looked at per read, so that a flood of them cannot hold up the reader


class Subscription:
    """The packets of some topics, in order per topic; used by one thread.

    Packets missing from a topic's sequence are counted as `bus.<topic>.dropped`; messages that are not
    packets, as `bus.<topic>.refused`, and the first of them is logged.
    """

    def __init__(
        self, topics: Mapping[str, bytes], handle: Handle, health: Health, stop: threading.Event
    ) -> None:
        """Take over a connected SUB socket, for `Bus.subscriber`; `topics` gives the token of each topic."""
        self.topics = tuple(topics)
        self._tokens = dict(topics)
        self.handle = handle
        self._health = health
        self._stop = stop
        self._expected = dict.fromkeys(self.topics, 0)  # sequence number that comes next
        self._ended: set[str] = set()
        self._refused = False

    @property
    def ended(self) -> bool:
        """Whether the last packet of every topic has been read."""
        return len(self._ended) == len(self.topics)

    def read(self) -> Packet | None:
        """The next packet, or None when none has arrived; never waits. Its arrays are the caller's."""
        socket = self.handle.use()
        for _ in range(MAX_REFUSED):
            frames = _receive(socket)
            if frames is None:
                return None
            try:
                packet = decode(frames)
            except WireError as error:
                self._refuse(frames[0], error)
                continue
            if self._follow(packet, socket):
                return packet
        return None

    def wait(self, timeout_s: float) -> bool:
        """Wait for a message; False after `timeout_s`, or within 50 ms of the bus being stopped."""
        socket = self.handle.use()
        deadline = time.monotonic() + timeout_s
        while True:
            left_ms = max(0, math.ceil(1000 * (deadline - time.monotonic())))
            if socket.poll(min(SLICE_MS, left_ms)):
                return True
            if left_ms <= SLICE_MS or self._stop.is_set():
                return False

    def close(self) -> None:
        """Leave the topics; call it from the thread that reads, or after that ended."""
        self.handle.close()

    def _follow(self, packet: Packet, socket: zmq.Socket[bytes]) -> bool:
        """Keep account of the sequence; False for the repeat of a last packet."""
        if packet.topic in self._ended:
            return False
        dropped = packet.seq - self._expected.get(packet.topic, packet.seq)
        if dropped > 0:
            self._health.count(f"bus.{packet.topic}.dropped", dropped)
        self._expected[packet.topic] = packet.seq + 1
        if packet.progress_ns == END_OF_STREAM:
            self._ended.add(packet.topic)
            socket.setsockopt(zmq.UNSUBSCRIBE, self._tokens[packet.topic])  # tells the publisher: seen
        return True

    def _refuse(self, name: bytes, error: WireError) -> None:
        topic = next((known for known in self.topics if known.encode() == name), self.topics[0])
        self._health.count(f"bus.{topic}.refused")
        if not self._refused:
            self._refused = True
            logger.warning("a message of the bus was refused, further ones are only counted: %s", error)


def _receive(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    """The first frames of the next message, however many it has; None when there is none."""
    try:
        frames = [socket.recv(zmq.NOBLOCK)]
    except zmq.Again:
        return None
    while socket.getsockopt(zmq.RCVMORE):
        frame = socket.recv(zmq.NOBLOCK)  # the frames of a message arrive together
        if len(frames) < MAX_FRAMES:
            frames.append(frame)
    return frames
