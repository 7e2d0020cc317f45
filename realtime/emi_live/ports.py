"""Bound sockets: at which address, for holders of which keys, and how much a client may ask for.

Keys. The engine and its clients share one CURVE key pair. CURVE alone encrypts, but accepts any client key.
`KeyGate` (ZAP, ZeroMQ RFC 27) refuses a client that has not proved to hold our secret key.

Limits. ZeroMQ reads subscriptions without limit, keeps each, and reads them in the thread that publishes. A
subscriber sends little: its greeting and its topics. So `PortGuard` cuts connections by the bytes they sent,
which the kernel counts for each (TCP_INFO).
"""

from __future__ import annotations

import logging
import os
import socket as sockets
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from emi_live.config import BusConfig
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.wire import TOPICS
from emi_live.worker import Backoff, Worker

__all__ = ["Context", "CurveKeys", "Endpoints", "KeyGate", "Port", "keep_alive", "make_pair"]

logger = logging.getLogger(__name__)

MAX_SOCKET_PATH: Final = 107  # bytes in sockaddr_un.sun_path, less the closing zero
ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}  # noqa: S104 # bound only with keys

ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"  # fixed by RFC 27
ZAP_DOMAIN: Final = b"emi-live"
GATE_POLL_MS: Final = 50  # how soon the gate notices that it has to stop

MAX_CLIENTS: Final = 64  # at a time; further ones are refused
MAX_NEW: Final = 64  # connections in a row, and then NEW_PER_S: each costs a thread of ZeroMQ a handshake
NEW_PER_S: Final = 16.0
MAX_BYTES: Final = 4096  # of one client: greeting, handshake and CURVE take under 1 KiB, a topic 12 bytes
BYTES_PER_S: Final = 256.0  # on top: for topics that change, and heartbeats of the client
MAX_NOTICE_BYTES: Final = 1024  # a subscription is a topic and a byte
MAX_NOTICES: Final = 256  # (un)subscriptions read at a time, so that a flood of them cannot delay a publisher
HANDSHAKE_MS: Final = 3000  # then a client that has not finished its handshake is disconnected
KEEPALIVE_S: Final = 5  # of silence, then the kernel asks whether the other end is still there
MAX_EVENTS: Final = 1000  # new connections handled before the known ones are checked again
GUARD_POLL_MS: Final = 20  # how soon a flood is noticed
BYTES_RECEIVED: Final = struct.Struct("128xQ")  # where tcp_info of Linux has it, since 4.1
JOIN_S: Final = 2.0


class Context(zmq.Context[zmq.Socket[bytes]]):
    """A ZeroMQ context that never waits when it is collected: it closes its sockets first.

    pyzmq's own refers to its sockets weakly. Python clears such references before it collects a cycle: that
    context would find none of them, and wait for ever. What a thread still uses is never collected.
    """

    _made: list[zmq.Socket[bytes]]  # pyzmq sets no attribute that the class does not name

    def __init__(self) -> None:
        self._made = []
        super().__init__()

    def socket(self, socket_type: int, *args: Any, **kwargs: Any) -> zmq.Socket[bytes]:
        """As zmq.Context.socket."""
        made: zmq.Socket[bytes] = super().socket(socket_type, *args, **kwargs)
        self._made.append(made)
        return made

    def __del__(self) -> None:
        for socket in self._made:
            socket.close(linger=0)
        super().__del__()


