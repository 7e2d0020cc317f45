"""What strangers may ask of a port that is bound: few connections, few bytes, or the connection is cut.

ZeroMQ reads subscriptions without limit, keeps each, and reads them in the thread that publishes. A
subscriber says little: its greeting and its topics. So bytes received are what tells a flood, and the kernel
counts them for each connection (TCP_INFO).
"""

from __future__ import annotations

import os
import socket as sockets
import struct
import threading
import time
from contextlib import suppress
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from emi_live.health import Health
from emi_live.worker import Backoff, Worker

__all__ = ["PortGuard", "harden", "keep_alive"]

MAX_CLIENTS: Final = 64  # at a time; more are refused as they come
MAX_NEW: Final = 64  # connections in a row, and then NEW_PER_S: each costs a thread of ZeroMQ's a handshake
NEW_PER_S: Final = 16.0
MAX_BYTES: Final = (
    4096  # of one client: greeting, handshake and CURVE take under 1 KiB, a topic about 12 bytes
)
BYTES_PER_S: Final = 256.0  # for changes of mind, and heartbeats of the client's own
MAX_NOTICE_BYTES: Final = 1024  # a subscription is a topic and a byte
HANDSHAKE_MS: Final = 3000  # then a client that has not said what it is goes
KEEPALIVE_S: Final = 5  # of silence, then the kernel asks whether the other end lives
MAX_EVENTS: Final = 1000  # new connections looked at before those that are there
POLL_MS: Final = 20  # how soon a flood is seen
JOIN_S: Final = 2.0
BYTES_RECEIVED: Final = struct.Struct("128xQ")  # where tcp_info of Linux has it, since 4.1


def harden(socket: zmq.Socket[bytes], *, tcp: bool) -> None:
    """Set what ZeroMQ itself limits on an XPUB socket; before it is bound.

    There is no high-water mark for what comes in. Where it stops reading, a client that then resets its
    connection ends the process: libzmq 4.3.5 asserts in `stream_engine_base.cpp`, out_event, at the next
    heartbeat of either side. The bytes of each client are limited instead.
    """
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_NOTICE_BYTES)
    socket.rcvhwm = 0
    if tcp:
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        keep_alive(socket)


def keep_alive(socket: zmq.Socket[bytes]) -> None:
    """Notice a TCP peer that went without a word, by the kernel's means; ZeroMQ's heartbeats can abort."""
    for option, value in (
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_S),
        (zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_S),
        (zmq.TCP_KEEPALIVE_CNT, 2),
    ):
        socket.setsockopt(option, value)


class PortGuard:
    """The thread that counts the connections of one bound TCP socket and cuts those that ask for too much.

    Each that is cut is counted as `<name>.refused`. Make it before the socket is bound, `start` it after
    that, and close it after the socket, which would wait for somebody to read what it reports.
    """

    def __init__(self, socket: zmq.Socket[bytes], name: str, health: Health) -> None:
        self._socket = socket
        self._name = name
        self._health = health
        self._monitor = socket.get_monitor_socket(zmq.EVENT_ACCEPTED)
        self._clients: dict[tuple[object, ...], tuple[int, float]] = {}  # by address: file and since when
        self._allowance = float(MAX_NEW)
        self._port: int | None = None
        self._worker = Worker(f"{name}-guard", self._run, Health(), restart=Backoff())

    def start(self) -> None:
        """Watch the port that the socket has been bound to."""
        endpoint = str(self._socket.get_string(zmq.LAST_ENDPOINT)).rstrip("\0")
        self._port = int(endpoint.rpartition(":")[2])
        self._worker.start()  # from here on the monitor is that thread's

    def close(self) -> None:
        """Stop watching."""
        self._worker.request_stop()
        if self._worker.join(JOIN_S):
            self._monitor.close(linger=0)

    def _run(self, stop: threading.Event) -> None:
        then = time.monotonic()
        while not stop.is_set():
            self._monitor.poll(POLL_MS)
            now = time.monotonic()
            self._allowance = min(float(MAX_NEW), self._allowance + (now - then) * NEW_PER_S)
            then = now
            with suppress(zmq.Again):
                for _ in range(MAX_EVENTS):
                    event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
                    self._accepted(int(event["value"]), now)
            for address, (file, since) in list(self._clients.items()):
                self._look_at(address, file, BYTES_PER_S * (now - since) + MAX_BYTES)

    def _accepted(self, file: int, now: float) -> None:
        connection = self._connection(file)
        if connection is None:  # gone already
            return
        with connection:
            address = _peer(connection)
            if address is None:
                return
            if len(self._clients) >= MAX_CLIENTS or self._allowance < 1.0:
                self._cut(connection)
                return
            self._allowance -= 1.0
            self._clients[address] = (file, now)

    def _look_at(self, address: tuple[object, ...], file: int, most: float) -> None:
        """Forget a client that went, and cut one that has sent more than this many bytes."""
        connection = self._connection(file)
        if connection is None:
            del self._clients[address]
            return
        with connection:
            if _peer(connection) != address:
                del self._clients[address]
            elif _received(connection) > most:
                del self._clients[address]
                self._cut(connection)

    def _cut(self, connection: sockets.socket) -> None:
        self._health.count(f"{self._name}.refused")
        with suppress(OSError):
            connection.shutdown(sockets.SHUT_RDWR)  # ZeroMQ sees its end, and forgets what it asked for

    def _connection(self, file: int) -> sockets.socket | None:
        """A handle of our own to a file of ZeroMQ's; None if that number is now anything else's."""
        try:
            own = os.dup(file)
        except OSError:
            return None
        try:
            connection = sockets.socket(fileno=own)
        except OSError:  # no socket any more
            os.close(own)
            return None
        try:
            name = connection.getsockname()
        except OSError:
            name = None
        if isinstance(name, tuple) and name[1] == self._port and connection.type == sockets.SOCK_STREAM:
            return connection
        connection.close()
        return None


def _peer(connection: sockets.socket) -> tuple[object, ...] | None:
    try:
        return tuple(connection.getpeername())
    except OSError:
        return None


def _received(connection: sockets.socket) -> int:
    try:
        info = connection.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, BYTES_RECEIVED.size)
    except OSError:
        return 0
    return int(BYTES_RECEIVED.unpack(info)[0]) if len(info) == BYTES_RECEIVED.size else 0
