from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_models.encoders.face import (
    CROP_PX,
    LEFT_EYE,
    RIGHT_EYE,
    VISION_FPS,
    FaceEncoder,
    FrameSampler,
    crop_face,
    cut_square,
    face_square,
)
from emi_models.encoders.vit import resize_face
from tests.models.encoders.media import read_frames

Picture = NDArray[np.uint8]
EYES_PX = ((60.0, 80.0), (140.0, 80.0))  # of the drawn face, in a picture of 200 x 200


def drawn_landmarks(
    angle: float = 0.0, scale: float = 1.0, centre: tuple[float, float] = (100.0, 100.0), size: int = 200
) -> NDArray[np.float32]:
    """A face of 100 x 120 px about (100, 100), then turned, scaled and moved, in fractions of `size`."""
    points = np.full((478, 2), 100.0)
    points[0], points[1], points[2], points[3] = (50, 40), (150, 40), (50, 160), (150, 160)
    points[list(LEFT_EYE)], points[list(RIGHT_EYE)] = EYES_PX
    return (placed(points, angle, scale, centre) / size).astype(np.float32)


def placed(
    points: NDArray[np.float64], angle: float, scale: float, centre: tuple[float, float]
) -> NDArray[np.float64]:
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    moved: NDArray[np.float64] = scale * (points - 100.0) @ turn.T + centre
    return moved


def dot(picture: Picture, at: NDArray[np.float64], radius: float, value: int) -> None:
    rows, columns = np.indices(picture.shape[:2]) + 0.5
    picture[np.hypot(columns - at[0], rows - at[1]) <= radius] = value


def middle(crop: Picture, channel: int) -> NDArray[np.float64]:
    """The centre of what is bright in a channel, x and y in px."""
    weights = crop[:, :, channel].astype(float)
    rows, columns = np.indices(weights.shape) + 0.5
    sums: NDArray[np.float64] = np.array([(weights * columns).sum(), (weights * rows).sum()])
    return sums / float(weights.sum())


@given(
    angle=st.floats(-math.pi, math.pi),
    scale=st.floats(0.5, 4.0),
    shift=st.tuples(st.floats(-40, 40), st.floats(-40, 40)),
)
@settings(max_examples=25, deadline=None)
def test_wherever_a_face_is_its_eyes_come_to_the_same_places(
    angle: float, scale: float, shift: tuple[float, float]
) -> None:
    size = 600
    centre = (300 + shift[0], 300 + shift[1])
    eyes = placed(np.array(EYES_PX), angle, scale, centre)
    picture = np.zeros((size, size, 3), np.uint8)
    for channel, at in enumerate(eyes):
        dot(picture[:, :, channel : channel + 1], at, 6 * scale, 255)
    crop = crop_face(picture, drawn_landmarks(angle, scale, centre, size))
    # The box is 100 x 120 px about (100, 100): the square is 156 px long, 224 px in the crop.
    for channel, (x, y) in enumerate(EYES_PX):
        expected = (np.array([x, y]) - 100.0) * (CROP_PX / 156.0) + CROP_PX / 2
        np.testing.assert_allclose(middle(crop, channel), expected, atol=1.0)