class Endpoints:
    """The address of every topic of one bus. For `ipc` it owns the folder of the sockets."""

    def __init__(self, config: BusConfig) -> None:
        """Make the folder where one is needed.

        Raises:
            ConfigurationError: the folder cannot be made, or other users could reach into it.
        """
        self._config = config
        # libzmq binds to addresses and interfaces, not to host names.
        self._host = "127.0.0.1" if config.host == "localhost" else config.host
        self._folder: Path | None = None
        self._made_folder = False
        if config.transport == "ipc":
            self._folder, self._made_folder = _private_folder(config.directory)
            logger.info("the bus has its sockets in %s", self._folder)

    def to_bind(self, topic: str) -> str:
        """The address that the topic's publisher binds."""
        return self._address(topic, self._host)

    def to_connect(self, topic: str) -> str:
        """The address that a subscriber in this process connects to."""
        return self._address(topic, ANY_ADDRESS.get(self._host, self._host))

    def close(self) -> None:
        """Remove the folder if it was made here; call it when every socket is closed."""
        if self._folder is not None and self._made_folder:
            with suppress(OSError):  # it has files of other programs
                self._folder.rmdir()

    def _address(self, topic: str, host: str) -> str:
        match self._config.transport:
            case "inproc":
                return f"inproc://emi-{topic}"  # names of inproc are private to the bus's context
            case "ipc":
                return f"ipc://{self._folder}/{topic}"
            case "tcp":
                name = f"[{host}]" if ":" in host else host
                return f"tcp://{name}:{self._config.base_port + TOPICS.index(topic)}"


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """The key pair that the engine and its clients share, as Z85 text; `repr` does not show the secret."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"CurveKeys(public={self.public.decode()!r})"

    @classmethod
    def of(cls, config: BusConfig) -> CurveKeys | None:
        """The pair in the configuration; None without one.

        Raises:
            ConfigurationError: half a pair, keys that are not Z85, or two keys that do not belong together.
        """
        public, secret = config.curve_public_key, config.curve_secret_key
        if public is None and secret is None:
            return None
        remedy = "make a pair with `emi keys`"
        if public is None or secret is None:
            missing = "curve_public_key" if public is None else "curve_secret_key"
            raise ConfigurationError(f"bus.{missing} is missing; the other key needs it; {remedy}")
        try:
            keys = cls(public.encode("ascii"), secret.encode("ascii"))
            derived = zmq.curve_public(keys.secret) if len(keys.secret) == 40 else b""
            z85.decode(keys.public)
        except (ValueError, KeyError, zmq.ZMQError) as error:
            raise ConfigurationError(
                f"the keys of bus.curve_* are not Z85 text of 40 characters; {remedy}"
            ) from error
        if derived != keys.public:
            raise ConfigurationError(
                f"bus.curve_public_key does not belong to bus.curve_secret_key (Z85, 40 characters); {remedy}"
            )
        return keys

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        """Let a socket that will be bound serve only clients that the context's `KeyGate` accepts."""
        socket.curve_secretkey = self.secret
        socket.curve_publickey = self.public
        socket.curve_server = True
        socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without a gate, every client is refused

    def present(self, socket: zmq.Socket[bytes]) -> None:
        """Let a socket that will be connected prove its pair, and accept only a server with the same pair."""
        socket.curve_secretkey = self.secret
        socket.curve_publickey = self.public
        socket.curve_serverkey = self.public


def make_pair() -> CurveKeys:
    """A new key pair."""
    return CurveKeys(*zmq.curve_keypair())


class KeyGate:
    """The thread that answers, for all sockets of one context, whether a client's key is ours.

    Start it before a guarded socket is bound, and close it before the context is terminated.
    """

    def __init__(self, context: Context, keys: CurveKeys) -> None:
        self._allowed = z85.decode(keys.public)
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ZAP_ENDPOINT)
        self._worker = Worker("bus-keys", self._run, Health())
        self._worker.start()  # from here on only that thread uses the socket

    def close(self) -> None:
        """Stop the thread and release its socket."""
        self._worker.request_stop()
        self._worker.join(JOIN_S)

    def _run(self, stop: threading.Event) -> None:
        with self._socket as socket:
            while not stop.is_set():
                if socket.poll(GATE_POLL_MS):
                    socket.send_multipart(self._answer(socket.recv_multipart()))

    def _answer(self, request: list[bytes]) -> list[bytes]:
        # version, request id, domain, address, identity, mechanism, credentials…
        version, request_id = (*request, b"", b"")[:2]
        known = len(request) == 7 and request[2] == ZAP_DOMAIN and request[5] == b"CURVE"
        if known and request[6] == self._allowed:
            return [version, request_id, b"200", b"OK", b"emi-live", b""]
        return [version, request_id, b"400", b"unknown key", b"", b""]


