"""`--to foxglove:` a live server for the viewer Foxglove: curves of the values, states, words and markers.

Its WebSocket protocol is https://github.com/foxglove/ws-protocol; the SDK of its makers speaks it. Channels
are JSON with a JSON schema; markers are `foxglove.Log`, which its log panel shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.messages import Estimate
from emi_live.sinks.peers import Peer, Run, Spoken, host_and_port
from emi_models import MODALITIES
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FoxglovePeer"]

PORT: Final = 8765
NUMBER: Final = {"type": "number"}
TEXT: Final = {"type": "string"}
STATE: Final = {
    "type": "object",
    "properties": {"state": TEXT, "used": {"type": "boolean"}, "age_s": NUMBER},
}


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


class FoxglovePeer(Peer):
    """A WebSocket server: `foxglove:`, `foxglove:PORT` or `foxglove:HOST:PORT`.

    Log times are capture times by wall time. The SDK keeps a queue for each viewer and drops the oldest of a
    slow one.
    """

    kind: ClassVar[str] = "foxglove"

    def __init__(self, address: str, *, lan: bool = False) -> None:
        super().__init__(address, lan=lan)
        where = f":{address}" if address.isdecimal() else address
        host, self.port = host_and_port(f"--to foxglove:{address}", where, default_port=PORT, lan=lan)
        self.host = "127.0.0.1" if host == "localhost" else host
        require("foxglove", extra="foxglove", what="--to foxglove:")
        self._context: Any = None
        self._server: Any = None
        self._channels: dict[str, Any] = {}
        self._run: Run | None = None

    @property
    def where(self) -> str:
        """What to open in Foxglove."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}, for Foxglove's `Open connection`"

    def bind(self) -> None:
        """Start the server.

        Raises:
            ConfigurationError: the port is in use.
        """
        import foxglove

        self._context = foxglove.Context()
        try:
            self._server = foxglove.start_server(
                name="emi-live", host=self.host, port=self.port, context=self._context
            )
        except RuntimeError as error:
            raise ConfigurationError(
                f"--to foxglove:{self.address} cannot be bound: {error}; choose another port"
            ) from error

    def open(self, run: Run) -> None:
        """Advertise the channels of this run."""
        from foxglove import Channel
        from foxglove.channels import LogChannel

        self._run = run
        if self._channels:
            return
        schemas = {
            "/emi/intensities": _object(**dict.fromkeys(run.names, NUMBER)),
            "/emi/states": _object(**dict.fromkeys(MODALITIES, STATE)),
            "/emi/words": _object(word=TEXT, duration_s=NUMBER),
            "/emi/latency": _object(window_ms=NUMBER, fusion_ms=NUMBER, capture_to_estimate_ms=NUMBER),
        }
        for topic, schema in schemas.items():
            titled = {"title": topic.strip("/").replace("/", "."), **schema}
            self._channels[topic] = Channel(topic, schema=titled, context=self._context)
        self._channels["/emi/markers"] = LogChannel("/emi/markers", context=self._context)

    def send(self, event: Estimate | Spoken) -> None:
        """Log the messages of one event; never waits."""
        if isinstance(event, Spoken):
            for word in event.words:
                length_s = (word.end_ns - word.start_ns) / NS_PER_S
                self._log("/emi/words", {"word": word.text, "duration_s": length_s}, word.start_ns)
            return
        self._log("/emi/intensities", event.as_dict(), event.t_ns)
        states: dict[str, dict[str, Any]] = {}
        for name, report in event.modalities.items():
            states[name] = {"state": report.state, "used": report.used}
            if report.age_ms is not None:
                states[name]["age_s"] = report.age_ms / 1e3
        self._log("/emi/states", states, event.t_ns)
        latency = {"window_ms": event.latency.window, "fusion_ms": event.latency.fusion}
        if event.latency.capture_to_estimate is not None:
            latency["capture_to_estimate_ms"] = event.latency.capture_to_estimate
        self._log("/emi/latency", latency, event.t_ns)
        for mark in event.marks:
            self._log_mark(mark.label or f"marker {mark.number}", mark.origin, mark.t_ns)

    def unbind(self) -> None:
        """Stop the server, and let go of the channels."""
        server, self._server = self._server, None
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()
        if server is not None:
            server.stop()

    def _log(self, topic: str, message: Mapping[str, Any], t_ns: int) -> None:
        assert self._run is not None  # noqa: S101  # `open` was called
        self._channels[topic].log(dict(message), log_time=self._run.clocks.unix_ns(t_ns))

    def _log_mark(self, text: str, origin: str, t_ns: int) -> None:
        from foxglove.messages import Log, LogLevel, Timestamp

        assert self._run is not None  # noqa: S101  # `open` was called
        at_ns = self._run.clocks.unix_ns(t_ns)
        stamp = Timestamp(sec=at_ns // NS_PER_S, nsec=at_ns % NS_PER_S)
        entry = Log(timestamp=stamp, level=LogLevel.Info, message=text, name=f"marker from {origin}")
        self._channels["/emi/markers"].log(entry, log_time=at_ns)
