"""The packaged checkpoint through the program itself: a smile that comes and goes, and nothing at all."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from emi_models import EMOTIONS
from emi_models.checkpoint import packaged_checkpoint, read_header
from emi_models.encoders.face import FaceEncoder
from tests.live.end_to_end.support import HOP_S, Run, emi_live, environment
from tests.models.encoders.media import read_frames

pytestmark = [pytest.mark.assets, pytest.mark.slow]

SMILE = slice(44, 46)  # mouthSmileLeft and mouthSmileRight
SMILING_S = (0.8, 2.2)  # the smile is full from 0.75 s on, and gone with the last of 2.4 s


@pytest.fixture(scope="module", params=[0.1, HOP_S], ids=["twice as often", "as by default"])
def smile(assets: Path, request: pytest.FixtureRequest) -> Run:
    clip = assets / "face/pyfeat_single_face.mp4"
    return emi_live(assets, "--input", clip, "--set", f"window.hop_s={request.param}", backend="none")


def course(run: Run, emotion: str) -> NDArray[np.float64]:
    return np.array([line["intensities"][emotion] for line in run.lines])


@pytest.fixture(scope="module")
def mouth(assets: Path) -> tuple[list[int], NDArray[np.float64]]:
    """The time of each picture in nanoseconds, and how far the mouth smiled in it, in [0, 1]."""
    encoder = FaceEncoder(assets / "mediapipe/face_landmarker.task")
    times, values = [], []
    for picture, t_ns in read_frames(assets / "face/pyfeat_single_face.mp4"):
        features = encoder.analyse(picture, t_ns).features
        assert features is not None
        times.append(t_ns)
        values.append(float(features[SMILE].mean()))
    encoder.close()
    return times, np.array(values)


@pytest.mark.parametrize("emotion", ["joy", "amusement"])
def test_joy_and_amusement_rise_and_fall_with_a_smile(
    smile: Run, mouth: tuple[list[int], NDArray[np.float64]], emotion: str
) -> None:
    assert smile.exit_code == 0, smile.stderr
    at_s = [line["t"] for line in smile.lines]
    shown = course(smile, emotion)
    during = np.array([SMILING_S[0] <= t <= SMILING_S[1] for t in at_s])
    before = np.array([t <= 0.5 for t in at_s])
    assert shown[during].min() > shown[before].max() + 0.15
    assert shown[-1] < 0.75 * shown[during].mean()
    times, smiles = mouth
    newest = np.searchsorted(times, [round(t * 1e9) for t in at_s], side="right") - 1
    assert spearmanr(shown, smiles[newest]).statistic >= 0.8


@pytest.mark.parametrize("emotion", ["determination", "empathic_pain"])
def test_a_smile_is_neither_determination_nor_empathic_pain(smile: Run, emotion: str) -> None:
    shown = course(smile, emotion)
    assert shown.max() - shown[0] < 0.03


def test_the_face_counts_and_the_rest_is_missing(smile: Run) -> None:
    modalities = smile.at(2.0)["modalities"]
    assert {name: report["used"] for name, report in modalities.items()} == {
        "vision": True,
        "audio": False,
        "text": False,
    }
    span_s = read_header(packaged_checkpoint("compact")).spans_s["vision"]
    assert modalities["vision"]["frames"] == math.ceil(30 * span_s)  # 30 pictures a second


def test_joy_is_what_it_is_with_mediapipe(assets: Path) -> None:
    clip = assets / "face/pyfeat_single_face.mp4"
    ours, theirs = (
        emi_live(assets, "--input", clip, "--set", f"face.backend={backend}", backend="none")
        for backend in ("litert", "mediapipe")
    )
    assert "LiteRT" in ours.stderr
    assert "MediaPipe" in theirs.stderr
    for emotion in EMOTIONS:
        np.testing.assert_allclose(course(ours, emotion), course(theirs, emotion), rtol=0, atol=0.01)
    assert np.corrcoef(course(ours, "joy"), course(theirs, "joy"))[0, 1] >= 0.999


def test_a_backend_that_is_named_and_not_installed_is_an_error(assets: Path) -> None:
    code = "import sys; sys.modules['mediapipe'] = None; from emi_live.cli import start_emi_live as s; s()"
    clip = str(assets / "face/pyfeat_single_face.mp4")
    done = subprocess.run(
        [sys.executable, "-c", code, "--input", clip, "--no-ui", "--set", "face.backend=mediapipe"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(assets),
    )
    assert done.returncode == 2
    assert "emi-live[mediapipe]" in done.stderr.splitlines()[-1]


def test_without_a_face_a_voice_or_words_it_says_what_is_usual(assets: Path) -> None:
    run = emi_live(assets, "--input", assets / "face/pyfeat_no_face.mp4")
    assert {tuple(line["intensities"].values()) for line in run.lines} == {
        tuple(run.lines[0]["intensities"].values())
    }
    usual = dict(zip(EMOTIONS, (0.056, 0.026, 0.028, 0.035, 0.012, 0.019), strict=True))  # at rest
    for emotion, value in run.lines[0]["intensities"].items():
        assert value == pytest.approx(usual[emotion], abs=0.02)