class Port:
    """A bound XPUB socket; on TCP, `PortGuard` limits its clients.

    There is no high-water mark for what comes in. Where it stops reading, a client that then resets its
    connection ends the process: libzmq 4.3.5 asserts in `stream_engine_base.cpp`, out_event, at the next
    heartbeat of either side. The bytes of each client are limited instead.
    """

    def __init__(
        self,
        context: Context,
        address: str,
        *,
        high_water_mark: int,
        keys: CurveKeys | None,
        name: str,
        health: Health,
    ) -> None:
        """Bind the address; another thread may use the socket from then on.

        Args:
            context: with keys, it has a `KeyGate`.
            address: of inproc, ipc or tcp; a port may be `*`.
            high_water_mark: messages that wait for each client.
            keys: what clients must hold; None: no keys.
            name: what is published; clients that are cut are counted as `<name>.refused`.
            health: has that counter.

        Raises:
            ConfigurationError: the address is in use, or cannot be bound.
        """
        path = Path(address.removeprefix("ipc://")) if address.startswith("ipc://") else None
        if path is not None:
            _check_socket_path(path)
        self._path: Path | None = None
        self.socket = context.socket(zmq.XPUB)
        self.socket.linger = 0
        self.socket.sndhwm = high_water_mark
        self.socket.rcvhwm = 0
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_NOTICE_BYTES)
        if keys is not None:
            keys.guard(self.socket)
        self._guard: PortGuard | None = None
        if address.startswith("tcp://"):
            self.socket.setsockopt(zmq.IPV6, int("[" in address))
            self.socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
            keep_alive(self.socket)
            self._guard = PortGuard(self.socket, name, health)
        try:
            self.socket.bind(address)
            self._path = path
            if path is not None:
                path.chmod(0o600)
        except (zmq.ZMQError, OSError) as error:
            self.close()
            raise ConfigurationError(
                f"{address} cannot be bound for {name}: {os.strerror(error.errno or 0)}; choose another port "
                "or address with --publish, or with bus.base_port and bus.host"
            ) from error
        self.address = str(self.socket.get_string(zmq.LAST_ENDPOINT)).rstrip("\0")
        if self._guard is not None:
            self._guard.start(int(self.address.rpartition(":")[2]))

    def notices(self) -> Iterator[bytes]:
        """What clients asked for since the last call, at most 256 each time: 1 or 0, and a topic."""
        for _ in range(MAX_NOTICES):
            try:  # without asking for EVENTS, where pyzmq reads all that has come and keeps Python's lock
                yield self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return

    def close(self) -> None:
        """Release the address at once, and drop unsent messages; closing again does nothing."""
        if self._path is not None:  # removed before the socket is closed: no other program can have bound it
            self._path.unlink(missing_ok=True)
            self._path = None
        self.socket.close(linger=0)
        if self._guard is not None:
            self._guard.close()


