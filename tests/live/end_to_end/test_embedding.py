"""The engine fed from code gives the numbers that it gives for the same media in a file."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from emi_live import LiveEngine, load_config
from emi_live.errors import StalledError
from tests.live.end_to_end.support import first_seconds

pytestmark = [pytest.mark.assets, pytest.mark.slow]

CLIP = "av/face_and_speech.mp4"
SETTINGS = ("mode=exact", "models.offline=true", "speech.backend=pocketsphinx")


def media(path: Path) -> Iterator[tuple[int, str, np.ndarray, int]]:
    """(time in ns, kind, data, rate) of all in the file, in order of time; not decoded by emi-live."""

    def frames() -> Iterator[tuple[int, str, np.ndarray, int]]:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield round(frame.pts * frame.time_base * 10**9), "frame", frame.to_ndarray(format="rgb24"), 0

    def sounds() -> Iterator[tuple[int, str, np.ndarray, int]]:
        with av.open(str(path)) as container:
            for frame in container.decode(audio=0):
                planar = frame.to_ndarray()
                yield round(frame.pts * frame.time_base * 10**9), "sound", planar.T.copy(), frame.sample_rate

    return heapq.merge(frames(), sounds(), key=lambda item: item[0])


def settings(assets: Path) -> list[str]:
    return [*SETTINGS, f'models.directory="{assets / "mediapipe"}"']


def test_pushed_media_give_the_numbers_of_the_file(assets: Path, tmp_path: Path) -> None:
    clip = first_seconds(assets / CLIP, 4.0, tmp_path)
    config = load_config(settings=[*settings(assets), f'source.input="{clip}"'])
    with LiveEngine(config) as live:
        expected = [estimate.to_json() for estimate in live.estimates()]

    pushed = []
    with LiveEngine(load_config(settings=settings(assets))) as live:
        for t_ns, kind, data, rate_hz in media(clip):
            if kind == "frame":
                live.push_frame(data, t_ns)
            else:
                live.push_audio(data, t_ns, rate_hz)
        live.end()
        pushed = [estimate.to_json() for estimate in live.estimates()]

    assert len(pushed) == len(expected)
    for mine, theirs in zip(pushed, expected, strict=True):
        assert mine["t"] == theirs["t"]
        assert mine["modalities"] == theirs["modalities"]
        for name, value in theirs["intensities"].items():
            assert math.isclose(mine["intensities"][name], value, abs_tol=1e-4)


def test_pushing_in_exact_mode_without_taking_estimates_is_told_not_hung(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back-pressure reaches the pusher; sound that never comes is not waited for."""
    monkeypatch.setattr("emi_live.flow.PUSH_TIMEOUT_S", 2.0)
    small = ["bus.high_water_mark=2", "rings.video_frames=2", "source.push_lead_s=0.05"]
    config = load_config(settings=[*settings(assets), *small])
    picture = np.zeros((64, 64, 3), np.uint8)

    def push_for_ever(live: LiveEngine) -> None:
        for index in range(10_000):
            live.push_frame(picture, index * 33_000_000)

    with LiveEngine(config) as live, pytest.raises(StalledError, match="consume estimates"):
        push_for_ever(live)
