from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from emi_bench.live import after_warm_up, losses_by_edge, passages, stations_of
from emi_bench.live_report import TOTAL
from emi_bench.measurement import Distribution
from emi_live.messages import Trace
from tests.bench.live.simulation import MS, Simulation, every

SECONDS = 8.0
HOP_MS = 200.0


def stalls(index: int) -> int:
    """The stage's time: 300 ms for one picture, in the middle of the run."""
    return 9 * MS if index != 120 else 300 * MS


def stations(simulation: Simulation) -> dict[str, Distribution]:
    seen, packets = simulation.run(every(SECONDS), SECONDS)
    return stations_of(seen, {"vision": packets}, 1.0)["vision"]


def test_the_stations_of_each_packet_add_up_to_its_way_into_a_sink() -> None:
    seen, packets = Simulation(stage_ns=stalls).run(every(SECONDS), SECONDS)
    ways = list(passages(seen, "vision", packets))
    assert len(ways) > 200
    for packet, (one, times) in zip(packets, ways, strict=False):
        assert list(times) == ["capture", "face", "bus", "window", "fusion", "sink", TOTAL]
        way_ms = (one.received_ns - packet.t_ns) / MS
        assert sum(times.values()) - times[TOTAL] == pytest.approx(times[TOTAL]) == pytest.approx(way_ms)
        assert 0 <= times["bus"] <= HOP_MS


def test_each_station_takes_what_it_was_made_to_take() -> None:
    found = stations(Simulation(capture_ns=4 * MS, stage_ns=lambda _: 9 * MS, fusion_ns=3 * MS, sink_ns=MS))
    for name, wanted_ms in {"capture": 4, "face": 9, "sink": 1}.items():
        assert [found[name].min, found[name].max] == pytest.approx([wanted_ms, wanted_ms])
    # The window is timed by the processor's clock, and by this one it and fusion are what the engine takes.
    assert found["window"].mean + found["fusion"].mean == pytest.approx(3)
    assert 0 <= found["bus"].min < 10 < 190 < found["bus"].max <= HOP_MS


@pytest.mark.parametrize(
    ("slow", "station", "by_ms"),
    [
        (Simulation(capture_ns=54 * MS), "capture", 50),
        (Simulation(stage_ns=lambda _: 29 * MS), "face", 20),
        (Simulation(fusion_ns=43 * MS), "fusion", 40),
        (Simulation(sink_ns=31 * MS), "sink", 30),
    ],
)
def test_a_slow_part_shows_at_its_own_station_and_nowhere_else(
    slow: Simulation, station: str, by_ms: float
) -> None:
    usual, found = stations(Simulation()), stations(slow)
    for name in ("capture", "face", "fusion", "sink"):
        later = found[name].median - usual[name].median
        # Fusion is what the window's own time, of the processor's clock, leaves of its span.
        assert later == pytest.approx(by_ms if name == station else 0, abs=5 if name == "fusion" else 1e-6)
    assert found["bus"].max <= HOP_MS


def test_one_stall_is_at_the_stage_and_nowhere_else_and_drops_pictures_on_its_own_edge() -> None:
    usual, simulation = stations(Simulation()), Simulation(stage_ns=stalls)
    found = stations(simulation)
    assert found["face"].max == pytest.approx(300)
    assert found["face"].median == pytest.approx(9)
    for name in ("capture", "sink"):
        assert (found[name].min, found[name].max) == (usual[name].min, usual[name].max)
    assert found["bus"].max <= HOP_MS
    lost = {edge.name: dict(edge.lost) for edge in losses_by_edge(simulation.health.snapshot()) if edge.lost}
    # Eight pictures came meanwhile, and the newest of them was looked at.
    assert lost == {"camera → face": {"camera.overwritten": 7}}


def test_freshness_is_not_told_by_estimates_after_the_media_have_ended() -> None:
    seen, _ = Simulation().run(every(4.0), 6.0)
    measured = after_warm_up(seen, 1.0)
    assert measured[0].estimate.t_s == pytest.approx(1.2)
    assert measured[-1].estimate.t_s == pytest.approx(4.0)


def test_words_have_two_stages() -> None:
    trace = Trace(t_ns=0, arrived_ns=5 * MS, transcribed_ns=45 * MS, published_ns=65 * MS)
    (one, *_), _ = Simulation().run(every(1.0), 1.0)
    heard = replace(one, estimate=msgspec.structs.replace(one.estimate, traces={"text": trace}))
    ((_, row),) = passages([heard], "text", [trace])
    assert (row["capture"], row["speech"], row["text"]) == (5, 40, 20)


def test_a_second_packet_of_the_same_time_is_taken_by_an_estimate_after_it() -> None:
    seen, packets = Simulation().run(every(2.0), 2.0)
    first = packets[30]
    second = msgspec.structs.replace(first, published_ns=first.published_ns + 300 * MS)
    (one, _), (other, times) = passages(seen, "vision", [first, second])
    assert other.estimate.started_ns > one.estimate.started_ns
    assert 0 <= times["bus"] <= HOP_MS


def test_evidence_of_unknown_arrival_has_no_stations() -> None:
    seen, packets = Simulation().run(every(1.0), 1.0)
    scripted = [msgspec.structs.replace(packet, arrived_ns=0) for packet in packets]
    assert stations_of(seen, {"vision": scripted}, 0.0) == {}
    assert stations_of([], {}, 0.0) == {}
