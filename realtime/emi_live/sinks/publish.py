"""Estimates for other programs: ZeroMQ PUB/SUB, two frames, `estimate` and one JSON object."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Final

import zmq

from emi_live.bus.curve import CurveKeys, KeyGate
from emi_live.bus.endpoints import claim_socket_path
from emi_live.bus.guard import PortGuard, harden
from emi_live.config import BusConfig
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.messages import Estimate
from emi_live.sinks.jsonl import to_line

__all__ = ["PublishSink"]

TOPIC: Final = b"estimate"
HIGH_WATER_MARK: Final = (
    50  # estimates kept for a slow client, 10 s at the default hop; then it loses the newest
)
MAX_NOTICES: Final = 1024  # (un)subscriptions looked at per call: a flood of them cannot hold up the sink


class PublishSink:
    """Sends each estimate to every subscriber, and the last one again when somebody subscribes.

    A client that subscribes late so has the present state within about 100 ms; those already there see that
    line twice, with the same `seq`. A client too slow to keep up loses estimates and delays nobody. Clients
    that are too many, or ask for too much, are cut off and counted as `publish.refused`.
    """

    name = "publish"

    def __init__(self, address: str, config: BusConfig, health: Health | None = None) -> None:
        """Check the address and the keys in `config`; nothing is opened yet.

        Args:
            address: where to bind.
            config: holds the keys, if there are any.
            health: where clients that are refused are counted.

        Raises:
            ConfigurationError: the address is not one, or is not loopback and there are no keys.
        """
        self._address = _checked(address)
        self._keys = CurveKeys.of(config)
        if self._keys is None and not _is_local(self._address):
            raise ConfigurationError(
                f"--publish {address} can be reached from other machines and needs CURVE keys: set "
                "bus.curve_public_key and bus.curve_secret_key (make a pair with `emi keys`), or use tcp://127.0.0.1"
            )
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._gate: KeyGate | None = None
        self._bound: str | None = None
        self._guard: PortGuard | None = None
        self._health = health or Health()
        self._last: list[bytes] | None = None

    @property
    def finished(self) -> bool:
        """Never: subscribers come and go."""
        return False

    @property
    def address(self) -> str:
        """The address that is bound, with the port that `:*` became once the sink is open."""
        return self._bound or self._address

    def open(self) -> None:
        """Bind the address; the thread that opens may hand the sink to another before the first write.

        Raises:
            ConfigurationError: the address is in use or not one of this machine.
        """
        if self._socket is not None:
            return
        path = Path(self._address.removeprefix("ipc://")) if self._address.startswith("ipc://") else None
        if path is not None:
            claim_socket_path(path)
        self._context = zmq.Context()
        if self._keys is not None:
            self._gate = KeyGate(self._context, self._keys)
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.linger = 0
        self._socket.sndhwm = HIGH_WATER_MARK
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        harden(self._socket, tcp=path is None)
        self._socket.setsockopt(zmq.IPV6, int("[" in self._address))
        if self._keys is not None:
            self._keys.guard(self._socket)
        if path is None:
            self._guard = PortGuard(self._socket, self.name, self._health)
        try:
            self._socket.bind(self._address)
            self._bound = str(self._socket.get_string(zmq.LAST_ENDPOINT)).rstrip("\0")
            if path is not None:
                path.chmod(0o600)
        except (zmq.ZMQError, OSError) as error:
            self.close()
            reason = os.strerror(error.errno or 0)
            raise ConfigurationError(
                f"--publish {self._address} cannot be bound: {reason}; choose another port or address"
            ) from error
        if self._guard is not None:
            self._guard.start()

    def write(self, estimate: Estimate) -> None:
        """Send one estimate to those who are subscribed; never waits."""
        if self._socket is None:
            return
        self._someone_joined(self._socket)  # they get this one
        self._last = [TOPIC, to_line(estimate)]
        self._socket.send_multipart(self._last)

    def idle(self) -> None:
        """Send the last estimate again if somebody has subscribed since."""
        if self._socket is not None and self._someone_joined(self._socket) and self._last is not None:
            self._socket.send_multipart(self._last)

    def close(self) -> None:
        """Release the address at once."""
        if self._socket is not None:
            self._socket.close(linger=0)
        if self._guard is not None:
            self._guard.close()
        if self._gate is not None:
            self._gate.close()
        if self._context is not None:
            self._context.term()
        self._socket = self._gate = self._guard = self._context = self._bound = None

    @staticmethod
    def _someone_joined(socket: zmq.Socket[bytes]) -> bool:
        joined = False
        for _ in range(MAX_NOTICES):
            try:  # without asking for EVENTS, where pyzmq reads all that has come and keeps Python's lock
                notice = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            joined = joined or (notice[:1] == b"\x01" and TOPIC.startswith(notice[1:]))
        return joined


def _checked(address: str) -> str:
    scheme, separator, rest = address.partition("://")
    host, colon, port = rest.rpartition(":")
    tcp = (
        scheme == "tcp"
        and bool(host and colon)
        and (port == "*" or (port.isdecimal() and 0 < int(port) < 65536))
    )
    ipc = scheme == "ipc" and rest.startswith("/")
    if tcp and ":" in host and not host.startswith("["):
        raise ConfigurationError(
            f"--publish {address}: an IPv6 address stands in brackets: tcp://[{host}]:{port}"
        )
    if not separator or not (tcp or ipc):
        raise ConfigurationError(
            f"--publish {address} is not an address: use tcp://127.0.0.1:5561 or ipc:///folder/name"
        )
    return address.replace("://localhost:", "://127.0.0.1:")  # libzmq binds to addresses, not to host names


def _is_local(address: str) -> bool:
    scheme, _, rest = address.partition("://")
    if scheme == "ipc":
        return True
    try:
        return ipaddress.ip_address(rest.rpartition(":")[0].strip("[]")).is_loopback
    except ValueError:  # an interface or a host name
        return False
