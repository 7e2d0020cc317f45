"""The fabric of one engine: makes publishers and subscriptions, stops them and closes everything."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final

import zmq

from emi_live.bus.curve import CurveKeys, KeyGate
from emi_live.bus.endpoints import Endpoints
from emi_live.bus.guard import PortGuard, harden, keep_alive
from emi_live.bus.sockets import SLICE_MS, Handle, Publisher, Subscription
from emi_live.bus.wire import MAX_FRAME_BYTES, TOPICS
from emi_live.clock import Clock, MonotonicClock
from emi_live.config import BusConfig
from emi_live.errors import ConfigurationError
from emi_live.health import Health

__all__ = ["Bus"]

logger = logging.getLogger(__name__)

RECONNECT_MS: Final = 20  # for a subscriber that was made before its publisher
CLOSE_TIMEOUT_S: Final = 2.0


class Bus:
    """One publisher per topic and any number of subscriptions, over one ZeroMQ context.

    The thread that builds the engine makes all of them, before any packet is published; each is then used
    by one thread. The bus has no thread of its own but ZeroMQ's and, with CURVE keys, the gate that checks
    them. To shut down: `stop`, then let the using threads end, then `close`.
    """

    def __init__(
        self, config: BusConfig, health: Health, *, lossless: bool, clock: Clock | None = None
    ) -> None:
        """Open a bus; `lossless` makes a full subscriber hold up its publisher instead of losing packets.

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
        self._guards: list[PortGuard] = []
        self._subscriptions: list[Subscription] = []
        self._endpoints = Endpoints(config)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._gate = None if self._keys is None else KeyGate(self._context, self._keys)
        self._closed = False

    def __enter__(self) -> Bus:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        socket = self._context.socket(zmq.XPUB)
        self._set_common(socket)
        socket.sndhwm = self._config.high_water_mark
        socket.sndtimeo = SLICE_MS
        tcp = self._config.transport == "tcp"
        harden(socket, tcp=tcp)
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        socket.setsockopt(zmq.XPUB_NODROP, int(self._lossless))
        if self._keys is not None:
            self._keys.guard(socket)
        guard = PortGuard(socket, f"bus.{topic}", self._health) if tcp else None
        self._guards += [] if guard is None else [guard]
        try:
            address = self._endpoints.to_bind(topic)
            socket.bind(address)
        except zmq.ZMQError as error:
            socket.close()
            raise ConfigurationError(
                f"the bus cannot bind {address} for {topic}: {os.strerror(error.errno or 0)}; "
                "set bus.base_port or bus.host, or use bus.transport=inproc"
            ) from error
        except ConfigurationError:
            socket.close()
            raise
        if guard is not None:
            guard.start()
        publisher = Publisher(
            topic,
            Handle(socket, f"the publisher of {topic}"),
            token=self._token,
            subscribers=lambda: self._subscriber_count(topic) if subscribers is None else subscribers,
            stop=self._stop,
            clock=self._clock,
            lossless=self._lossless,
        )
        self._publishers[topic] = publisher
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
        self._set_common(socket)
        socket.rcvhwm = self._config.high_water_mark
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        if self._keys is not None:
            self._keys.present(socket)
        for topic in wanted:
            socket.connect(self._endpoints.to_connect(topic))
        for topic in wanted:
            socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
        number = next(self._numbers)
        tokens = {topic: self._token + f"{number}-{topic}".encode() for topic in wanted}
        for token in tokens.values():  # comes last: a receiver of it has the subscriptions before it
            socket.setsockopt(zmq.SUBSCRIBE, token)
        subscription = Subscription(
            tokens, Handle(socket, f"the subscription to {', '.join(wanted)}"), self._health, self._stop
        )
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
        stuck = [handle for handle in self._handles() if not _close(handle, deadline)]
        for guard in self._guards:
            guard.close()
        if self._gate is not None:
            self._gate.close()
        if stuck:  # closing a socket under a running thread would crash the process
            logger.error(
                "the bus is left open: %s still use it", ", ".join(_owner_name(handle) for handle in stuck)
            )
            return
        self._context.term()
        self._endpoints.close()

    def _set_common(self, socket: zmq.Socket[bytes]) -> None:
        socket.linger = 0
        if self._config.transport == "tcp":
            socket.setsockopt(zmq.IPV6, int(":" in self._config.host))
            keep_alive(socket)

    def _subscriber_count(self, topic: str) -> int:
        return sum(topic in s.topics and not s.handle.closed for s in self._subscriptions)

    def _handles(self) -> list[Handle]:
        publishers = [publisher.handle for publisher in self._publishers.values()]
        return publishers + [subscription.handle for subscription in self._subscriptions]


def _close(handle: Handle, deadline: float) -> bool:
    owner = handle.owner
    if owner is not None and owner is not threading.current_thread() and not handle.closed:
        owner.join(max(0.0, deadline - time.monotonic()))
        if owner.is_alive() and not handle.closed:
            return False
    if not handle.closed:
        handle.close()
    return True


def _owner_name(handle: Handle) -> str:
    return handle.owner.name if handle.owner is not None else "nobody"
