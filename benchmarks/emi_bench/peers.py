"""How much later than the bus does a peer get an estimate? From its publication to its arrival in a reader.

Engine and readers share one process and its lock, so these are upper limits. The reader of DDS looks every
5 ms.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

from emi_bench.measurement import Distribution, Machine, load_average
from emi_live.cli.watch import read
from emi_live.config import LiveConfig
from emi_live.demo import demo_stages
from emi_live.errors import ConfigurationError
from emi_live.live import LiveEngine
from emi_live.messages import Estimate
from emi_live.sinks.peers.sink import PeerSink

__all__ = ["KINDS", "PeerTimes", "measure_peers"]

HOP_S: Final = 0.1
PATIENCE_S: Final = 20.0  # for the first message
DOMAIN: Final = 99
KINDS: Final = ("lsl", "osc", "mqtt", "psi", "ros2")


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
    to, seen_at = {
        "lsl": ("lsl:emi-bench", "lsl:emi-bench"),
        "osc": (f"osc:127.0.0.1:{port}", f"osc:{port}"),
        "mqtt": (f"mqtt:{broker}?prefix=emi-bench&discovery=none", f"mqtt:{broker}?prefix=emi-bench"),
        "psi": (f"psi:tcp://127.0.0.1:{port}", f"psi:tcp://127.0.0.1:{port}"),
        "ros2": (f"ros2:/emi_bench?domain={DOMAIN}", f"ros2:/emi_bench?domain={DOMAIN}"),
    }[kind]
    made: list[Estimate] = []
    arrived: list[tuple[int, dict[str, float]]] = []
    with _running(to, made):
        stop, until_s = threading.Event(), time.monotonic() + PATIENCE_S
        messages = 0
        for seen in read(seen_at, stop):
            now_ns = time.monotonic_ns()
            if seen.messages > messages and seen.values:
                if not messages:
                    until_s = time.monotonic() + seconds
                messages = seen.messages
                arrived.append((now_ns, dict(seen.values)))
            if time.monotonic() > until_s:
                stop.set()
    if not arrived:
        raise ConfigurationError(f"nothing arrived over {kind}: is what it needs running, e.g. a broker?")
    found: list[float] = []
    for now_ns, values in arrived:  # the newest with these values that had been published by then
        sent = [one.published_ns for one in made if one.published_ns <= now_ns and _equal(one, values)]
        if sent:
            found.append((now_ns - max(sent)) / 1e6)
    return found


@contextmanager
def _running(to: str, made: list[Estimate]) -> Iterator[None]:
    config = LiveConfig.model_validate({"window": {"hop_s": HOP_S}})
    stages = partial(demo_stages, length_s=config.window.length_s)
    with LiveEngine(config, sinks=[PeerSink([to])], make_stages=stages, on_estimate=made.append):
        yield


def _equal(estimate: Estimate, values: dict[str, float]) -> bool:
    """Whether these are its values; MQTT rounds them to four decimals."""
    return all(abs(values.get(name, -1.0) - value) < 1e-4 for name, value in estimate.as_dict().items())
