from __future__ import annotations

from emi_bench.live import EDGES, losses_by_edge
from emi_live.health import HealthSnapshot


def test_every_loss_is_shown_on_its_edge_and_an_unknown_one_too() -> None:
    counters = {
        "file.late": 1,
        "camera.overwritten": 2,
        "speech.lost_samples": 3,
        "bus.transcript.dropped": 4,
        "bus.audio.dropped": 5,
        "fusion.missed_hops": 6,
        "bus.estimate.dropped": 7,
        "audio.gaps": 0,
        "face.frames": 100,
        "radar.dropped": 8,
    }
    edges = losses_by_edge(HealthSnapshot(counters, {}))
    assert [edge.name for edge in edges] == [*EDGES, "elsewhere"]
    assert {edge.name: dict(edge.lost) for edge in edges if edge.lost} == {
        "camera, file → ring": {"file.late": 1},
        "camera → face": {"camera.overwritten": 2},
        "ring → speech": {"speech.lost_samples": 3},
        "speech → text": {"bus.transcript.dropped": 4},
        "stages → window": {"bus.audio.dropped": 5},
        "window → fusion": {"fusion.missed_hops": 6},
        "fusion → sinks": {"bus.estimate.dropped": 7},
        "elsewhere": {"radar.dropped": 8},
    }
