"""Who may connect: CURVE on every socket, and a gate that lets in the holder of our own key pair only.

One pair is shared by the engine and its clients. CURVE alone encrypts, but accepts any client key; what
protects is the gate (ZAP, ZeroMQ RFC 27): it refuses a client that has not proved to hold our secret key.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

import zmq
from zmq.utils import z85

from emi_live.config import BusConfig
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.worker import Worker

__all__ = ["CurveKeys", "KeyGate", "make_pair"]

ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"  # fixed by RFC 27
ZAP_DOMAIN: Final = b"emi-live"
POLL_MS: Final = 50  # how soon the gate notices that it shall stop
JOIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """The key pair that the engine and its clients share, Z85 text; the secret is not shown by `repr`."""

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
            raise ConfigurationError(f"bus.{missing} is missing but needed with the other key; {remedy}")
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
        """Make a socket that will be bound answer only to clients whom the context's `KeyGate` lets in."""
        socket.curve_secretkey = self.secret
        socket.curve_publickey = self.public
        socket.curve_server = True
        socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without a gate, nobody gets in

    def present(self, socket: zmq.Socket[bytes]) -> None:
        """Make a socket that will be connected prove itself, and accept only a server with the same pair."""
        socket.curve_secretkey = self.secret
        socket.curve_publickey = self.public
        socket.curve_serverkey = self.public


class KeyGate:
    """The thread that answers, for all sockets of one context, whether a client's key is ours.

    Start it before a guarded socket is bound, and close it before the context is terminated.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: CurveKeys) -> None:
        self._allowed = z85.decode(keys.public)
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ZAP_ENDPOINT)
        self._worker = Worker("bus-keys", self._run, Health())
        self._worker.start()  # from here on the socket is that thread's

    def close(self) -> None:
        """Stop the thread and release its socket."""
        self._worker.request_stop()
        self._worker.join(JOIN_S)

    def _run(self, stop: threading.Event) -> None:
        with self._socket as socket:
            while not stop.is_set():
                if socket.poll(POLL_MS):
                    socket.send_multipart(self._answer(socket.recv_multipart()))

    def _answer(self, request: list[bytes]) -> list[bytes]:
        # version, request id, domain, address, identity, mechanism, credentials…
        version, request_id = (*request, b"", b"")[:2]
        known = len(request) == 7 and request[2] == ZAP_DOMAIN and request[5] == b"CURVE"
        if known and request[6] == self._allowed:
            return [version, request_id, b"200", b"OK", b"emi-live", b""]
        return [version, request_id, b"400", b"unknown key", b"", b""]


def make_pair() -> CurveKeys:
    """A new key pair."""
    public, secret = zmq.curve_keypair()
    return CurveKeys(public, secret)
