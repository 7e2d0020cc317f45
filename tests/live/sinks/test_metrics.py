"""`--metrics`: what Prometheus' own parser reads."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families

from emi_live import LiveConfig, LiveEngine
from emi_live.demo import demo_stages
from emi_live.errors import ConfigurationError
from emi_live.sinks.metrics import BUCKETS, MetricsSink
from tests.support.ports import free_port

pytestmark = pytest.mark.slow

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(url: str) -> Samples:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # our own, on loopback
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


@pytest.fixture(scope="module")
def scraped() -> Iterator[tuple[Samples, int]]:
    config = LiveConfig.model_validate({"window": {"hop_s": 0.1}})
    sink = MetricsSink(str(free_port()))
    stages = partial(demo_stages, length_s=config.window.length_s)
    with LiveEngine(config, sinks=[sink], make_stages=stages) as live:
        live.health.count("bus.vision.dropped", 3)
        estimates = live.estimates()
        for _ in range(12):
            next(estimates)
        with socket.create_connection(
            ("127.0.0.1", sink_port(sink))
        ):  # says nothing; others are not kept out
            yield scrape(sink.url), 11


def sink_port(sink: MetricsSink) -> int:
    return int(sink.url.split(":")[2].split("/")[0])


def test_each_station_has_a_histogram(scraped: tuple[Samples, int]) -> None:
    found, least = scraped
    for station in ("window", "fusion", "capture_to_estimate"):
        count = found["emi_station_seconds_count", (("station", station),)]
        assert count >= least
        within = [
            found["emi_station_seconds_bucket", (("le", str(limit)), ("station", station))]
            for limit in BUCKETS
        ]
        assert within == sorted(within)
        assert within[-1] <= count


def test_drops_are_counted_by_edge(scraped: tuple[Samples, int]) -> None:
    assert scraped[0]["emi_events_total", (("event", "bus.vision.dropped"),)] == 3


def test_states_are_those_of_the_parts_and_modalities(scraped: tuple[Samples, int]) -> None:
    found = scraped[0]
    assert found["emi_part_state", (("part", "fusion"), ("state", "running"))] == 1
    for modality in ("vision", "audio", "text"):
        states = [
            value
            for (name, labels), value in found.items()
            if name == "emi_modality_state" and ("modality", modality) in labels
        ]
        assert sorted(states) == [0, 0, 0, 1]
    assert 0 <= found["emi_intensity", (("name", "joy"),)] <= 1


def test_a_port_in_use_is_an_error_before_the_run() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="another port"):
            MetricsSink(str(taken.getsockname()[1]))


@pytest.mark.parametrize(("address", "word"), [("0.0.0.0:9464", "--lan"), ("x", "port"), ("99999", "port")])
def test_an_invalid_address_is_refused(address: str, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        MetricsSink(address)
