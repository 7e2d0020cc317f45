from __future__ import annotations

import pytest

from emi_models.encoders.face import Box, FaceFollower

MS = 1_000_000


def face(x: float, width: float) -> Box:
    return Box(x - width / 2, 0.5 - width / 2, x + width / 2, 0.5 + width / 2)


def test_the_largest_face_is_watched() -> None:
    assert FaceFollower().choose([face(0.2, 0.1), face(0.7, 0.3)], 0) == 1


def test_without_a_face_there_is_nothing_to_watch() -> None:
    assert FaceFollower().choose([], 0) is None


def test_two_faces_of_like_size_do_not_take_turns() -> None:
    follower = FaceFollower()
    watched = []
    for n in range(20):
        left = face(0.25, 0.2 + 0.02 * (n % 2))
        right = face(0.75, 0.2 + 0.02 * ((n + 1) % 2))
        pair = [left, right] if n % 3 else [right, left]  # MediaPipe does not keep the order
        choice = follower.choose(pair, n * 40 * MS)
        assert choice is not None
        watched.append(pair[choice].left < 0.5)
    assert len(set(watched)) == 1


def test_a_face_that_comes_much_closer_is_not_watched_instead() -> None:
    follower = FaceFollower()
    assert follower.choose([face(0.25, 0.2)], 0) == 0
    assert follower.choose([face(0.25, 0.2), face(0.75, 0.4)], 40 * MS) == 0
    assert follower.changes == 0


def test_a_face_missed_for_a_frame_is_found_again() -> None:
    follower = FaceFollower()
    follower.choose([face(0.25, 0.2)], 0)
    assert follower.choose([], 40 * MS) is None
    assert follower.choose([face(0.75, 0.22), face(0.35, 0.2)], 80 * MS) == 1
    assert follower.changes == 0


def test_another_face_is_watched_two_seconds_after_the_first_is_gone_and_counted() -> None:
    follower = FaceFollower()
    follower.choose([face(0.2, 0.1), face(0.8, 0.09)], 0)
    seen = [follower.choose([face(0.8, 0.09)], n * 100 * MS) for n in range(1, 30)]
    assert seen == [None] * 20 + [0] * 9
    assert follower.changes == 1


def test_a_program_chooses_the_face_by_place_or_size() -> None:
    follower = FaceFollower()
    pair = [face(0.2, 0.2), face(0.8, 0.1)]
    assert follower.choose(pair, 0) == 0
    follower.follow((0.9, 0.5))
    assert [follower.choose(pair, n * 40 * MS) for n in range(1, 4)] == [1, 1, 1]
    follower.follow("largest")
    assert follower.choose([], 160 * MS) is None  # the wish waits for a face
    assert follower.choose(pair, 200 * MS) == 0
    assert follower.changes == 2


def test_a_reset_forgets_the_face() -> None:
    follower = FaceFollower()
    follower.choose([face(0.25, 0.2)], 0)
    follower.reset()
    assert follower.choose([face(0.25, 0.2), face(0.75, 0.21)], 40 * MS) == 1


def test_overlap_of_boxes() -> None:
    box = Box(0.0, 0.0, 0.2, 0.2)
    assert box.iou(box) == pytest.approx(1.0)
    assert box.iou(Box(0.1, 0.0, 0.3, 0.2)) == pytest.approx(1 / 3)
    assert box.iou(Box(0.5, 0.5, 0.6, 0.6)) == 0.0
    assert Box(0.0, 0.0, 0.0, 0.0).iou(Box(0.0, 0.0, 0.0, 0.0)) == 0.0
