"""`emi watch`: show in the terminal what an endpoint of emi-live publishes.

It reads as any other program would, by the protocol of the endpoint, and knows nothing of the run.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emi_live.cli.errors import DebugOption, report_errors
from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["READERS", "Seen", "app", "read"]

HELP = """Show what an endpoint of emi-live publishes.

[bold]Examples[/bold]

  emi watch tcp://127.0.0.1:5561             of --publish; keys: --config keys.toml
  emi watch lsl:                             of --to lsl:
  emi watch osc:9000                         of --to osc:127.0.0.1:9000
  emi watch mqtt:127.0.0.1:1883              of --to mqtt:
  emi watch psi:tcp://127.0.0.1:9001         of --to psi:
  emi watch ros2:                            of --to ros2:
  emi watch http://127.0.0.1:8765            of --web and emi serve
  emi watch lsl: --lines | jq .values.joy    one JSON object a message
"""
SLICE_S: Final = 0.2
RESOLVE_S: Final = 1.5
POLL_S: Final = 0.005  # of DDS
BAR: Final = 24

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@dataclass
class Seen:
    """What was read so far of one endpoint."""

    values: dict[str, float] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    words: str = ""
    marker: str = ""
    messages: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """For `--lines`."""
        return {"values": self.values, "states": self.states, "words": self.words, "marker": self.marker}


Reader = Callable[[str, threading.Event, "str | None"], Iterator[Seen]]


@app.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
def watch(
    address: Annotated[str, typer.Argument(help="What to watch.", metavar="ADDRESS")],
    count: Annotated[int | None, typer.Option(help="End after so many messages.", metavar="N")] = None,
    wait: Annotated[
        float, typer.Option(help="End if nothing comes for so many seconds.", metavar="S")
    ] = 30.0,
    lines: Annotated[bool, typer.Option("--lines", help="One JSON object a message.")] = False,
    config: Annotated[
        str | None, typer.Option(help="TOML file with the keys of `emi keys`.", metavar="FILE")
    ] = None,
    debug: DebugOption = False,
) -> None:
    with report_errors(debug):
        _follow(address, count, wait, lines, config)


def _follow(address: str, count: int | None, wait_s: float, lines: bool, config: str | None) -> None:
    from rich.console import Console
    from rich.live import Live

    console, silent_s = Console(stderr=lines), 0.0
    seen = Seen()
    stop = threading.Event()
    with Live(console=console, auto_refresh=False, transient=lines) as live:
        for seen in read(address, stop, config):
            silent_s = 0.0 if seen.messages > seen.counts["shown"] else silent_s + SLICE_S
            if seen.messages > seen.counts["shown"]:
                seen.counts["shown"] = seen.messages
                if lines:
                    sys.stdout.write(json.dumps(seen.as_dict(), ensure_ascii=False) + "\n")
                    sys.stdout.flush()
                else:
                    live.update(_picture(address, seen), refresh=True)
            if count is not None and seen.messages >= count:
                return
            if silent_s >= wait_s:
                break
    if not seen.messages:
        raise ConfigurationError(
            f"nothing came from {address} within {wait_s:g} s; is emi-live running with this address, and "
            "is it the right kind?"
        )


def read(address: str, stop: threading.Event, config: str | None = None) -> Iterator[Seen]:
    """What an endpoint publishes, after each message, and about every 0.2 s while none comes.

    Args:
        address: as `emi watch` takes it.
        stop: ends it.
        config: file with CURVE keys, for an address of ZeroMQ.

    Raises:
        ConfigurationError: the address is of no kind that is known, or not valid.
        MissingPackageError: the kind's extra is not installed.
    """
    kind, _, rest = address.partition(":")
    if kind not in READERS:
        raise ConfigurationError(
            f"{address} is no address of emi-live; use one of {', '.join(f'{name}:' for name in READERS)}"
        )
    whole = kind in ("tcp", "ipc", "http", "https")
    yield from READERS[kind](address if whole else rest, stop, config)


def _picture(address: str, seen: Seen) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from emi_live.sinks.viewstate import colour_of, glyphs_for
    from emi_models.console import printable

    glyphs = glyphs_for(sys.stdout.encoding)
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    for index, (name, value) in enumerate(seen.values.items()):
        bar = "".join(glyphs.meter(min(1.0, max(0.0, value)), BAR))
        label = printable(name.replace("_", " "))
        table.add_row(label, Text(bar, style=colour_of(name, index)), f"{value:.2f}")
    for name, state in seen.states.items():
        table.add_row(printable(name), Text(printable(state), style="dim"), "")
    if seen.words:
        table.add_row("words", Text(printable(seen.words)), "")
    if seen.marker:
        table.add_row("marker", Text(printable(seen.marker)), "")
    table.add_row(Text(f"{seen.messages} messages from {printable(address)}", style="dim"), "", "")
    return table


def _take_line(seen: Seen, line: dict[str, Any]) -> None:
    """Take in one JSON line of docs/messages.md."""
    seen.values = {name: float(value) for name, value in line["intensities"].items()}
    modalities = line["modalities"]
    seen.states = {name: str(report["state"]) for name, report in modalities.items()}
    text = modalities["text"]
    seen.words = f"{text.get('committed', '')} {text.get('partial', '')}".strip()
    for mark in line.get("markers", ()):
        seen.marker = mark["label"] or str(mark["number"])
    seen.messages += 1


def _zeromq(address: str, stop: threading.Event, config: str | None) -> Iterator[Seen]:
    import zmq

    from emi_live.config import load_config
    from emi_live.ports import CurveKeys

    keys = CurveKeys.of(load_config(config).bus) if config else None
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        if keys is not None:
            keys.present(socket)
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            raise ConfigurationError(f"{address} is not an address: {error.strerror}") from error
        socket.subscribe("estimate")
        seen = Seen()
        while not stop.is_set():
            if socket.poll(round(1000 * SLICE_S)):
                _take_line(seen, json.loads(socket.recv_multipart()[1]))
            yield seen


def _psi(address: str, stop: threading.Event, config: str | None) -> Iterator[Seen]:
    import msgspec
    import zmq

    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            raise ConfigurationError(f"psi:{address} is not an address: {error.strerror}") from error
        socket.subscribe("")
        seen = Seen()
        while not stop.is_set():
            if not socket.poll(round(1000 * SLICE_S)):
                yield seen
                continue
            topic, payload = socket.recv_multipart()
            message = msgspec.msgpack.decode(payload)["message"]
            if topic == b"emotions":
                seen.values = message
                seen.messages += 1
            elif topic == b"states":
                seen.states = {name: report["state"] for name, report in message.items()}
            elif topic == b"words":
                seen.words = f"{seen.words} {message['word']}"[-200:].strip()
            elif topic == b"markers":
                seen.marker = message["label"] or str(message["number"])
            yield seen


def _lsl(address: str, stop: threading.Event, config: str | None) -> Iterator[Seen]:
    from emi_live.sinks.peers.lsl import LslPeer, configure

    name = LslPeer(address).name
    configure(lan=False)
    import pylsl

    seen = Seen()
    inlets: dict[str, Any] = {}
    labels: list[str] = []
    while not stop.is_set():
        if len(inlets) < 3:
            for suffix in {"", "-words", "-markers"} - inlets.keys():
                # Queries go out in waves, about a second in all.
                if found := pylsl.resolve_byprop("name", name + suffix, 1, RESOLVE_S):
                    inlets[suffix] = pylsl.StreamInlet(found[0])
                    labels = _labels(inlets[suffix].info(5)) if not suffix else labels
        if "" in inlets and (sample := inlets[""].pull_sample(SLICE_S)[0]) is not None:
            valid = labels.index("valid")
            seen.values = dict(zip(labels[:valid], sample[:valid], strict=True))
            used = zip(labels[valid + 1 :], sample[valid + 1 :], strict=True)
            seen.states = {key.removesuffix("_used"): "used" if on else "not used" for key, on in used}
            seen.messages += 1
        _take_texts(seen, inlets)
        yield seen


def _take_texts(seen: Seen, inlets: Mapping[str, Any]) -> None:
    """Take in words and markers of LSL that have come."""
    if "-words" in inlets:
        for word, _length in inlets["-words"].pull_chunk()[0]:
            seen.words = f"{seen.words} {word}"[-200:].strip()
    if "-markers" in inlets:
        for (text,) in inlets["-markers"].pull_chunk()[0]:
            mark = json.loads(text)
            seen.marker = mark["label"] or str(mark["number"])


def _labels(info: Any) -> list[str]:
    found, channel = [], info.desc().child("channels").child("channel")
    while not channel.empty():
        found.append(channel.child_value("label"))
        channel = channel.next_sibling("channel")
    return found


def _osc(address: str, stop: threading.Event, config: str | None) -> Iterator[Seen]:
    import socket

    from emi_live.sinks.peers import host_and_port
    from emi_models.libraries import require

    require("pythonosc", extra="osc", what="emi watch osc:")
    from pythonosc.osc_packet import OscPacket, ParseError

    where = f":{address}" if address.isdecimal() else address
    host, port = host_and_port(f"osc:{address}", where, default_port=None, lan=True)
    seen = Seen()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as port_:
        try:
            port_.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"osc:{address} cannot be read: {error.strerror}; another program may listen there already"
            ) from error
        port_.settimeout(SLICE_S)
        while not stop.is_set():
            try:
                messages = [timed.message for timed in OscPacket(port_.recv(65536)).messages]
            except (TimeoutError, ParseError):
                messages = []
            for message in messages:
                _take_osc(seen, message.address, list(message.params))
            yield seen


def _take_osc(seen: Seen, address: str, params: list[Any]) -> None:
    name = address.rpartition("/")[2]
    if address.startswith("/emi/state/"):
        seen.states[name] = str(params[0])
    elif address == "/emi/word":
        seen.words = f"{seen.words} {params[0]}"[-200:].strip()
    elif address == "/emi/marker":
        seen.marker = str(params[1] or params[0])
    elif address == "/emi/seq":
        seen.messages += 1
    elif params and isinstance(params[0], float):
        if address.startswith("/avatar/") and name in seen.values and name == next(iter(seen.values)):
            seen.messages += 1  # its presets have no number of their own
        seen.values[name] = params[0]


def _mqtt(address: str, stop: threading.Event, config: str | None) -> Iterator[Seen]:
    import os
    import queue

    from emi_live.sinks.peers.mqtt import MqttPeer

    peer = MqttPeer(address, lan=True)
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    came: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    client = Client(CallbackAPIVersion.VERSION2)
    if user := os.environ.get("EMI_MQTT_USER"):
        client.username_pw_set(user, os.environ.get("EMI_MQTT_PASSWORD"))

    def connected(*_: Any) -> None:
        client.subscribe(f"{peer.prefix}/estimate")

    client.on_connect = connected
    client.on_message = lambda _client, _data, message: came.put(bytes(message.payload))
    try:
        client.connect(peer.host, peer.port)
    except OSError as error:
        raise ConfigurationError(
            f"mqtt:{address}: the broker {peer.host}:{peer.port} does not answer: {error.strerror or error}"
        ) from error
    client.loop_start()
    seen = Seen()
    try:
        while not stop.is_set():
            with suppress(queue.Empty):
                _take_line(seen, json.loads(came.get(timeout=SLICE_S)))
            yield seen
    finally:
        client.disconnect()
        client.loop_stop()


def _ros2(address: str, stop: threading.Event, config: str | None) -> Iterator[Seen]:
    from emi_live.ros2 import dds_name, messages, participant
    from emi_live.sinks.peers.ros2 import Ros2Peer

    peer = Ros2Peer(address)
    from cyclonedds.qos import Policy, Qos
    from cyclonedds.sub import DataReader
    from cyclonedds.topic import Topic

    here, types = participant(peer.domain, lan=False), messages()
    profile = Qos(Policy.Reliability.BestEffort, Policy.History.KeepLast(20))
    estimates, words = (
        DataReader(here, Topic(here, dds_name(topic), types[name]), profile)
        for topic, name in ((peer.topic, "emi_msgs/EmotionIntensities"), (peer.speech, "hri_msgs/LiveSpeech"))
    )
    seen = Seen()
    while not stop.wait(POLL_S):
        for one in words.take(N=50):
            if hasattr(one, "final") and one.final:
                seen.words = f"{seen.words} {one.final}"[-200:].strip()
        for one in estimates.take(N=50):
            if hasattr(one, "intensities"):
                seen.values = dict(zip(one.names, one.intensities, strict=True))
                seen.states = {"vision": one.vision_state, "audio": one.audio_state, "text": one.text_state}
                seen.marker = one.markers[-1] if one.markers else seen.marker
                seen.messages += 1
        yield seen


def _web(address: str, stop: threading.Event, config: str | None) -> Iterator[Seen]:
    from emi_models.libraries import require

    require("websockets", extra="web", what="emi watch http:")
    from emi_live.web.client import EmiClient
    from emi_live.web.protocol import EstimateEvent

    base, _, session = address.rstrip("/").partition("/v1/sessions/")
    seen = Seen()
    with EmiClient(base, session or "local", viewer=True) as client:
        while not stop.is_set():
            event = client.receive(SLICE_S)
            if isinstance(event, EstimateEvent):
                _take_line(seen, event.estimate)
            elif client.ended is not None:
                raise ConfigurationError(f"{address}: {client.ended}")
            yield seen


READERS: Final[dict[str, Reader]] = {
    "tcp": _zeromq,
    "ipc": _zeromq,
    "lsl": _lsl,
    "osc": _osc,
    "mqtt": _mqtt,
    "psi": _psi,
    "ros2": _ros2,
    "http": _web,
    "https": _web,
}
