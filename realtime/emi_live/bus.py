"""The bus of one engine: one publisher per topic, and any number of subscriptions.

Each end is used by one thread. `PacketReader` and `PacketWriter` are what stages, fusion and sinks know of
the ends; fakes implement the same.
"""

from __future__ import annotations

import itertools
import logging
import math
import secrets
import threading
import time
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
import zmq

from emi_live.clock import Clock, MonotonicClock
from emi_live.config import BusConfig
from emi_live.errors import ConfigurationError, StageError, WireError
from emi_live.health import Health
from emi_live.messages import END_OF_STREAM, Packet
from emi_live.ports import Context, CurveKeys, Endpoints, KeyGate, Port, keep_alive
from emi_live.wire import MAX_FRAME_BYTES, TOPICS, Buffer, decode, encode

__all__ = ["Bus", "PacketReader", "PacketWriter", "Publisher", "Subscription"]

logger = logging.getLogger(__name__)

SLICE_MS: Final = 50  # longest wait before the next look whether the bus is being stopped
RECONNECT_MS: Final = 20  # for a subscriber that was made before its publisher
JOIN_TIMEOUT_S: Final = 10.0  # subscribers in the same process join within milliseconds
END_TIMEOUT_S: Final = 1.0  # how long the last packet of a live stream is repeated
CLOSE_TIMEOUT_S: Final = 2.0
MAX_REFUSED: Final = 64  # bad messages read per call, so that a flood of them cannot delay the reader


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


class Bus:
    """Makes publishers and subscriptions over one ZeroMQ context, stops them and closes everything.

    The thread that builds the engine makes all of them, before any packet is published; each is then used
    by one thread. The bus starts no thread but ZeroMQ's own and, on TCP, those that guard its ports. To shut
    down: `stop`, then let the using threads end, then `close`.
    """

    def __init__(
        self, config: BusConfig, health: Health, *, lossless: bool, clock: Clock | None = None
    ) -> None:
        """Open a bus.

        Args:
            config: transport, addresses, keys and queue lengths.
            health: counts packets that were dropped or refused.
            lossless: a publisher waits for a full subscriber; otherwise the packet is dropped.
            clock: stamps packets.

        Raises:
            ConfigurationError: keys that do not fit, or no private folder for the sockets.
        """
        self._config = config
        self._health = health
        self._lossless = lossless
        self._clock = clock or MonotonicClock()
        self._stop = threading.Event()
        self._keys = CurveKeys.of(config) if config.transport == "tcp" else None
        self._token = b"\xffemi-joined-" + secrets.token_hex(8).encode() + b"-"
        self._numbers = itertools.count()
        self._publishers: dict[str, Publisher] = {}
        self._subscriptions: list[Subscription] = []
        self._endpoints = Endpoints(config)
        self._context = Context()
        self._gate = None if self._keys is None else KeyGate(self._context, self._keys)
        self._closed = False

    def __enter__(self) -> Bus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def publisher(self, topic: str, subscribers: int | None = None) -> Publisher:
        """The topic's publisher, bound to its endpoint.

        Its first packet waits until `subscribers` of this process have joined; None: those made by then.

        Raises:
            ConfigurationError: not a topic, a second publisher of it, or its address is taken.
        """
        if topic not in TOPICS or topic in self._publishers:
            raise ConfigurationError(
                f"the bus cannot publish {topic!r}: one publisher each of {', '.join(TOPICS)}"
            )
        port = Port(
            self._context,
            self._endpoints.to_bind(topic),
            high_water_mark=self._config.high_water_mark,
            keys=self._keys,
            name=f"bus.{topic}",
            health=self._health,
        )
        port.socket.sndtimeo = SLICE_MS
        port.socket.setsockopt(zmq.XPUB_NODROP, int(self._lossless))
        publisher = self._publishers[topic] = Publisher(self, topic, port, subscribers)
        return publisher

    def subscriber(self, topics: str | Sequence[str]) -> Subscription:
        """A subscription to one or more topics; their publishers may be made before or after it.

        Raises:
            ConfigurationError: no topic, or not one of the bus.
        """
        wanted = (topics,) if isinstance(topics, str) else tuple(dict.fromkeys(topics))
        if not wanted or not set(wanted) <= set(TOPICS):
            raise ConfigurationError(f"the bus has no topics {wanted!r}; it has {', '.join(TOPICS)}")
        socket = self._context.socket(zmq.SUB)
        socket.linger = 0
        socket.rcvhwm = self._config.high_water_mark
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        if self._config.transport == "tcp":
            socket.setsockopt(zmq.IPV6, int(":" in self._config.host))
            keep_alive(socket)
        if self._keys is not None:
            self._keys.present(socket)
        for topic in wanted:
            socket.connect(self._endpoints.to_connect(topic))
        number = next(self._numbers)
        tokens = {topic: self._token + f"{number}-{topic}".encode() for topic in wanted}
        # A publisher that has received a token has the subscriptions sent before it, too.
        for name in (*(topic.encode() for topic in wanted), *tokens.values()):
            socket.subscribe(name)
        subscription = Subscription(self, tokens, socket)
        self._subscriptions.append(subscription)
        return subscription

    def stop(self) -> None:
        """End every wait within 50 ms, and discard what is published from now on; any thread may call."""
        self._stop.set()

    def close(self) -> None:
        """Stop, and close every socket; waits up to 2 s for threads that still use one, never for peers."""
        if self._closed:
            return
        self._closed = True
        self.stop()
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        in_use: list[str] = []
        for end in (*self._publishers.values(), *self._subscriptions):
            try:
                end.close(max(0.0, deadline - time.monotonic()))
            except RuntimeError as error:
                in_use.append(str(error))
        if self._gate is not None:
            self._gate.close()
        if in_use:  # closing a socket under a running thread would crash the process
            logger.error("the bus is left open: %s", "; ".join(in_use))
            return
        self._context.term()
        self._endpoints.close()


