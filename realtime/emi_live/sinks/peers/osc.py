"""`--to osc:HOST:PORT` Open Sound Control over UDP: `/emi/joy` and so on, for avatars, sound and light.

The preset `vrchat` uses the parameter names of an avatar in VRChat (https://docs.vrchat.com/docs/osc-overview):
`/avatar/parameters/EmiJoy`, one float each, and whether a face and a voice were used, as a bool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.messages import Estimate
from emi_live.sinks.peers import Peer, Run, Spoken, host_and_port, options_of
from emi_models import MODALITIES
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OscPeer"]

PRESETS: Final = ("emi", "vrchat")
VRCHAT_PORT: Final = 9000

Message = tuple[str, list[Any]]


class OscPeer(Peer):
    """One bundle an estimate, whose time tag is the capture time; with `preset=vrchat` plain messages.

    `osc:HOST:PORT`, `osc:HOST:PORT?preset=vrchat`, or `osc:?preset=vrchat` for port 9000 of this machine. UDP
    tells nobody whether somebody listens: what is sent to nobody is not counted.
    """

    kind: ClassVar[str] = "osc"
    queue: ClassVar[int] = 4  # an avatar wants the newest

    def __init__(self, address: str, *, lan: bool = False) -> None:
        super().__init__(address, lan=lan)
        text = f"osc:{address}"
        plain, options = options_of(text, address, preset="emi")
        self.preset = options["preset"]
        if self.preset not in PRESETS:
            raise ConfigurationError(f"--to {text}: no preset {self.preset}; there are {', '.join(PRESETS)}")
        port = VRCHAT_PORT if self.preset == "vrchat" else None
        self.host, self.port = host_and_port(f"--to {text}", plain, default_port=port, lan=lan)
        require("pythonosc", extra="osc", what="--to osc:")
        self._client: Any = None
        self._run: Run | None = None

    @property
    def where(self) -> str:
        """Where the messages go."""
        names = "/avatar/parameters/Emi…" if self.preset == "vrchat" else "/emi/…"
        return f"{names} by UDP to {self.host} port {self.port}"

    def open(self, run: Run) -> None:
        """Make the socket; a name of a host is looked up here."""
        from pythonosc.udp_client import UDPClient

        self._run = run
        self._client = UDPClient(self.host, self.port)

    def send(self, event: Estimate | Spoken) -> None:
        """Send the messages of one event."""
        from pythonosc.osc_bundle_builder import OscBundleBuilder
        from pythonosc.osc_message_builder import OscMessageBuilder

        run = self._run
        if self._client is None or run is None:
            return
        messages = list(self._avatar(event) if self.preset == "vrchat" else self._plain(event))
        if not messages:
            return
        built = []
        for address, values in messages:
            builder = OscMessageBuilder(address)
            for value in values:
                builder.add_arg(value)
            built.append(builder.build())
        if self.preset == "vrchat":  # it wants plain messages
            for message in built:
                self._client.send(message)
            return
        bundle = OscBundleBuilder(cast("int", run.clocks.unix_ns(event.t_ns) / NS_PER_S))
        for message in built:
            bundle.add_content(message)
        self._client.send(bundle.build())

    def close(self) -> None:
        """Let go of the socket."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _plain(self, event: Estimate | Spoken) -> Iterator[Message]:
        run = self._run
        assert run is not None  # noqa: S101  # `open` was called
        if isinstance(event, Spoken):
            for word in event.words:
                since_s = (word.end_ns - word.start_ns) / NS_PER_S
                yield "/emi/word", [word.text, since_s]
            yield "/emi/partial", [event.partial]
            return
        yield "/emi/seq", [event.seq % 2**31, event.t_s]
        for name, value in event.as_dict().items():
            yield f"/emi/{name}", [value]
        for modality in MODALITIES:
            report = event.modalities[modality]
            yield f"/emi/state/{modality}", [report.state, report.used]
        for mark in event.marks:
            yield "/emi/marker", [mark.number % 2**31, mark.label]

    @staticmethod
    def _avatar(event: Estimate | Spoken) -> Iterator[Message]:
        if isinstance(event, Spoken):
            return
        for name, value in zip(event.names, event.shares, strict=True):  # in [0, 1], whatever the labels
            yield f"/avatar/parameters/Emi{name.title().replace('_', '')}", [value]
        for modality in MODALITIES:
            used = event.modalities[modality].used
            yield f"/avatar/parameters/Emi{modality.title()}Used", [used]
