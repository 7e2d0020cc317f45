"""How much later than the bus does a peer get an estimate? From its publication to its arrival in a reader.

Engine and readers share one process and its lock, so these are upper limits. The reader of DDS looks every
5 ms, that of `--metrics` every 10 ms; of Rerun the time is taken when its SDK has sent, since nothing reads
its stream live.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from emi_bench.measurement import Distribution, Machine, load_average
from emi_live.cli.watch import read
from emi_live.config import LiveConfig
from emi_live.demo import demo_stages
from emi_live.errors import ConfigurationError
from emi_live.live import LiveEngine
from emi_live.messages import Estimate
from emi_live.sinks.peers import Peer, Spoken
from emi_live.sinks.peers.sink import PeerSink

if TYPE_CHECKING:
    from emi_live.sinks import Sink

__all__ = ["KINDS", "PeerTimes", "measure_peers"]

HOP_S: Final = 0.1
PATIENCE_S: Final = 20.0  # for the first message
DOMAIN: Final = 99
KINDS: Final = ("lsl", "osc", "mqtt", "psi", "ros2", "foxglove", "metrics", "rerun")
SLICE_S: Final = 0.02
SCRAPE_S: Final = 0.01

Arrival: TypeAlias = tuple[int, dict[str, float]]  # when, and the values


@dataclass(frozen=True)
class PeerTimes:
    """Milliseconds from publication to arrival, of one kind."""

    kind: str
    added_ms: Distribution | None


def measure_peers(kinds: Sequence[str], seconds: float, broker: str) -> dict[str, object]:
    """Send the demo to one kind after the other, and time what arrives.

    Args:
        kinds: names of `KINDS`.
        seconds: for each.
        broker: HOST:PORT of a running broker, for `mqtt`.

    Raises:
        ConfigurationError: not a kind, or nothing arrives.
        MissingPackageError: an extra is not installed.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigurationError(f"{unknown[0]} is not one of {', '.join(KINDS)}")
    before = load_average()
    rows = [PeerTimes(kind, Distribution.of(_arrivals_ms(kind, seconds, broker))) for kind in kinds]
    return {
        "machine": asdict(Machine.here()),
        "load_before": before,
        "hop_s": HOP_S,
        "peers": [asdict(row) for row in rows],
    }


def _arrivals_ms(kind: str, seconds: float, broker: str) -> list[float]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    made: list[Estimate] = []
    handed: list[Arrival] = []
    to, seen_at = {
        "lsl": ("lsl:emi-bench", "lsl:emi-bench"),
        "osc": (f"osc:127.0.0.1:{port}", f"osc:{port}"),
        "mqtt": (f"mqtt:{broker}?prefix=emi-bench&discovery=none", f"mqtt:{broker}?prefix=emi-bench"),
        "psi": (f"psi:tcp://127.0.0.1:{port}", f"psi:tcp://127.0.0.1:{port}"),
        "ros2": (f"ros2:/emi_bench?domain={DOMAIN}", f"ros2:/emi_bench?domain={DOMAIN}"),
        "foxglove": (f"foxglove:{port}", ""),
        "metrics": (str(port), ""),
        "rerun": (str(port), ""),
    }[kind]
    stop = threading.Event()
    with ExitStack() as opened:
        sink: Sink
        if kind == "metrics":
            from emi_live.sinks.metrics import MetricsSink

            sink = MetricsSink(to)
        elif kind == "rerun":
            opened.enter_context(_rerun_server(port))
            sink = PeerSink([_timed_rerun(to, handed)])
        else:
            sink = PeerSink([to])
        opened.enter_context(_running(sink, made))
        reading = {
            "foxglove": partial(_foxglove, port),
            "metrics": partial(_metrics, port),
            "rerun": partial(_handed, handed),
        }.get(kind, partial(_watched, seen_at))
        arrived: list[Arrival] = []
        until_s = time.monotonic() + PATIENCE_S
        for came in reading(stop):
            if came is not None:
                if not arrived:
                    until_s = time.monotonic() + seconds
                arrived.append(came)
            if time.monotonic() > until_s:
                break
        stop.set()
    if not arrived:
        raise ConfigurationError(f"nothing arrived over {kind}: is what it needs running, e.g. a broker?")
    found: list[float] = []
    for now_ns, values in arrived:  # the newest with these values that had been published by then
        sent = [one.published_ns for one in made if one.published_ns <= now_ns and _equal(one, values)]
        if sent:
            found.append((now_ns - max(sent)) / 1e6)
    return found


