"""Light and sound through the whole engine at real pace, in one run: seconds are dear."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from emi_bench.live import measure_flash_beep
from emi_bench.live_report import TOTAL, LiveReport
from emi_bench.render import terminal
from emi_live import load_config

SECONDS = 10.0
HOP_MS = 100.0
ERROR_MS = 150.0  # by which sound is stamped too late


@pytest.fixture(scope="module")
def report() -> LiveReport:
    config = load_config(settings=["window.hop_s=0.1"])
    return measure_flash_beep(config, SECONDS, sound_stamp_error_s=ERROR_MS / 1000)


@pytest.mark.slow
def test_light_and_sound_are_seen_and_a_wrong_stamp_is_found_out(report: LiveReport) -> None:
    assert report.flash_beep is not None
    light, sound = report.flash_beep.light, report.flash_beep.sound
    for response in (light, sound):
        assert response.to_estimate_ms.n >= 0.8 * response.onsets > 5
        assert response.agreement > response.runner_up
    assert light.stamps_right
    assert not sound.stamps_right
    low, high = sound.stamp_error_ms
    assert low - 30 <= ERROR_MS <= high + 30


@pytest.mark.slow
def test_the_stations_add_up(report: LiveReport) -> None:
    assert set(report.stations) == {"vision", "audio"}  # nothing is said
    for stations in report.stations.values():
        parts = [values for name, values in stations.items() if name != TOTAL]
        assert {values.n for values in stations.values()} == {parts[0].n}
        assert sum(values.mean for values in parts) == pytest.approx(stations[TOTAL].mean)
        assert all(values.min >= 0 for name, values in stations.items() if name != "capture")
    # What is stamped in the future has negative time to arrive: stations alone cannot tell.
    assert report.stations["audio"]["capture"].median < 0 < report.stations["vision"]["capture"].median


@pytest.mark.slow
def test_usage_is_sampled_by_the_clock(report: LiveReport) -> None:
    assert SECONDS - 3 <= len(report.usage) <= SECONDS + 2
    times = [sample.t_s for sample in report.usage]
    assert all(after - before > 0.5 for before, after in pairwise(times))
    assert all(sample.rss_mib > 10 and sample.cores >= 0 for sample in report.usage)


@pytest.mark.slow
def test_the_report_is_plain_json_and_the_page_fits_80_columns(report: LiveReport) -> None:
    plain = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert (plain["bench"], plain["schema"], plain["source"]) == ("live", 1, "flash and beep")
    assert plain["flash_beep"]["light"]["stamps_right"] is True
    assert plain["flash_beep"]["sound"]["stamps_right"] is False
    shown = terminal(report.page(), 80)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert "stamps are right" in shown.replace("\n", " ")
    assert "stamps are WRONG" in shown.replace("\n", " ")