class _BusEnd:
    """A ZeroMQ socket and the one thread that may use it.

    The thread that builds the engine makes the socket. ZeroMQ sockets are not thread-safe, but may move to
    another thread before their first use there.
    """

    def __init__(self, bus: Bus, socket: zmq.Socket[bytes], purpose: str) -> None:
        self._bus = bus
        self._socket = socket
        self._purpose = purpose
        self._owner: threading.Thread | None = None

    @property
    def closed(self) -> bool:
        """Whether the socket is closed."""
        return bool(self._socket.closed)

    def _use(self) -> zmq.Socket[bytes]:
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

    def close(self, timeout_s: float = 0.0) -> None:
        """Close the socket, unsent messages too; wait `timeout_s` for the thread that uses it to end.

        Raises:
            RuntimeError: that thread is still running, and is not the calling one.
        """
        owner = self._owner
        if owner is not None and owner is not threading.current_thread() and not self.closed:
            owner.join(timeout_s)
            if owner.is_alive() and not self.closed:
                raise RuntimeError(f"{self._purpose} is still in use by {owner.name}")
        self._release()

    def _release(self) -> None:
        self._socket.close(linger=0)


class Publisher(_BusEnd):
    """Stamps and sends the packets of one topic; used by one thread.

    The first packet waits until every subscriber of this process has joined, so none is lost. Live, sending
    never waits: at the high-water mark a packet is dropped for the subscriber that is behind, which counts
    it; only the last packet is repeated, for up to 1 s, until all subscribers of this process have read it.
    Lossless, sending waits until all subscribers have room. Once the bus is stopped, packets are discarded.
    """

    def __init__(self, bus: Bus, topic: str, port: Port, subscribers: int | None) -> None:
        """For `Bus.publisher`."""
        super().__init__(bus, port.socket, f"the publisher of {topic}")
        self.topic = topic
        self._port = port
        self._subscribers = subscribers
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
        socket, stop = self._use(), self._bus._stop
        if not self._complete:
            self._await_subscribers(socket)
        self._read_notices()
        now_ns = self._bus._clock.now_ns()
        frames = encode(msgspec.structs.replace(packet, seq=self._seq, published_ns=now_ns))
        self._seq += 1
        sent = False
        while not sent and not stop.is_set():
            sent = _send(socket, frames)
            if not sent:
                self._read_notices()
        if not self._bus._lossless and packet.progress_ns == END_OF_STREAM:
            self._repeat(socket, frames)

    def _repeat(self, socket: zmq.Socket[bytes], frames: Sequence[Buffer]) -> None:
        deadline = time.monotonic() + END_TIMEOUT_S
        while self._present and not self._bus._stop.is_set() and time.monotonic() < deadline:
            if socket.poll(SLICE_MS):
                self._read_notices()
            else:
                _send(socket, frames)

    def _expected(self) -> int:
        if self._subscribers is not None:
            return self._subscribers
        return sum(self.topic in one.topics and not one.closed for one in self._bus._subscriptions)

    def _await_subscribers(self, socket: zmq.Socket[bytes]) -> None:
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        while len(self._present) < (expected := self._expected()) and not self._bus._stop.is_set():
            if time.monotonic() > deadline:
                joined = f"{len(self._present)} of {expected} subscribers of {self.topic} joined"
                if self._bus._lossless:
                    raise StageError(
                        f"{joined} within {JOIN_TIMEOUT_S:g} s: use bus.transport=inproc or --mode live"
                    )
                logger.warning(
                    "%s within %g s; the others miss what is sent until then", joined, JOIN_TIMEOUT_S
                )
                break
            if socket.poll(SLICE_MS):
                self._read_notices()
        self._complete = True

    def _read_notices(self) -> None:
        for notice in self._port.notices():
            name = notice[1:]
            if name.startswith(self._bus._token) and name.endswith(self.topic.encode()):
                change = self._present.add if notice[:1] == b"\x01" else self._present.discard
                change(name)

    def _release(self) -> None:
        self._port.close()