def _watched(address: str, stop: threading.Event) -> Iterator[Arrival | None]:
    """What `emi watch` reads."""
    messages = 0
    for seen in read(address, stop):
        now_ns = time.monotonic_ns()
        new = seen.messages > messages and seen.values
        messages = seen.messages
        yield (now_ns, dict(seen.values)) if new else None


def _foxglove(port: int, stop: threading.Event) -> Iterator[Arrival | None]:
    """A client of the WebSocket protocol that reads the values."""
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    protocol = [Subprotocol("foxglove.sdk.v1")]
    with connect(f"ws://127.0.0.1:{port}", subprotocols=protocol, compression=None) as client:
        while not stop.is_set():
            try:
                message = client.recv(SLICE_S)
            except TimeoutError:
                yield None
                continue
            now_ns = time.monotonic_ns()
            if isinstance(message, bytes):
                yield (now_ns, json.loads(message[13:])) if message[0] == 1 else None
                continue
            for channel in json.loads(message).get("channels", ()):
                if channel["topic"] == "/emi/intensities":
                    wanted = [{"id": 1, "channelId": channel["id"]}]
                    client.send(json.dumps({"op": "subscribe", "subscriptions": wanted}))


def _metrics(port: int, stop: threading.Event) -> Iterator[Arrival | None]:
    """A scraper that asks every 10 ms, which is far more than Prometheus does."""
    from urllib.request import urlopen

    before: dict[str, float] = {}
    while not stop.wait(SCRAPE_S):
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:  # our own
            lines = page.read().decode().splitlines()
        now_ns = time.monotonic_ns()
        rows = [line.split() for line in lines if line.startswith("emi_intensity{")]
        values = {name.split('"')[1]: float(value) for name, value in rows}
        yield (now_ns, values) if values != before else None
        before = values


def _handed(handed: Sequence[Arrival], stop: threading.Event) -> Iterator[Arrival | None]:
    taken = 0
    while not stop.wait(SLICE_S):
        now = len(handed)
        yield None
        yield from handed[taken:now]
        taken = now


def _timed_rerun(address: str, handed: list[Arrival]) -> Peer:
    """A peer that notes when the SDK has handed an estimate to the connection.

    There is no reader of a live stream in Rerun's API, so this is not the time of a reader.
    """
    from emi_live.sinks.peers.rerun import RerunPeer

    class Timed(RerunPeer):
        """As its base."""

        def send(self, event: Estimate | Spoken) -> None:
            """Send, and note the time."""
            super().send(event)
            if isinstance(event, Estimate):
                handed.append((time.monotonic_ns(), event.as_dict()))

    return Timed(address)


@contextmanager
def _rerun_server(port: int) -> Iterator[None]:
    """Rerun's server, in a process of its own; it is no viewer."""
    code = f"import rerun, sys; r = rerun.RecordingStream('server'); r.serve_grpc(grpc_port={port}); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:  # noqa: S603
        try:
            yield
        finally:
            process.kill()


@contextmanager
def _running(sink: Sink, made: list[Estimate]) -> Iterator[None]:
    config = LiveConfig.model_validate({"window": {"hop_s": HOP_S}})
    stages = partial(demo_stages, length_s=config.window.length_s)
    with LiveEngine(config, sinks=[sink], make_stages=stages, on_estimate=made.append):
        yield


def _equal(estimate: Estimate, values: dict[str, float]) -> bool:
    """Whether these are its values; MQTT rounds them to four decimals."""
    return all(abs(values.get(name, -1.0) - value) < 1e-4 for name, value in estimate.as_dict().items())
