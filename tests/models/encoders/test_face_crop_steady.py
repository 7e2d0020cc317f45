from __future__ import annotations

import math
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_models.encoders.face import FaceEncoder, FaceSquare, SteadySquare, face_square
from tests.models.encoders.media import read_frames

SIDE = 200.0


def steadied(squares: list[FaceSquare], fps: float = 30.0) -> list[FaceSquare]:
    steady = SteadySquare()
    return [steady.push(square, round(k * 1e9 / fps)) for k, square in enumerate(squares)]


def noisy(count: int, noise: float = 0.004) -> list[FaceSquare]:
    """A face that keeps still, each part of its square off by some thousandths of a side or a radian."""
    off = np.random.default_rng(0).normal(0, noise, (count, 4))
    return [
        FaceSquare(300 + SIDE * x, 200 + SIDE * y, SIDE * math.exp(size), angle) for x, y, size, angle in off
    ]


def jitter(squares: list[FaceSquare]) -> NDArray[np.float64]:
    """Root mean square of the steps from one square to the next, by part."""
    steps = np.diff(np.array([astuple(square) for square in squares]), axis=0)
    root: NDArray[np.float64] = np.sqrt((steps**2).mean(axis=0))
    return root


def test_a_still_face_trembles_less() -> None:
    squares = noisy(300)
    assert (jitter(steadied(squares)) < 0.3 * jitter(squares)).all()


@pytest.mark.parametrize("sides_a_second", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("fps", [15.0, 30.0])
def test_a_face_that_moves_is_followed_with_little_lag(sides_a_second: float, fps: float) -> None:
    moved = [FaceSquare(SIDE * sides_a_second * k / fps, 0.0, SIDE, 0.0) for k in range(90)]
    for square, steady in list(zip(moved, steadied(moved, fps), strict=True))[30:]:
        assert 0 <= square.x - steady.x < 0.025 * SIDE


def test_a_face_that_stops_is_not_overshot_and_soon_reached() -> None:
    moved = [FaceSquare(min(k, 30) * 0.05 * SIDE, 0.0, SIDE, 0.0) for k in range(60)]
    steady = steadied(moved)
    assert max(square.x for square in steady) <= moved[-1].x
    assert moved[-1].x - steady[35].x < 0.01 * SIDE


def test_growing_and_turning_are_followed_too() -> None:
    moved = [FaceSquare(300.0, 200.0, SIDE * 1.01**k, 0.02 * k) for k in range(60)]
    for square, steady in list(zip(moved, steadied(moved), strict=True))[20:]:
        assert steady.side == pytest.approx(square.side, rel=0.03)
        assert steady.angle == pytest.approx(square.angle, abs=0.03)


def test_a_face_upside_down_turns_the_shorter_way() -> None:
    angles = [math.remainder(3.1 + 0.01 * k, math.tau) for k in range(20)]
    assert min(angles) < 0
    turned = steadied([FaceSquare(0.0, 0.0, SIDE, angle) for angle in angles])
    for (_, before), (wanted, after) in pairwise(zip(angles, turned, strict=True)):
        assert abs(after.angle - before.angle) < 0.02
        assert abs(math.remainder(after.angle - wanted, math.tau)) < 0.05


def test_another_face_and_one_found_again_are_taken_as_they_are() -> None:
    steady = SteadySquare()
    for k, square in enumerate(noisy(10)):
        steady.push(square, k * 33_000_000)
    other = FaceSquare(300 + 2 * SIDE, 200.0, SIDE, 0.1)
    assert steady.push(other, 400_000_000) == other
    near = FaceSquare(300 + 2.1 * SIDE, 200.0, SIDE, 0.1)
    assert steady.push(near, 433_000_000) != near
    steady.reset()
    assert steady.push(near, 466_000_000) == near


@given(
    factor=st.floats(0.1, 10.0),
    shift=st.tuples(st.floats(-1000, 1000), st.floats(-1000, 1000)),
    start=st.integers(0, 10**18),
)
def test_size_place_and_clock_of_the_picture_make_no_difference(
    factor: float, shift: tuple[float, float], start: int
) -> None:
    squares = noisy(20, 0.05)
    moved = [
        FaceSquare(s.x * factor + shift[0], s.y * factor + shift[1], s.side * factor, s.angle)
        for s in squares
    ]
    steady = SteadySquare()
    for k, (plain, square) in enumerate(zip(steadied(squares), moved, strict=True)):
        found = steady.push(square, start + round(k * 1e9 / 30))
        assert (found.x - shift[0]) / factor == pytest.approx(plain.x, abs=1e-6 * SIDE / factor)
        assert found.side / factor == pytest.approx(plain.side)
        assert found.angle == pytest.approx(plain.angle)


def test_a_real_face_that_smiles_trembles_less_and_is_not_left_behind(assets: Path) -> None:
    """Trembling is what is left of a path without its speed: the second differences, in sides."""
    encoder = FaceEncoder(assets / "mediapipe" / "face_landmarker.task")
    squares = []
    for rgb, t_ns in read_frames(assets / "face" / "pyfeat_single_face.mp4"):
        found = encoder.analyse(rgb, t_ns)
        assert found.landmarks is not None
        squares.append(face_square(found.landmarks, rgb.shape[1], rgb.shape[0]))
    encoder.close()
    steady = steadied(squares)

    def trembling(path: list[FaceSquare]) -> NDArray[np.float64]:
        rows = np.array([(s.x / s.side, s.y / s.side, math.log(s.side), s.angle) for s in path])
        root: NDArray[np.float64] = np.sqrt((np.diff(rows, 2, axis=0) ** 2).mean(axis=0))
        return root

    assert (trembling(steady) < 0.5 * trembling(squares)).all()
    behind = [math.hypot(a.x - b.x, a.y - b.y) / a.side for a, b in zip(squares, steady, strict=True)]
    assert max(behind) < 0.02