class Subscription(_BusEnd):
    """The packets of some topics, in order per topic; used by one thread.

    Packets missing from a topic's sequence are counted as `bus.<topic>.dropped`; messages that are not
    packets, as `bus.<topic>.refused`, and the first of them is logged.
    """

    def __init__(self, bus: Bus, tokens: dict[str, bytes], socket: zmq.Socket[bytes]) -> None:
        """For `Bus.subscriber`; `tokens` are by topic, and tell its publisher that this end is there."""
        super().__init__(bus, socket, f"the subscription to {', '.join(tokens)}")
        self.topics = tuple(tokens)
        self._tokens = tokens
        self._next_seq = dict.fromkeys(tokens, 0)
        self._ended: set[str] = set()
        self._refused = False

    @property
    def ended(self) -> bool:
        """Whether the last packet of every topic has been read."""
        return len(self._ended) == len(self.topics)

    def read(self) -> Packet | None:
        """The next packet, or None when none has arrived; never waits. Its array is read-only."""
        socket = self._use()
        for _ in range(MAX_REFUSED):
            frames = _receive(socket)
            if frames is None:
                return None
            try:
                packet = decode(frames)
            except WireError as error:
                self._refuse(frames[0], error)
                continue
            if self._is_new(packet, socket):
                return packet
        return None

    def wait(self, timeout_s: float) -> bool:
        """Wait for a message; False after `timeout_s`, or within 50 ms of the bus being stopped."""
        socket = self._use()
        deadline = time.monotonic() + timeout_s
        while True:
            left_ms = max(0, math.ceil(1000 * (deadline - time.monotonic())))
            if socket.poll(min(SLICE_MS, left_ms)):
                return True
            if left_ms <= SLICE_MS or self._bus._stop.is_set():
                return False

    def _is_new(self, packet: Packet, socket: zmq.Socket[bytes]) -> bool:
        """Count what is missing from the sequence; False for the repeat of a last packet."""
        if packet.topic in self._ended:
            return False
        dropped = packet.seq - self._next_seq.get(packet.topic, packet.seq)
        if dropped > 0:
            self._bus._health.count(f"bus.{packet.topic}.dropped", dropped)
        self._next_seq[packet.topic] = packet.seq + 1
        if packet.progress_ns == END_OF_STREAM:
            self._ended.add(packet.topic)
            socket.unsubscribe(self._tokens[packet.topic])  # tells the publisher that it was read
        return True

    def _refuse(self, name: Buffer, error: WireError) -> None:
        topic = next((known for known in self.topics if known.encode() == name), self.topics[0])
        self._bus._health.count(f"bus.{topic}.refused")
        if not self._refused:
            self._refused = True
            logger.warning("a message of the bus was refused, further ones are only counted: %s", error)


def _send(socket: zmq.Socket[bytes], frames: Sequence[Buffer]) -> bool:
    """Send one message; False if there was no room for `SLICE_MS`, which happens only in lossless mode.

    A frame of less than 64 KiB (`zmq.COPY_THRESHOLD`) is copied: that costs less than to share the memory.
    """
    try:
        socket.send_multipart(frames, copy=False)
    except zmq.Again:
        return False
    return True


def _receive(socket: zmq.Socket[bytes]) -> list[Buffer] | None:
    """The frames of the next message; None when there is none.

    They are ZeroMQ's own memory and are not copied, except in the main thread: Python handles signals there,
    and pyzmq would swallow the KeyboardInterrupt of a Ctrl-C that comes while it frees such a frame.
    """
    try:
        if threading.current_thread() is threading.main_thread():
            return [*socket.recv_multipart(zmq.NOBLOCK)]
        return [frame.buffer for frame in socket.recv_multipart(zmq.NOBLOCK, copy=False)]
    except zmq.Again:
        return None
