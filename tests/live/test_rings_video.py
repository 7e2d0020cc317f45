"""The video ring: newest wins and the rest is counted, or every frame in order and the writer waits."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_live.errors import StalledError
from emi_live.rings import VideoRing

WAIT_S = 10.0


def frame(index: int, shape: tuple[int, int] = (4, 6)) -> NDArray[np.uint8]:
    return np.full((*shape, 3), index % 251, np.uint8)


@given(reads_after=st.lists(st.integers(0, 3), max_size=40), capacity=st.integers(2, 9))
def test_the_newest_wins_and_every_frame_is_read_or_counted(reads_after: list[int], capacity: int) -> None:
    ring = VideoRing(capacity)
    reader = ring.reader()
    seen: list[int] = []
    for index, reads in enumerate(reads_after):
        ring.write(frame(index), index * 1_000)
        for _ in range(reads):
            got = reader.read()
            if got is not None:
                assert got.index == index
                assert got.t_ns == index * 1_000
                np.testing.assert_array_equal(got.rgb, frame(index))
                seen.append(got.index)
    unread = len(reads_after) - reader.position
    assert len(seen) + reader.overwritten + unread == len(reads_after)
    assert seen == sorted(set(seen))


@given(frames=st.integers(0, 40), capacity=st.integers(2, 6))
def test_lossless_gives_every_frame_in_order(frames: int, capacity: int) -> None:
    ring = VideoRing(capacity, lossless=True)
    readers = [ring.reader(), ring.reader()]

    def write() -> None:
        for index in range(frames):
            ring.write(frame(index), index)
        ring.close()

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[list[int]] = [[], []]
    while not all(reader.ended for reader in readers):
        for reader, indices in zip(readers, seen, strict=True):
            assert reader.wait(WAIT_S)
            got = reader.read()
            if got is not None:
                np.testing.assert_array_equal(got.rgb, frame(got.index))
                indices.append(got.index)
    writer.join(WAIT_S)
    assert seen == [list(range(frames))] * 2
    assert all(reader.overwritten == 0 for reader in readers)


def test_a_frame_may_change_its_size() -> None:
    ring = VideoRing(2, lossless=True)
    reader = ring.reader()
    for index, shape in enumerate([(4, 6), (8, 2), (4, 6), (1, 1)]):
        ring.write(frame(index, shape), index)
        got = reader.read()
        assert got is not None
        assert got.rgb.shape == (*shape, 3)


def test_a_frame_stays_as_it_was_written() -> None:
    ring = VideoRing(2)
    reader = ring.reader()
    mine = frame(7)
    ring.write(mine, 0)
    mine[:] = 0
    got = reader.read()
    assert got is not None
    for index in range(4):
        ring.write(frame(index), index + 1)
    np.testing.assert_array_equal(got.rgb, frame(7))


def test_a_frame_that_was_given_up_is_not_copied_and_cannot_be_changed() -> None:
    ring = VideoRing(2)
    readers = [ring.reader(), ring.reader()]
    mine = frame(7)
    ring.write(mine, 0, given_up=True)
    for reader in readers:
        got = reader.read()
        assert got is not None
        assert np.shares_memory(got.rgb, mine)
        with pytest.raises(ValueError, match="read-only"):
            got.rgb[0] = 0


@pytest.mark.parametrize("given_up", [False, True])
def test_a_frame_that_is_not_contiguous_is_copied_right(given_up: bool) -> None:
    ring = VideoRing(2)
    reader = ring.reader()
    turned = np.rot90(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))
    ring.write(turned, 0, given_up=given_up)
    got = reader.read()
    assert got is not None
    assert got.rgb.flags.c_contiguous
    np.testing.assert_array_equal(got.rgb, turned)


def test_lossless_without_anybody_reading_says_what_to_do() -> None:
    ring = VideoRing(2, lossless=True)
    ring.reader()
    ring.write(frame(0), 0)
    ring.write(frame(1), 1)
    with pytest.raises(StalledError, match=r"0\.01 s"):
        ring.write(frame(2), 2, timeout_s=0.01)


def test_closing_releases_a_writer_that_waits() -> None:
    ring = VideoRing(2, lossless=True)
    ring.reader()
    ring.write(frame(0), 0)
    ring.write(frame(1), 1)
    writer = threading.Thread(target=ring.write, args=(frame(2), 2))
    writer.start()
    ring.close()
    writer.join(WAIT_S)
    assert not writer.is_alive()


def test_a_closed_ring_is_drained_and_takes_nothing_more() -> None:
    ring = VideoRing(2, lossless=True)
    reader = ring.reader()
    ring.write(frame(0), 0)
    ring.close()
    ring.write(frame(1), 1)
    assert not reader.ended
    assert reader.read() is not None
    assert reader.read() is None
    assert reader.ended
    assert reader.wait(0.0)


def test_a_reader_starts_at_what_comes_next() -> None:
    ring = VideoRing(4)
    ring.write(frame(0), 0)
    reader = ring.reader()
    assert reader.read() is None
    assert not reader.wait(0.0)
    ring.write(frame(1), 1)
    got = reader.read()
    assert got is not None
    assert got.index == 1
    assert reader.overwritten == 0
