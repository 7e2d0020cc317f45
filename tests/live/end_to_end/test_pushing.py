"""Pushed media through a whole engine: what it says of breaks, of sound out of range, and of wrong stamps."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from emi_live import LiveConfig, LiveEngine
from emi_live.errors import ConfigurationError
from tests.support.waiting import until

pytestmark = [pytest.mark.assets, pytest.mark.slow]

BLOCK_S = 0.02


def settings(assets: Path, **more: Any) -> LiveConfig:
    """Only prosody runs: it starts fast, and shows every sample."""
    return LiveConfig.model_validate(
        {
            "face": {"enabled": False},
            "speech": {"backend": "none"},
            "models": {"directory": assets / "mediapipe", "offline": True},
            **more,
        }
    )


@pytest.fixture(scope="module")
def voice(assets: Path) -> NDArray[np.float32]:
    """Five seconds of speech, mono at 16 kHz."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=16_000)
    with av.open(str(assets / "speech/LJ001-0002.wav")) as container:
        parts = [
            one.to_ndarray()[0] for frame in container.decode(audio=0) for one in resampler.resample(frame)
        ]
    return np.tile(np.concatenate(parts), 3)[:80_000].astype(np.float32)


def run(assets: Path, voice: NDArray[np.float32], odd: float) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Exact mode: one block is all `odd`, and the fourth second is muted."""
    with LiveEngine(settings(assets, mode="exact")) as live:
        live.end_video()
        for index, block in enumerate(np.split(voice, 250)):
            live.mute_audio(150 <= index < 200)
            odd_one = index == 25
            live.push_audio(np.full_like(block, odd) if odd_one else block, round(index * BLOCK_S * 10**9))
        live.end()
        lines = [estimate.to_json() for estimate in live.estimates()]
        with pytest.raises(ConfigurationError, match="push_audio"):
            live.push_audio(voice, 0)
        counters = live.health.snapshot().counters
    kept = ("t", "intensities", "modalities", "source", "session")
    return [{name: line[name] for name in kept} for line in lines], counters


def test_muted_sound_and_sound_out_of_all_range_leave_no_trace(
    assets: Path, voice: NDArray[np.float32]
) -> None:
    expected, silent = run(assets, voice, 0.0)
    lines, counters = run(assets, voice, 1e15)
    assert lines == expected
    assert counters["audio.clipped"] == 320
    assert "audio.clipped" not in silent
    assert counters.get("audio.gaps", 0) == 0
    said = {round(line["t"], 1): line["modalities"]["audio"] for line in lines}
    muted = [t for t, report in said.items() if report.get("reason") == "muted"]
    assert muted == [3.0, 3.2, 3.4, 3.6, 3.8]
    assert {said[t]["state"] for t in muted} == {"missing"}
    assert said[2.8]["state"] == said[4.8]["state"] == "live"


def test_live_the_reason_says_what_is_wrong_with_stamps_and_that_it_is_paused(assets: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    numbers = itertools.count()
    reasons: dict[str, set[str | None]] = {"vision": set(), "audio": set()}

    with LiveEngine(settings(assets, face={}, window={"hop_s": 0.05})) as live:

        def said(vision: str, audio: str) -> bool:
            live.push_frame(picture, time.monotonic_ns() - 3_000_000_000)
            # The first is of now; no two of the others agree, so that they are never moved to the clock.
            live.push_audio(np.zeros(160, np.float32), time.monotonic_ns() + 10**12 * next(numbers))
            newest = live.latest()
            if newest is None:
                return False
            for name, seen in reasons.items():
                seen.add(newest.modalities[name].reason)  # type: ignore[index]  # a modality's name
            return newest.modalities["vision"].reason == vision and newest.modalities["audio"].reason == audio

        until(lambda: said("frames come 3 s late", "stamps are in the future"))
        live.pause()
        assert live.paused
        assert not live.muted
        until(lambda: said("paused", "paused"))
        newest = live.latest()
        assert newest is not None
        assert {report.state for report in newest.modalities.values()} == {"missing"}
        live.resume()
        reasons["vision"].clear()
        until(lambda: said("frames come 3 s late", "stamps are in the future"))
        assert live.health.snapshot().counters["audio.stamps_refused"] > 0


def test_a_first_stamp_of_another_clock_is_refused_at_the_call(assets: Path) -> None:
    with LiveEngine(settings(assets)) as live:
        with pytest.raises(ConfigurationError, match="monotonic_ns"):
            live.push_frame(np.zeros((8, 8, 3), np.uint8), time.time_ns())
        live.push_frame(np.zeros((8, 8), np.uint8), format="gray")
        with pytest.raises(ConfigurationError, match="2 Hz"):
            live.push_audio([0.0, 0.1], rate_hz=2)
        live.push_audio(np.zeros((2, 960), np.int16), rate_hz=48_000.0, layout="channels_first")  # type: ignore[arg-type]  # a whole float
        assert live.health.snapshot().counters["video.frames"] == 1