def test_a_crop_without_turning_or_scaling_is_the_picture_itself() -> None:
    rows, columns = np.indices((500, 640))
    picture = np.stack((columns // 3, rows // 2, (rows + columns) // 5), axis=-1).astype(np.uint8)
    side_px = CROP_PX / 1.3  # so that the square is 224 px long
    points = np.full((478, 2), 0.0)
    points[0], points[1] = (-side_px / 2, -side_px / 2), (side_px / 2, side_px / 2)
    points[list(LEFT_EYE)], points[list(RIGHT_EYE)] = (-20, -10), (20, -10)
    landmarks = ((points + np.array([312, 212])) / (640, 500)).astype(np.float32)
    crop = crop_face(picture, landmarks)
    assert crop.shape == (CROP_PX, CROP_PX, 3)
    assert crop.dtype == np.uint8
    np.testing.assert_allclose(crop.astype(int), picture[100:324, 200:424].astype(int), atol=1)


def test_a_model_that_takes_smaller_pictures_gets_the_same_view() -> None:
    rows, columns = np.indices((200, 200))
    picture = np.stack((rows, columns, 200 - rows), axis=-1).astype(np.uint8)
    square = face_square(drawn_landmarks(0.3), 200, 200)
    whole, half = cut_square(picture, square), cut_square(picture, square, CROP_PX // 2)
    assert half.shape == (CROP_PX // 2, CROP_PX // 2, 3)
    means = whole.reshape(CROP_PX // 2, 2, CROP_PX // 2, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(half, means, atol=1.5)


def test_shrinking_averages_instead_of_picking() -> None:
    stripes = np.zeros((2000, 2000, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = crop_face(stripes, drawn_landmarks(scale=10.0, centre=(1000.0, 1000.0), size=2000))
    assert np.abs(crop.astype(int) - 127).max() <= 25


def test_what_is_outside_the_picture_is_black() -> None:
    white = np.full((200, 200, 3), 255, np.uint8)
    crop = crop_face(white, drawn_landmarks(centre=(0.0, 100.0)))
    assert crop[:, : CROP_PX // 2 - 2].max() == 0
    assert crop[:, CROP_PX // 2 + 2 :].min() == 255
    assert crop_face(white, drawn_landmarks(centre=(-900.0, 100.0))).max() == 0


def test_landmarks_on_one_spot_do_no_harm() -> None:
    picture = np.full((50, 60, 3), 9, np.uint8)
    assert (crop_face(picture, np.full((478, 2), 0.5, np.float32)) == 9).all()


@pytest.fixture(scope="module")
def encoder(assets: Path) -> Iterator[FaceEncoder]:
    encoder = FaceEncoder(assets / "mediapipe" / "face_landmarker.task")
    yield encoder
    encoder.close()


def test_a_real_face_is_found_again_upright_in_its_crop(encoder: FaceEncoder, assets: Path) -> None:
    frames = read_frames(assets / "face" / "intel_head-pose-face-detection-female-and-male.gif", 30)
    encoder.reset()
    tilted = 0
    for k, (rgb, t_ns) in enumerate(frames):  # all of them: over a gap, tracking lags behind a turning head
        result = encoder.analyse(rgb, t_ns)
        if k % 10:
            continue
        assert result.landmarks is not None
        assert result.landmarks.shape == (478, 2)
        assert result.landmarks.dtype == np.float32
        assert result.box is not None
        assert result.box.left == pytest.approx(result.landmarks[:, 0].min(), abs=1e-6)
        assert result.features is not None
        tilted += abs(result.features[54]) > 0.3
        crop = crop_face(rgb, result.landmarks)
        again = FaceEncoder(assets / "mediapipe" / "face_landmarker.task")
        found = again.analyse(crop, 0)
        again.close()
        assert found.landmarks is not None
        assert found.box is not None
        eyes = [found.landmarks[list(corners)].mean(axis=0) for corners in (LEFT_EYE, RIGHT_EYE)]
        assert abs(math.atan2(eyes[1][1] - eyes[0][1], eyes[1][0] - eyes[0][0])) < 0.1
        assert max(found.box.right - found.box.left, found.box.bottom - found.box.top) == pytest.approx(
            1 / 1.3, abs=0.06
        )
    assert tilted


def test_a_picture_without_a_face_has_no_landmarks(encoder: FaceEncoder) -> None:
    encoder.reset()
    assert encoder.analyse(np.zeros((120, 160, 3), np.uint8), 0).landmarks is None


@pytest.mark.parametrize("shape", [(112, 112), (300, 200), (97, 640), (1, 1)])
def test_other_sizes_are_brought_to_224(shape: tuple[int, int]) -> None:
    smooth = np.indices(shape).sum(axis=0)[:, :, None] * np.array([1, 2, 3]) % 251
    sized = resize_face(smooth.astype(np.uint8))
    assert sized.shape == (CROP_PX, CROP_PX, 3)
    assert sized.dtype == np.uint8


@pytest.mark.parametrize("shape", [(112, 112), (300, 200), (640, 481)])
def test_sizing_agrees_with_transformers_own(shape: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image", reason="transformers' image processor needs Pillow")
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    wanted = np.asarray(image.fromarray(picture).resize((CROP_PX, CROP_PX), image.Resampling.BILINEAR))
    assert np.abs(resize_face(picture).astype(int) - wanted).max() <= 1


def test_a_crop_of_the_right_size_is_copied() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (CROP_PX, CROP_PX, 3), np.uint8)
    sized = resize_face(picture)
    np.testing.assert_array_equal(sized, picture)
    assert not np.shares_memory(sized, picture)


@given(camera=st.sampled_from([6.0, 10.0, 23.976, 25.0, 29.97, 30.0, 60.0]), start=st.integers(0, 10**15))
@settings(max_examples=30, deadline=None)
def test_any_faster_camera_gives_six_a_second(camera: float, start: int) -> None:
    sampler = FrameSampler()
    stamps = [round(k / camera * 1e9) for k in range(round(camera * 10))]
    taken = [t_ns * 1e-9 for t_ns in stamps if sampler.take(start + t_ns)]
    assert len(taken) == 10 * VISION_FPS
    # The k-th is the first frame of its sixth of a second: never early by more than stamps are rounded.
    for slot, seconds in enumerate(taken):
        assert -0.001 <= seconds - slot / VISION_FPS < 1 / camera + 1e-6


def test_a_slower_camera_has_all_frames_taken() -> None:
    sampler = FrameSampler()
    assert all(sampler.take(k * 200_000_000) for k in range(20))


def test_stamps_rounded_to_milliseconds_lose_no_frame() -> None:
    sampler = FrameSampler()
    assert sum(sampler.take(round(k * 1000 / 6) * 1_000_000) for k in range(60)) == 60


def test_after_a_gap_or_a_reset_it_goes_on() -> None:
    sampler = FrameSampler()
    assert [sampler.take(t * 10**6) for t in (0, 100, 5_000, 5_050, 4_000)] == [
        True,
        False,
        True,
        False,
        False,
    ]
    sampler.reset()
    assert sampler.take(0)


@pytest.mark.parametrize("fps", [0.0, -1.0, math.nan])
def test_a_rate_that_is_none_is_refused(fps: float) -> None:
    with pytest.raises(ValueError, match="greater"):
        FrameSampler(fps)
