"""Two people in the picture: one is followed, another can be chosen, and a change is counted and said."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from emi_live import LiveEngine, load_config
from emi_live.demo import demo_stages
from emi_live.errors import ConfigurationError
from tests.models.encoders.media import read_frames
from tests.support.waiting import until

PERSON = "face/pyfeat_single_face.mp4"
FRAME_NS = 33_000_000


@pytest.fixture
def live(assets: Path) -> Iterator[LiveEngine]:
    settings = ["mode=exact", "models.offline=true", "speech.backend=none", "audio.enabled=false"]
    config = load_config(settings=[*settings, f'models.directory="{assets / "mediapipe"}"'])
    with LiveEngine(config) as engine:
        yield engine


def two_people(assets: Path) -> list[NDArray[np.uint8]]:
    """A person on the right, and the same person smaller on the left, half a second ahead."""
    frames = [rgb[:, 180:420] for rgb, _ in read_frames(assets / PERSON, 60)]
    small = [cv2.resize(rgb, (192, 288), interpolation=cv2.INTER_AREA) for rgb in frames[15:]]
    return [
        np.hstack([np.pad(left, ((0, 72), (0, 48), (0, 0)), "edge"), right])
        for left, right in zip(small, frames[:45], strict=True)
    ]


@pytest.mark.assets
def test_the_larger_face_is_kept_until_the_program_chooses_another(
    live: LiveEngine, assets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    frames = two_people(assets)
    for index, frame in enumerate(frames):
        if index == 30:
            wait_for(live, 25)
            live.follow((0.1, 0.3))
        live.push_frame(frame, index * FRAME_NS)
    live.end()
    states = [estimate.modalities["vision"].state for estimate in live.estimates()]
    assert set(states) == {"live"}
    assert live.health.snapshot().counters["face.changed"] == 1
    assert "another face" in caplog.text


def wait_for(live: LiveEngine, frames: int) -> None:
    """Until so many frames are analysed: a wish counts for the next one."""
    until(lambda: live.health.snapshot().counters.get("face.frames", 0) >= frames)


def test_without_a_face_stage_nobody_can_be_followed() -> None:
    with (
        LiveEngine(
            load_config(settings=["duration_s=0.2"]), make_stages=partial(demo_stages, length_s=12.0)
        ) as live,
        pytest.raises(ConfigurationError, match="face"),
    ):
        live.follow()
    with pytest.raises(ConfigurationError):
        live.follow()


@pytest.mark.assets
def test_a_point_outside_the_picture_is_refused(live: LiveEngine) -> None:
    with pytest.raises(ConfigurationError, match="fractions"):
        live.follow((300, 200))
