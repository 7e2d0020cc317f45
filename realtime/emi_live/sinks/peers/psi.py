"""`--to psi:tcp://127.0.0.1:PORT` streams for Platform for Situated Intelligence (microsoft/psi).

Its ZeroMQ reader `NetMQSource` with the format `MessagePackFormat` reads messages of two frames: the topic,
and a MessagePack map of `message` and `originatingTime`, the latter in ticks of .NET: 100 ns since the year
1. Read in `Format/MessagePackFormat.cs` and `Transport/NetMQSource.cs` of its
`Sources/Runtime/Microsoft.Psi.Interop`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import msgspec
import zmq

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.messages import Estimate
from emi_live.ports import Context
from emi_live.sinks.peers import Peer, Run, Spoken, host_and_port

__all__ = ["UNIX_TICKS", "PsiPeer"]

TICKS_PER_S: Final = 10_000_000
UNIX_TICKS: Final = (
    (datetime(1970, 1, 1, tzinfo=UTC) - datetime(1, 1, 1, tzinfo=UTC)).days * 86_400 * TICKS_PER_S
)
HIGH_WATER_MARK: Final = 50  # messages that wait for a slow reader, which then loses the newest


class PsiPeer(Peer):
    """Binds one PUB socket with the topics `emotions`, `states`, `words` and `markers`.

    ZeroMQ drops for a slow reader what is over 50 messages. There are no keys, since the source of psi knows
    none: an address of other machines needs `--lan`.
    """

    kind: ClassVar[str] = "psi"

    def __init__(self, address: str, *, lan: bool = False) -> None:
        super().__init__(address, lan=lan)
        if not address.startswith("tcp://"):
            raise ConfigurationError(f"--to psi:{address} is not an address: use psi:tcp://127.0.0.1:9001")
        host, self.port = host_and_port(
            f"--to psi:{address}", address.removeprefix("tcp://"), default_port=None, lan=lan
        )
        self.host = "127.0.0.1" if host == "localhost" else host  # libzmq binds to addresses
        self._context: Context | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._run: Run | None = None

    @property
    def where(self) -> str:
        """The address that is bound, and the topics."""
        return f"topics emotions, states, words, markers on tcp://{self.host}:{self.port}"

    def bind(self) -> None:
        """Bind the address.

        Raises:
            ConfigurationError: it is in use.
        """
        context = Context()
        socket = context.socket(zmq.PUB)
        socket.linger, socket.sndhwm = 0, HIGH_WATER_MARK
        host = f"[{self.host}]" if ":" in self.host else self.host
        socket.setsockopt(zmq.IPV6, int(":" in self.host))
        try:
            socket.bind(f"tcp://{host}:{self.port}")
        except zmq.ZMQError as error:
            socket.close()
            context.term()
            raise ConfigurationError(
                f"--to psi:{self.address} cannot be bound: {error.strerror}; choose another port"
            ) from error
        self._context, self._socket = context, socket

    def open(self, run: Run) -> None:
        """Remember the run's clocks."""
        self._run = run

    def send(self, event: Estimate | Spoken) -> None:
        """Send the messages of one event; never waits."""
        if isinstance(event, Spoken):
            for word in event.words:
                length_s = (word.end_ns - word.start_ns) / NS_PER_S
                self._send("words", {"word": word.text, "duration_s": length_s}, word.start_ns)
            return
        self._send("emotions", event.as_dict(), event.t_ns)
        states: dict[str, dict[str, Any]] = {}
        for name, report in event.modalities.items():
            states[name] = {"state": report.state, "used": report.used}
            if report.age_ms is not None:  # its reader fails at null
                states[name]["age_ms"] = report.age_ms
        self._send("states", states, event.t_ns)
        for mark in event.marks:
            self._send("markers", {"number": mark.number, "label": mark.label}, mark.t_ns)

    def unbind(self) -> None:
        """Release the address at once."""
        socket, context, self._socket, self._context = self._socket, self._context, None, None
        if socket is not None and context is not None:
            socket.close()
            context.term()

    def _send(self, topic: str, message: Any, t_ns: int) -> None:
        socket, run = self._socket, self._run
        if socket is None or run is None:
            return
        ticks = UNIX_TICKS + run.clocks.unix_ns(t_ns) // 100
        packed = msgspec.msgpack.encode({"message": message, "originatingTime": ticks})
        socket.send_multipart([topic.encode(), packed])
