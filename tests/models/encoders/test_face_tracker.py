"""The tracker alone, on made-up detections, landmarks and heads."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_models.encoders.face_tracker import (
    ANCHORS,
    CanonicalFace,
    LandmarkSmoother,
    Region,
    letterbox,
    merge,
    region_around,
    regions_of_detections,
)

WHOLE = letterbox(128, 128)
UNLIKELY = -50.0  # before the sigmoid


def detections(
    *faces: tuple[int, float, tuple[float, ...]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the detector gives: of each face its anchor, raw score, and the first eight offsets."""
    offsets, scores = np.zeros((896, 16), np.float32), np.full(896, UNLIKELY, np.float32)
    for anchor, score, values in faces:
        offsets[anchor, : len(values)] = values
        scores[anchor] = score
    return offsets, scores


def test_anchors_are_the_centres_of_the_cells() -> None:
    assert ANCHORS.shape == (896, 2)
    assert ANCHORS[0].tolist() == ANCHORS[1].tolist() == [1 / 32, 1 / 32]
    assert ANCHORS[2].tolist() == [3 / 32, 1 / 32]  # row by row
    assert ANCHORS[512].tolist() == ANCHORS[517].tolist() == [1 / 16, 1 / 16]
    assert ANCHORS[-1].tolist() == [15 / 16, 15 / 16]


def test_a_detection_is_half_as_long_again_and_turned_by_the_eyes() -> None:
    # About the anchor at (4, 4): centre 10 further right and 20 further down, 30 by 40, eyes on a diagonal.
    offsets, scores = detections((0, 3.0, (10, 20, 30, 40, 0, 0, 8, 8)))
    (region,) = regions_of_detections(offsets, scores, WHOLE, 0.5)
    assert (region.x, region.y) == pytest.approx((14, 24))
    assert (region.width, region.height) == pytest.approx((45, 60))
    assert region.angle == pytest.approx(math.pi / 4)


def test_a_detection_is_put_back_from_the_letterbox() -> None:
    offsets, scores = detections((0, 3.0, (60, 60, 16, 16, 0, 0, 8, 0)))
    (region,) = regions_of_detections(offsets, scores, letterbox(640, 360), 0.5)
    assert (region.x, region.y) == pytest.approx((320, 180))  # the middle stays the middle
    assert (region.width, region.height) == pytest.approx((120, 120))


def test_overlapping_detections_are_one_face_where_the_surer_one_says() -> None:
    eyes = (0, 0, 8, 0)
    offsets, scores = detections((0, 0.0, (10, 10, 20, 20, *eyes)), (1, 2.0, (14, 10, 20, 20, *eyes)))
    (region,) = regions_of_detections(offsets, scores, WHOLE, 0.3)
    weights = [0.5, 1 / (1 + math.exp(-2))]
    assert region.x == pytest.approx((14 * weights[0] + 18 * weights[1]) / sum(weights))


def test_faces_come_in_the_order_of_their_scores() -> None:
    face = (0, 0, 16, 16, 0, 0, 8, 0)
    offsets, scores = detections((0, 1.0, face), (300, 3.0, face), (895, 2.0, face))
    found = regions_of_detections(offsets, scores, WHOLE, 0.5)
    assert [(region.x, region.y) for region in found] == [
        pytest.approx(tuple(ANCHORS[anchor] * 128)) for anchor in (300, 895, 0)
    ]
    assert len(regions_of_detections(offsets, scores, WHOLE, 0.8)) == 2


@pytest.mark.parametrize("size", [(-5, 10), (10, -5), (math.nan, 10), (0, 0)])
def test_a_detection_without_an_area_is_none(size: tuple[float, float]) -> None:
    offsets, scores = detections((0, 3.0, (0, 0, *size, 0, 0, 8, 0)))
    assert regions_of_detections(offsets, scores, WHOLE, 0.5) == []


def test_scores_of_any_size_do_no_harm() -> None:
    offsets, scores = detections()
    scores[:] = -3e38
    assert regions_of_detections(offsets, scores, WHOLE, 0.5) == []


@given(
    x=st.floats(-100, 100),
    y=st.floats(-100, 100),
    width=st.floats(1, 300),
    angle=st.floats(-math.pi, math.pi),
)
def test_a_region_is_turned_about_its_centre(x: float, y: float, width: float, angle: float) -> None:
    place = Region(x, y, width, 2 * width, angle).matrix(256)
    np.testing.assert_allclose(place @ (128, 128, 1), [x, y], atol=1e-9)
    right, below = place @ (256, 128, 1) - (x, y), place @ (128, 256, 1) - (x, y)
    np.testing.assert_allclose(right, np.array([math.cos(angle), math.sin(angle)]) * width / 2, atol=1e-9)
    np.testing.assert_allclose(below, np.array([-math.sin(angle), math.cos(angle)]) * width, atol=1e-9)


