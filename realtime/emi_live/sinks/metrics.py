"""`--metrics PORT`: figures of the run for Prometheus, at `/metrics`; `emi serve` uses the same counters.

Histograms, so that Prometheus can compute any percentile over any time. Stations of an estimate: `window` and
`fusion` (how long they took), `capture_to_estimate` (the age of the media), and for each modality `arrival`
(from capture to the engine) and `encoding` (from there to the bus).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, Final, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from emi_live.clock import NS_PER_MS
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.messages import Estimate
from emi_live.sinks.peers import LAN, host_and_port
from emi_live.worker import Worker
from emi_models.libraries import require

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Histogram
    from prometheus_client.core import Metric

    from emi_live.live import LiveEngine

__all__ = ["MetricsSink", "event_family"]

# Seconds: from a fusion on a fast machine to words that a slow one is late with.
BUCKETS: Final = (
    *(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5),
    *(0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0),
)
STATES: Final = ("live", "missing", "failed", "unavailable")
POLL_S: Final = 0.1


def event_family(
    counters: Iterable[tuple[Sequence[str], Mapping[str, int]]], labels: Sequence[str] = ()
) -> Metric:
    """One family with the name of each counter as its label: what was lost, by edge, and what was done.

    Args:
        counters: by name, each time with the values of the further labels.
        labels: the names of these.
    """
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily("emi_events", "What happened, by name.", labels=["event", *labels])
    for values, counted in counters:
        for name, count in sorted(counted.items()):
            family.add_metric([name, *values], count)
    return family


class _EventCollector:
    """Counters by name, read when Prometheus asks."""

    def __init__(self, read: Callable[[], Mapping[str, int]]) -> None:
        """`read` gives the counters so far."""
        self._read = read

    def collect(self) -> Iterator[Metric]:
        yield event_family([((), self._read())])


class _PartCollector:
    """The state of each part: 1 for the one that it is in."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(
            "emi_part_state", "1: the part is in this state.", labels=["part", "state"]
        )
        for part, status in sorted(self._health.snapshot().parts.items()):
            family.add_metric([part, status.state], 1)
        yield family


class MetricsSink:
    """Serves the figures of one run by HTTP, on this machine unless `lan`."""

    name = "metrics"
    finished = False

    def __init__(self, address: str, *, lan: bool = False) -> None:
        """Bind `PORT` or `HOST:PORT`.

        Raises:
            ConfigurationError: it is in use, not valid, or another machine could read it and `lan` is not
            set. MissingPackageError: prometheus-client is not installed.
        """
        require("prometheus_client", extra="metrics", what="--metrics")
        from prometheus_client import CollectorRegistry, make_wsgi_app

        where = f"127.0.0.1:{address}" if address.isdecimal() else address
        self._lan = lan
        self._registry = CollectorRegistry()
        self._histogram, self._gauges = _families(self._registry)
        self._worker: Worker | None = None
        host, port = host_and_port(f"--metrics {where}", where, default_port=None, lan=lan)
        try:
            self._server = _Server(("127.0.0.1" if host == "localhost" else host, port), _Handler)
        except OSError as error:
            raise ConfigurationError(
                f"--metrics {address} cannot be bound: {error.strerror}; choose another port"
            ) from error
        self._server.set_app(cast("Any", make_wsgi_app(self._registry)))

    @property
    def url(self) -> str:
        """Where Prometheus reads it."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/metrics{LAN if self._lan else ''}"

    def attach(self, engine: LiveEngine) -> None:
        """Read the counters and states of this engine."""
        health = engine.health
        self._registry.register(_EventCollector(lambda: health.snapshot().counters))
        self._registry.register(_PartCollector(health))
        self._worker = Worker("metrics", self._serve, health)

    def open(self) -> None:
        """Begin to answer; a second call does nothing.

        Raises:
            ConfigurationError: no engine was attached.
        """
        if self._worker is None:
            raise ConfigurationError("MetricsSink belongs to an engine: give it as LiveEngine(sinks=[…])")
        if not self._worker.alive and not self._worker.finished:
            self._worker.start()

    def write(self, estimate: Estimate) -> None:
        """Take in the times and values of one estimate."""
        latency = estimate.latency
        for station, value_ms in (
            ("window", latency.window),
            ("fusion", latency.fusion),
            ("capture_to_estimate", latency.capture_to_estimate),
        ):
            if value_ms is not None:
                self._histogram.labels(station).observe(value_ms / 1e3)
        for modality, trace in estimate.traces.items():
            if trace.arrived_ns:
                arrived = (trace.arrived_ns - trace.t_ns) / (1e3 * NS_PER_MS)
                encoded = (trace.published_ns - trace.arrived_ns) / (1e3 * NS_PER_MS)
                self._histogram.labels(f"{modality}_arrival").observe(arrived)
                self._histogram.labels(f"{modality}_encoding").observe(encoded)
        values, states, ages = self._gauges
        for name, value in estimate.as_dict().items():
            values.labels(name).set(value)
        for modality, report in estimate.modalities.items():
            for state in STATES:
                states.labels(modality, state).set(report.state == state)
            if report.age_ms is not None:
                ages.labels(modality).set(report.age_ms / 1e3)

    def idle(self) -> None:
        """Nothing is due."""

    def close(self) -> None:
        """Release the port; a second call does nothing."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.request_stop()
            worker.join(5 * POLL_S)
        self._server.server_close()

    def _serve(self, stop: threading.Event) -> None:
        self._server.timeout = POLL_S
        while not stop.is_set():
            self._server.handle_request()


def _families(registry: CollectorRegistry) -> tuple[Histogram, tuple[Any, Any, Any]]:
    from prometheus_client import Gauge, Histogram

    histogram = Histogram(
        "emi_station_seconds", "Seconds at each station.", ["station"], buckets=BUCKETS, registry=registry
    )
    value = Gauge("emi_intensity", "The newest intensity.", ["name"], registry=registry)
    state = Gauge("emi_modality_state", "1: the state.", ["modality", "state"], registry=registry)
    age = Gauge("emi_modality_age_seconds", "Age of the evidence.", ["modality"], registry=registry)
    return histogram, (value, state, age)


class _Handler(WSGIRequestHandler):
    timeout = 2.0  # a client that says nothing does not keep others out for longer

    def log_message(self, *_: object) -> None:
        """Say nothing: standard error belongs to the program."""

    def address_string(self) -> str:
        """The client's address; no name is looked up."""
        return str(self.client_address[0])


class _Server(WSGIServer):
    def server_bind(self) -> None:
        """As the base, which would look up the name of this host."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "emi-live", self.server_address[1]
        self.setup_environ()
