from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from emi_bench.flash_beep import (
    LIGHT,
    CodeReading,
    CodeUnreadableError,
    OnOffTimes,
    find_code,
    make_code,
)
from emi_bench.live_report import CodeResponse
from emi_live.clock import NS_PER_MS, NS_PER_S
from tests.bench.live.simulation import MS, Simulation, every

SECONDS = 40.0
HOP_NS = NS_PER_S // 5
CODE = make_code(0, SECONDS, 0.2)
PICTURES = every(SECONDS)


def captured() -> OnOffTimes:
    """When the first picture of each switch was captured."""
    return OnOffTimes(np.array([next(t for t in PICTURES if t >= switch) for switch in switches()], np.int64))


def switches() -> list[int]:
    return [int(t) for t in CODE.times_ns if t <= PICTURES[-1]]


def sights(simulation: Simulation | None = None) -> list[CodeReading]:
    def is_on(t_ns: int) -> float:
        return float(CODE.on_at(np.array([t_ns]))[0])

    seen, _ = replace(simulation or Simulation(), brightness=is_on).run(PICTURES, SECONDS)
    return [
        CodeReading(
            one.estimate.intensities[LIGHT], one.estimate.published_ns, one.estimate.traces["vision"].t_ns
        )
        for one in seen
        if "vision" in one.estimate.traces
    ]


def light(simulation: Simulation | None = None) -> CodeResponse:
    return find_code("light", captured(), sights(simulation), HOP_NS)


def test_light_takes_the_time_of_its_way_and_up_to_a_hop_more() -> None:
    found = light()
    way_ms = 4 + 9 + 3  # capture, stage, fusion
    assert found.to_estimate_ms.n == found.onsets > 25
    assert found.to_estimate_ms.min >= way_ms
    assert found.to_estimate_ms.max <= way_ms + 200
    assert found.to_estimate_ms.max - found.to_estimate_ms.min > 150  # every phase of the hop
    assert found.lag_ms == pytest.approx(way_ms, abs=8)
    assert found.agreement > 0.95 > found.runner_up
    assert found.stamps_right


def test_a_slower_way_is_seen_by_as_much() -> None:
    usual, slow = light(), light(Simulation(fusion_ns=103 * MS))
    assert slow.to_estimate_ms.median - usual.to_estimate_ms.median == pytest.approx(100, abs=5)
    assert slow.stamps_right


@pytest.mark.parametrize("error_ms", [-300, -60, 60, 150])
def test_a_source_that_stamps_wrongly_is_found_out(error_ms: int) -> None:
    found = light(Simulation(stamp_error_ns=error_ms * NS_PER_MS))
    assert not found.stamps_right
    low, high = found.stamp_error_ms
    assert low <= error_ms <= high
    assert high - low < 40  # to a picture
    if error_ms < 0:  # light is as fast as ever, whatever it is said to be
        assert found.to_estimate_ms == light().to_estimate_ms


def test_what_does_not_show_is_said_not_to() -> None:
    dark = [replace(sight, value=0.06) for sight in sights()]
    with pytest.raises(CodeUnreadableError, match="light does not"):
        find_code("light", captured(), dark, HOP_NS)
    with pytest.raises(CodeUnreadableError, match="in 0 estimates"):
        find_code("sound", captured(), [], HOP_NS)


def test_another_flicker_is_not_taken_for_the_code() -> None:
    values = np.random.default_rng(3).integers(0, 2, len(sights()))
    flicker = [replace(s, value=float(v)) for s, v in zip(sights(), values, strict=True)]
    with pytest.raises(CodeUnreadableError, match="cannot be told"):
        find_code("light", captured(), flicker, HOP_NS)


def test_the_code_has_no_rhythm_and_every_span_outlasts_two_hops() -> None:
    spans = np.diff(CODE.times_ns) / HOP_NS
    assert spans.min() >= 2
    assert spans.max() <= 4
    assert np.std(spans) > 0.4
    assert make_code(5, SECONDS, 0.2).times_ns[-1] >= SECONDS * NS_PER_S


def test_what_looks_back_sees_the_end_later() -> None:
    track = OnOffTimes.of([(0, False), (100, True), (200, False), (300, True)])
    assert track.onsets_ns.tolist() == [100, 300]
    assert track.shown_by(25).times_ns.tolist() == [100, 225, 300]
    assert track.on_at(np.array([99, 100, 199, 200, 300])).tolist() == [False, True, True, False, True]