def test_of_overlapping_regions_the_last_is_kept() -> None:
    tracked, elsewhere = Region(100, 100, 50, 50), Region(300, 100, 50, 50)
    near, touching = Region(105, 100, 50, 50), Region(140, 100, 50, 50)
    assert merge([tracked, elsewhere], [near], overlap=0.5) == [elsewhere, near]
    assert merge([tracked, near], overlap=0.5) == [near]
    assert merge([tracked], [touching], overlap=0.5) == [tracked, touching]
    assert merge([], [], overlap=0.5) == []
    assert Region(0, 0, 0, 0).iou(Region(0, 0, 0, 0)) == 0


def test_the_next_region_is_square_and_upright_by_the_eyes() -> None:
    points = np.zeros((478, 2))
    points[33], points[263], points[0], points[1] = (10, 0), (10, 20), (0, 0), (30, 100)
    region = region_around(points)
    assert (region.x, region.y, region.width, region.height) == pytest.approx((15, 50, 150, 150))
    assert region.angle == pytest.approx(math.pi / 2)
    assert region.usable
    assert not region_around(np.zeros((478, 2))).usable
    assert not region_around(np.full((478, 2), np.nan)).usable


def face_at(x: float, y: float = 0.0) -> NDArray[np.float64]:
    spread = np.linspace(0, 100, 478)
    return np.column_stack([spread + x, spread[::-1] + y, np.zeros(478)])


def test_a_still_face_trembles_less_and_a_moving_one_is_followed() -> None:
    smoother = LandmarkSmoother()
    tremble = [0.0, 0.2, -0.2] * 10
    seen = [smoother.push(face_at(x), k / 30)[0, 0] for k, x in enumerate(tremble)]
    assert np.ptp(seen[3:]) < 0.5 * np.ptp(tremble)
    smoother.reset()
    moving = [smoother.push(face_at(5.0 * k), k / 30)[0, 0] for k in range(30)]
    assert moving[0] == 0
    assert 0 <= 5.0 * 29 - moving[-1] < 5.0


def test_the_smoother_takes_what_it_cannot_smooth_as_it_is() -> None:
    smoother = LandmarkSmoother()
    smoother.push(face_at(0), 1.0)
    np.testing.assert_array_equal(smoother.push(face_at(9), 1.0), face_at(9))  # no time has passed
    np.testing.assert_array_equal(smoother.push(np.ones((478, 3)), 2.0), np.ones((478, 3)))  # no size


@pytest.fixture(scope="module")
def metadata(assets: Path) -> bytes:
    with zipfile.ZipFile(assets / "mediapipe" / "face_landmarker.task") as bundle:
        return bundle.read("geometry_pipeline_metadata_landmarks.binarypb")


@pytest.fixture(scope="module")
def canonical(metadata: bytes) -> CanonicalFace:
    return CanonicalFace(metadata)


@pytest.mark.assets
@pytest.mark.parametrize("size", [(640, 360), (300, 900)])
@given(yaw=st.floats(-0.8, 0.8), roll=st.floats(-1.5, 1.5), across=st.floats(-10, 10))
def test_the_pose_of_the_canonical_face_far_away_is_found_again(
    canonical: CanonicalFace, size: tuple[int, int], yaw: float, roll: float, across: float
) -> None:
    """Landmarks are a parallel projection, so the pose is exact only without perspective."""
    width, height = size
    about_y = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    about_z = np.array([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
    turn, away = about_y @ about_z, 1000.0
    points = canonical._centred + canonical._centre
    seen = points @ turn.T + (across, 0, -away)
    near = 2 * math.tan(math.radians(63) / 2)
    landmarks = np.zeros((478, 3))
    x, y, z = seen.T
    landmarks[canonical._ids, 0] = 0.5 + x / away / (near * width / height)
    landmarks[canonical._ids, 1] = 0.5 - y / away / near
    landmarks[canonical._ids, 2] = -(z + away) / away / (near * width / height)
    matrix = canonical.pose(landmarks, width, height)
    np.testing.assert_allclose(matrix[:3, :3], turn, atol=0.02)
    np.testing.assert_allclose(matrix[:3, 3], [across, 0, -away], atol=0.02 * away)


MESH_BYTES = 19_054  # after them come the weights


@pytest.mark.assets
@pytest.mark.parametrize("size", [0, 1, 2, 1000, MESH_BYTES - 1, MESH_BYTES, MESH_BYTES + 4])
def test_a_canonical_face_that_is_cut_off_is_refused(metadata: bytes, size: int) -> None:
    with pytest.raises(ValueError, match=r"face|field|integer|weights"):
        CanonicalFace(metadata[:size])


def test_what_is_no_canonical_face_is_refused() -> None:
    with pytest.raises(ValueError, match="field"):
        CanonicalFace(bytes(range(256)))
