"""Estimates for other programs: ZeroMQ PUB/SUB, two frames, `estimate` and one JSON object."""

from __future__ import annotations

import ipaddress
from contextlib import ExitStack
from typing import Final

from emi_live.config import BusConfig
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.messages import Estimate
from emi_live.ports import Context, CurveKeys, KeyGate, Port
from emi_live.sinks.jsonl import to_line

__all__ = ["PublishSink"]

TOPIC: Final = b"estimate"
# Estimates that wait for a slow client, 10 s at the default hop; after that it loses the newest.
HIGH_WATER_MARK: Final = 50


class PublishSink:
    """Sends each estimate to every subscriber, and the last one again after each new subscription.

    So a client that subscribes late has the current estimate within about 100 ms; the others get that line
    twice, with the same `seq`. A client that is too slow loses estimates and delays no other. Clients that
    are too many, or send too much, are disconnected and counted as `publish.refused`.
    """

    name = "publish"

    def __init__(self, address: str, config: BusConfig, health: Health | None = None) -> None:
        """Check the address and the keys in `config`; nothing is opened yet.

        Args:
            address: where to bind.
            config: holds the keys, if there are any.
            health: counts clients that are refused.

        Raises:
            ConfigurationError: the address is not valid, or is not loopback and there are no keys.
        """
        self._address = _checked(address)
        self._keys = CurveKeys.of(config)
        if self._keys is None and not _is_local(self._address):
            raise ConfigurationError(
                f"--publish {address} can be reached from other machines and needs CURVE keys: set "
                "bus.curve_public_key and bus.curve_secret_key (make a pair with `emi keys`), or use tcp://127.0.0.1"
            )
        self._health = health or Health()
        self._port: Port | None = None
        self._opened = ExitStack()
        self._last: list[bytes] | None = None

    @property
    def finished(self) -> bool:
        """Never: subscribers come and go."""
        return False

    @property
    def address(self) -> str:
        """The address that is bound, with the port that `:*` became once the sink is open."""
        return self._address if self._port is None else self._port.address

    def open(self) -> None:
        """Bind the address; another thread may write from then on.

        Raises:
            ConfigurationError: the address is in use or not one of this machine.
        """
        if self._port is not None:
            return
        with ExitStack() as opened:  # closed in reverse order, also if one of them cannot be made
            context = Context()
            opened.callback(context.term)
            if self._keys is not None:
                opened.callback(KeyGate(context, self._keys).close)
            self._port = Port(
                context,
                self._address,
                high_water_mark=HIGH_WATER_MARK,
                keys=self._keys,
                name=self.name,
                health=self._health,
            )
            opened.callback(self._port.close)
            self._opened = opened.pop_all()

    def write(self, estimate: Estimate) -> None:
        """Send one estimate to those who are subscribed; never waits."""
        if self._port is not None:
            self._someone_joined(self._port)  # they get this one
            self._last = [TOPIC, to_line(estimate)]
            self._port.socket.send_multipart(self._last)

    def idle(self) -> None:
        """Send the last estimate again if there was a new subscription."""
        if self._port is not None and self._someone_joined(self._port) and self._last is not None:
            self._port.socket.send_multipart(self._last)

    def close(self) -> None:
        """Release the address at once."""
        self._port = None
        self._opened.close()

    @staticmethod
    def _someone_joined(port: Port) -> bool:
        # A list, so that all of them are read.
        return any([notice[:1] == b"\x01" and TOPIC.startswith(notice[1:]) for notice in port.notices()])


def _checked(address: str) -> str:
    if address.startswith("ipc:///"):
        return address
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or not host or not (port == "*" or (port.isdecimal() and 0 < int(port) < 65536)):
        raise ConfigurationError(
            f"--publish {address} is not an address: use tcp://127.0.0.1:5561 or ipc:///folder/name"
        )
    if ":" in host and not host.startswith("["):
        raise ConfigurationError(
            f"--publish {address}: an IPv6 address stands in brackets: tcp://[{host}]:{port}"
        )
    return address.replace("://localhost:", "://127.0.0.1:")  # libzmq binds to addresses, not to host names


def _is_local(address: str) -> bool:
    if address.startswith("ipc://"):
        return True
    host = address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # an interface or a host name
        return False