class PortGuard:
    """The thread that counts the connections of one bound TCP socket and cuts those that ask for too much.

    Each that is cut is counted as `<name>.refused`. Make it before the socket is bound, `start` it after
    that, and close it after the socket, which would wait until its reports are read.
    """

    def __init__(self, socket: zmq.Socket[bytes], name: str, health: Health) -> None:
        self._name = name
        self._health = health
        self._monitor = socket.get_monitor_socket(zmq.EVENT_ACCEPTED)
        # File number and time of acceptance, by the client's address.
        self._clients: dict[tuple[object, ...], tuple[int, float]] = {}
        self._allowance = float(MAX_NEW)
        self._port = 0
        self._worker = Worker(
            f"{name}-guard", self._run, Health(), restart=Backoff(), on_exit=self._close_monitor
        )

    def start(self, port: int) -> None:
        """Watch the port that the socket has been bound to."""
        self._port = port
        self._worker.start()  # from here on only that thread uses the monitor

    def close(self) -> None:
        """Stop watching; while the thread has not yet ended, the context's `term` waits for it."""
        self._worker.request_stop()
        if self._worker.join(JOIN_S):
            self._close_monitor()  # the thread may not have been started

    def _close_monitor(self) -> None:
        self._monitor.close(linger=0)

    def _run(self, stop: threading.Event) -> None:
        then = time.monotonic()
        while not stop.is_set():
            self._monitor.poll(GUARD_POLL_MS)
            now = time.monotonic()
            self._allowance = min(float(MAX_NEW), self._allowance + (now - then) * NEW_PER_S)
            then = now
            with suppress(zmq.Again):
                for _ in range(MAX_EVENTS):
                    event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
                    self._accepted(int(event["value"]), now)
            for address, (file, since) in list(self._clients.items()):
                self._check(address, file, BYTES_PER_S * (now - since) + MAX_BYTES)

    def _accepted(self, file: int, now: float) -> None:
        connection = self._connection(file)
        if connection is None:  # closed already
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

    def _check(self, address: tuple[object, ...], file: int, most: float) -> None:
        """Forget a client that has left, and cut one that has sent more than this many bytes."""
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
            connection.shutdown(sockets.SHUT_RDWR)  # ZeroMQ sees the end, and drops the subscriptions

    def _connection(self, file: int) -> sockets.socket | None:
        """Our own handle to a file of ZeroMQ's; None if it is no longer a connection of this port."""
        try:
            connection = sockets.fromfd(file, sockets.AF_INET, sockets.SOCK_STREAM)  # a copy, not checked yet
        except OSError:
            return None
        with suppress(OSError):  # no longer a socket
            name = connection.getsockname()
            kind = connection.getsockopt(sockets.SOL_SOCKET, sockets.SO_TYPE)
            if isinstance(name, tuple) and name[1] == self._port and kind == sockets.SOCK_STREAM:
                return connection
        connection.close()
        return None


def keep_alive(socket: zmq.Socket[bytes]) -> None:
    """Let the kernel notice a TCP peer that is gone; ZeroMQ's heartbeats can end the process."""
    for option, value in (
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_S),
        (zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_S),
        (zmq.TCP_KEEPALIVE_CNT, 2),
    ):
        socket.setsockopt(option, value)


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


def _check_socket_path(path: Path) -> None:
    """Refuse to bind an ipc socket where that would replace something: ZeroMQ would not ask.

    Raises:
        ConfigurationError: a program listens there, it is a file, or the path is too long.
    """
    try:
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            problem = f"is too long for a socket ({MAX_SOCKET_PATH} bytes at most)"
        elif not stat.S_ISSOCK(path.stat().st_mode):
            problem = "exists and is not a socket; choose another path"
        else:
            with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
                probe.connect(os.fspath(path))
            problem = "is in use by a running program; stop it or choose another folder"
    except (FileNotFoundError, ConnectionRefusedError):  # nothing is there, or its process has ended
        return
    except OSError as error:
        problem = f"cannot be used for a socket: {error.strerror}"
    raise ConfigurationError(f"{path} {problem}")


def _private_folder(wanted: Path | None) -> tuple[Path, bool]:
    """The folder, and whether it was made here."""
    try:
        if wanted is None:
            base = os.environ.get("XDG_RUNTIME_DIR")
            usable = base is not None and os.path.isdir(base) and os.access(base, os.W_OK)
            return Path(tempfile.mkdtemp(prefix="emi-live-", dir=base if usable else None)), True
        made = not wanted.exists()
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = wanted.stat()
    except OSError as error:
        raise ConfigurationError(f"bus.directory={wanted} cannot be made: {error.strerror}") from error
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ConfigurationError(
            f"bus.directory={wanted} is open to other users (mode {status.st_mode & 0o777:o}): "
            f"run `chmod 700 {wanted}` or choose another folder"
        )
    return wanted, made
