"""Faces that cannot be read are refused with the reason; real ones that can are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from emi_models.encoders.face import BLENDSHAPES, FaceEncoder, FaceResult
from tests.models.encoders.media import read_frames

pytestmark = pytest.mark.assets

Picture = NDArray[np.uint8]
ROLL = BLENDSHAPES + 2
PEOPLE = ("face/pyfeat_single_face.jpg", "face/pyfeat_single_face.mp4")


@pytest.fixture(scope="module")
def loaded(assets: Path) -> Iterator[FaceEncoder]:
    encoder = FaceEncoder(assets / "mediapipe" / "face_landmarker.task")
    yield encoder
    encoder.close()


@pytest.fixture(params=PEOPLE)
def picture(request: pytest.FixtureRequest, assets: Path) -> Picture:
    return read_frames(assets / request.param, 1)[0][0]


def still(encoder: FaceEncoder, picture: Picture) -> FaceResult:
    encoder.reset()
    return encoder.analyse(np.ascontiguousarray(picture), 0)


def rolled(picture: Picture, degrees: float) -> Picture:
    """The picture turned anticlockwise about its middle, in a larger square."""
    height, width = picture.shape[:2]
    side = int(1.2 * max(height, width))
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    turn[:, 2] += (side - width) / 2, (side - height) / 2
    turned: Picture = cv2.warpAffine(picture, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
    return turned


def parts(encoder: FaceEncoder, picture: Picture) -> tuple[NDArray[np.int_], NDArray[np.int_], int]:
    """Upper left and lower right corner of the face, and the height of the middle of its nose."""
    found = still(encoder, picture)
    assert found.landmarks is not None
    points = (found.landmarks * (picture.shape[1], picture.shape[0])).astype(int)
    return points.min(axis=0), points.max(axis=0), int(points[195, 1])


@pytest.mark.parametrize("degrees", [-55, -30, 0, 30, 55])
def test_a_face_that_leans_can_be_read(loaded: FaceEncoder, picture: Picture, degrees: int) -> None:
    found = still(loaded, rolled(picture, degrees))
    assert found.features is not None
    assert found.problem is None
    assert np.degrees(found.features[ROLL]) == pytest.approx(degrees, abs=8)


@pytest.mark.parametrize("degrees", [-90, -70, 70, 90, 120, 150, 180])
def test_a_face_that_lies_or_stands_on_its_head_is_not_read(
    loaded: FaceEncoder, picture: Picture, degrees: int
) -> None:
    found = still(loaded, rolled(picture, degrees))
    assert found.faces == 0 or found.problem == "face rolled"


def test_a_face_upside_down_is_known_by_its_roll(loaded: FaceEncoder, assets: Path) -> None:
    """The detector and the mesh take it for an upright one, MediaPipe's too."""
    frames = read_frames(assets / PEOPLE[1])
    loaded.reset()
    results = [loaded.analyse(np.ascontiguousarray(rgb[::-1, ::-1]), t_ns) for rgb, t_ns in frames]
    rolls = [abs(np.degrees(found.features[ROLL])) for found in results if found.features is not None]
    assert len(rolls) > 0.9 * len(frames)
    assert min(rolls) > 150
    assert {found.problem for found in results if found.faces} == {"face rolled"}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda picture: (picture * 0.05).astype(np.uint8), "face too dark"),
        (
            lambda picture: cv2.resize(picture, None, fx=0.1, fy=0.1, interpolation=cv2.INTER_AREA),
            "face too small",
        ),
    ],
)
def test_a_dark_or_small_face_is_not_read(
    loaded: FaceEncoder, picture: Picture, spoil: Callable[[Picture], Picture], reason: str
) -> None:
    found = still(loaded, spoil(picture))
    assert found.faces == 0 or found.problem == reason


@pytest.mark.parametrize("lower", [True, False])
def test_half_a_face_behind_something_even_is_not_read(
    loaded: FaceEncoder, picture: Picture, lower: bool
) -> None:
    (left, top), (right, bottom), nose = parts(loaded, picture)
    covered = picture.copy()
    rows = slice(nose, bottom + 20) if lower else slice(max(0, top - 20), nose)
    covered[rows, left - 20 : right + 20] = picture[nose, left]
    found = still(loaded, covered)
    assert found.faces == 0 or found.problem == "face covered"


def test_the_people_of_the_clips_can_be_read(loaded: FaceEncoder, assets: Path) -> None:
    for name in (*PEOPLE, "av/face_and_speech.mp4", "face/intel_head-pose-face-detection-female.gif"):
        loaded.reset()
        results = [loaded.analyse(rgb, t_ns) for rgb, t_ns in read_frames(assets / name, 40)]
        refused = [result.problem for result in results if result.problem is not None]
        assert len(refused) <= 0.05 * len(results), (name, set(refused))


@pytest.mark.slow
def test_of_rated_faces_less_than_one_in_a_hundred_is_refused(loaded: FaceEncoder, assets: Path) -> None:
    """FER+ faces, every twelfth, that at least six of ten people gave one emotion."""
    votes = np.loadtxt(
        assets / "face" / "ferplus" / "valid.csv", delimiter=",", skiprows=1, usecols=range(1, 11)
    )
    with np.load(assets / "face" / "ferplus" / "valid.npz") as archive:
        pictures = archive["pictures"]
    clear = np.flatnonzero(votes[:, :8].max(axis=1) >= 6)[::12]
    problems = []
    for place in clear:
        large = cv2.resize(pictures[place], (192, 192), interpolation=cv2.INTER_CUBIC)
        framed = cv2.copyMakeBorder(large, 64, 64, 64, 64, cv2.BORDER_REPLICATE)
        found = still(loaded, np.repeat(framed[:, :, None], 3, axis=2))
        if found.features is not None:
            problems.append(found.problem)
    # Some of them do lie on their side, or show their profile.
    wrongly = [why for why in problems if why not in (None, "face rolled", "face turned away")]
    assert len(problems) > 150
    assert len(wrongly) < 0.01 * len(problems), wrongly
    assert sum(why is not None for why in problems) < 0.03 * len(problems)
