"""The ends of the bus: a publisher of one topic and a subscription to some, each used by one thread.

`PacketReader` and `PacketWriter` are what stages, fusion and sinks know of them. Fakes implement the same.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
import zmq

from emi_live.bus.wire import Buffer, decode, encode
from emi_live.clock import Clock
from emi_live.errors import StageError, WireError
from emi_live.health import Health
from emi_live.messages import END_OF_STREAM, Packet

__all__ = ["SLICE_MS", "Handle", "PacketReader", "PacketWriter", "Publisher", "Subscription"]

logger = logging.getLogger(__name__)

SLICE_MS: Final = 50  # longest wait before the next look whether the bus is being stopped
JOIN_TIMEOUT_S: Final = 10.0  # subscribers in the same process join within milliseconds
END_TIMEOUT_S: Final = 1.0  # how long the last packet of a live stream is repeated
MAX_NOTICES: Final = 256  # (un)subscriptions read per packet, so that a flood of them cannot hold up a stage
MAX_FRAMES: Final = 4  # kept of one message: one more than a packet has, enough to refuse it
PAYLOAD: Final = 2  # which frame of a packet the array is
MAX_REFUSED: Final = 64  # bad messages read per call, so that a flood of them cannot hold up the reader
# An array of so many bytes or more is not copied. Below that a copy costs less than sharing the memory.
SHARE_BYTES: Final = 64 * 1024


class PacketReader(Protocol):
    """A subscription; used by one thread."""

    @property
    def ended(self) -> bool:
        """Whether the last packet of every topic has been read."""
        ...

    def read(self) -> Packet | None:
        """The next packet, or None when none has arrived; never waits."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Wait for a packet; False after `timeout_s`."""
        ...

    def close(self) -> None:
        """Leave the topics."""
        ...


class PacketWriter(Protocol):
    """A publisher of one topic; used by one thread."""

    def publish(self, packet: Packet) -> None:
        """Send one packet, stamped with its number and the time."""
        ...


class Handle:
    """A ZeroMQ socket and the one thread that may use it.

    The thread that builds the engine makes the socket. ZeroMQ sockets are not thread-safe, but may move to
    another thread before their first use there.
    """

    def __init__(self, socket: zmq.Socket[bytes], purpose: str) -> None:
        self._socket = socket
        self._purpose = purpose
        self._owner: threading.Thread | None = None

    @property
    def owner(self) -> threading.Thread | None:
        """The thread that has used the socket; None until then."""
        return self._owner

    @property
    def closed(self) -> bool:
        """Whether the socket is closed."""
        return bool(self._socket.closed)

    def use(self) -> zmq.Socket[bytes]:
        """The socket, for the calling thread only.

        Raises:
            RuntimeError: another thread has used it.
        """
        current = threading.current_thread()
        if self._owner is None:
            self._owner = current
        elif self._owner is not current:
            raise RuntimeError(
                f"{self._purpose} belongs to {self._owner.name}, but was used by {current.name}"
            )
        return self._socket

    def close(self) -> None:
        """Close the socket, unsent messages too; call it from its own thread or after that ended.

        Raises:
            RuntimeError: its thread is another one and is still running.
        """
        if (
            self._owner is not None
            and self._owner is not threading.current_thread()
            and self._owner.is_alive()
        ):
            raise RuntimeError(f"{self._purpose} is still in use by {self._owner.name}")
        self._socket.close(linger=0)


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
            WireError: the packet is of another topic, or cannot be written.
            StageError: lossless, and a subscriber of this process did not join in time.
        """
        if packet.topic != self.topic:
            raise WireError(f"a {packet.topic} packet was given to the publisher of {self.topic}")
        socket = self.handle.use()
        if not self._complete:
            self._await_subscribers(socket)
        self._read_notices(socket)
        frames = encode(msgspec.structs.replace(packet, seq=self._seq, published_ns=self._clock.now_ns()))
        self._seq += 1
        if self._lossless:
            self._send_patiently(socket, frames)
        elif not self._stop.is_set():
            _send(socket, frames)
            if packet.progress_ns == END_OF_STREAM:
                self._repeat(socket, frames)

    def close(self) -> None:
        """Close the socket; call it from the thread that publishes, or after that ended."""
        self.handle.close()

    def _send_patiently(self, socket: zmq.Socket[bytes], frames: Sequence[Buffer]) -> None:
        while not self._stop.is_set():
            try:
                _send(socket, frames)  # waits for room, for SLICE_MS at most
            except zmq.Again:
                self._read_notices(socket)
            else:
                return

    def _repeat(self, socket: zmq.Socket[bytes], frames: Sequence[Buffer]) -> None:
        deadline = time.monotonic() + END_TIMEOUT_S
        while self._present and not self._stop.is_set() and time.monotonic() < deadline:
            if socket.poll(SLICE_MS):
                self._read_notices(socket)
            else:
                _send(socket, frames)

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
        """The next packet, or None when none has arrived; never waits. Its array is read-only."""
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

    def _refuse(self, name: Buffer, error: WireError) -> None:
        topic = next((known for known in self.topics if known.encode() == name), self.topics[0])
        self._health.count(f"bus.{topic}.refused")
        if not self._refused:
            self._refused = True
            logger.warning("a message of the bus was refused, further ones are only counted: %s", error)


def _send(socket: zmq.Socket[bytes], frames: Sequence[Buffer]) -> None:
    """Send one message. Only the first frame may wait for room, and raise `zmq.Again`."""
    *others, payload = frames
    for frame in others:
        socket.send(frame, zmq.SNDMORE)
    socket.send(payload, 0, copy=len(payload) < SHARE_BYTES)


def _receive(socket: zmq.Socket[bytes]) -> list[Buffer] | None:
    """The first frames of the next message, however many it has; None when there is none.

    The payload is ZeroMQ's own memory, and is not copied, except in the main thread: Python handles signals
    there, and pyzmq would swallow the KeyboardInterrupt of a Ctrl-C that comes while it frees such a frame.
    """
    copies = threading.current_thread() is threading.main_thread()
    try:
        frames: list[Buffer] = [socket.recv(zmq.NOBLOCK)]
    except zmq.Again:
        return None
    while socket.getsockopt(zmq.RCVMORE):
        # The frames of a message arrive together, so that this does not wait.
        if len(frames) == PAYLOAD:
            frames.append(socket.recv(zmq.NOBLOCK) if copies else socket.recv(zmq.NOBLOCK, copy=False).buffer)
            continue
        frame = socket.recv(zmq.NOBLOCK)
        if len(frames) < MAX_FRAMES:
            frames.append(frame)
    return frames
