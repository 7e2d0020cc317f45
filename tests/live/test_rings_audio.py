"""The audio ring: however it is written and read, samples, times and losses are accounted for."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_live.errors import StalledError
from emi_live.rings import AudioBlock, AudioReader, AudioRing

RATE = 16_000
WAIT_S = 10.0


def ramp(start: int, samples: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Samples that say which they are: sample k of the stream has the value k."""
    return np.arange(start, start + samples, dtype=np.float32)


def time_of(index: int) -> int:
    return index * NS_PER_S // RATE


def drain(reader: AudioReader, at_most: int = 10**9) -> list[AudioBlock]:
    blocks = []
    while (block := reader.read(at_most)) is not None:
        blocks.append(block)
    return blocks


@given(
    writes=st.lists(st.integers(0, 90), max_size=30),
    reads=st.lists(st.integers(1, 70), min_size=1, max_size=8),
    capacity=st.integers(64, 400),
)
def test_any_writes_and_reads_give_every_sample_once_or_count_it_as_lost(
    writes: list[int], reads: list[int], capacity: int
) -> None:
    ring = AudioRing(capacity / RATE)
    reader = ring.reader()
    written, got, lost = 0, [], 0
    for step, samples in enumerate(writes):
        ring.write(ramp(written, samples), time_of(written))
        written += samples
        before = reader.position
        if step % 2 and (block := reader.read(reads[step % len(reads)])) is not None:
            skipped = block.start - before
            lost += skipped
            assert block.gap_before == (skipped > 0)
            got.append(block)
    for block in drain(reader):
        lost += block.start - (got[-1].start + got[-1].samples.size if got else 0)
        got.append(block)
    for block in got:
        np.testing.assert_array_equal(block.samples, ramp(block.start, block.samples.size))
        assert abs(block.t_ns - time_of(block.start)) <= 100
    assert sum(block.samples.size for block in got) + reader.lost == written
    assert reader.lost == lost
    assert reader.backlog == 0


@given(writes=st.lists(st.integers(1, 300), max_size=20), size=st.integers(1, 200))
def test_readers_are_independent(writes: list[int], size: int) -> None:
    ring = AudioRing(1.0)
    eager, lazy = ring.reader(), ring.reader()
    written, got = 0, 0
    for samples in writes:
        ring.write(ramp(written, samples), time_of(written))
        written += samples
        got += sum(block.samples.size for block in drain(eager, size))
    assert got == written == lazy.backlog
    assert sum(block.samples.size for block in drain(lazy)) == written


def test_a_block_larger_than_the_ring_leaves_its_newest_part() -> None:
    ring = AudioRing(100 / RATE)
    reader = ring.reader()
    ring.write(ramp(0, 1_000), 0)
    (block,) = drain(reader)
    np.testing.assert_array_equal(block.samples, ramp(900, 100))
    assert reader.lost == 900
    assert block.gap_before
    assert block.t_ns == time_of(900)


def test_a_reader_starts_at_what_comes_next() -> None:
    ring = AudioRing(1.0)
    ring.write(ramp(0, 100), 0)
    reader = ring.reader()
    assert reader.read(1_000) is None
    ring.write(ramp(100, 50), time_of(100))
    block = reader.read(1_000)
    assert block is not None
    assert block.start == 100
    assert reader.lost == 0


def test_a_gap_in_time_splits_a_read_and_is_marked() -> None:
    ring = AudioRing(1.0)
    reader = ring.reader()
    ring.write(ramp(0, 1_600), 0)
    ring.write(ramp(1_600, 1_600), 400 * NS_PER_MS)
    before, after = drain(reader)
    assert (before.samples.size, before.gap_before, before.end_ns) == (1_600, False, 100 * NS_PER_MS)
    assert (after.samples.size, after.gap_before, after.t_ns) == (1_600, True, 400 * NS_PER_MS)


@pytest.mark.parametrize("jitter_ms", [-4, 4])
def test_jitter_changes_nothing(jitter_ms: int) -> None:
    ring = AudioRing(1.0)
    reader = ring.reader()
    ring.write(ramp(0, 1_600), 0)
    ring.write(ramp(1_600, 1_600), (100 + jitter_ms) * NS_PER_MS)
    (block,) = drain(reader)
    assert block.samples.size == 3_200
    assert block.t_ns == 0


def test_drift_is_followed_without_a_gap() -> None:
    ring = AudioRing(30.0)
    reader = ring.reader()
    drift = 1.001
    for k in range(200):
        ring.write(ramp(k * 512, 512), round(time_of(k * 512) * drift))
    blocks = drain(reader)
    assert 1 < len(blocks) < 5
    assert not any(block.gap_before for block in blocks)
    for block in blocks:
        assert abs(block.t_ns - time_of(block.start) * drift) < 5 * NS_PER_MS


def test_anchors_do_not_pile_up() -> None:
    ring = AudioRing(1.0)
    reader = ring.reader()
    for k in range(500):
        ring.write(ramp(k * 160, 160), k * 200 * NS_PER_MS)
    assert len(ring._anchors) <= 101
    blocks = drain(reader)
    assert len(blocks) == 100
    assert all(block.t_ns == (400 + k) * 200 * NS_PER_MS for k, block in enumerate(blocks))


def test_lossless_waits_for_the_slowest_reader() -> None:
    ring = AudioRing(200 / RATE, lossless=True)
    fast, slow = ring.reader(), ring.reader()

    def write() -> None:
        ring.write(ramp(0, 1_000), 0)
        ring.close()

    writer = threading.Thread(target=write)
    writer.start()
    got: dict[str, int] = {"fast": 0, "slow": 0}
    while not (fast.ended and slow.ended):
        for name, reader, size in (("fast", fast, 1_000), ("slow", slow, 7)):
            if not reader.ended:
                if name == "slow":
                    assert reader.wait(WAIT_S)
                block = reader.read(size)
                if block is not None:
                    np.testing.assert_array_equal(block.samples, ramp(got[name], block.samples.size))
                    got[name] += block.samples.size
    writer.join(WAIT_S)
    assert got == {"fast": 1_000, "slow": 1_000}
    assert fast.lost == slow.lost == 0


def test_lossless_without_anybody_reading_says_what_to_do() -> None:
    ring = AudioRing(200 / RATE, lossless=True)
    ring.reader()
    ring.write(ramp(0, 200), 0)
    with pytest.raises(StalledError, match=r"0\.01 s"):
        ring.write(ramp(200, 1), time_of(200), timeout_s=0.01)


def test_lossless_without_readers_never_waits() -> None:
    ring = AudioRing(200 / RATE, lossless=True)
    ring.write(ramp(0, 5_000), 0)


def test_closing_releases_a_writer_that_waits() -> None:
    ring = AudioRing(200 / RATE, lossless=True)
    ring.reader()
    ring.write(ramp(0, 200), 0)
    writer = threading.Thread(target=ring.write, args=(ramp(200, 100), time_of(200)))
    writer.start()
    ring.close()
    writer.join(WAIT_S)
    assert not writer.is_alive()


def test_a_closed_ring_is_drained_and_takes_nothing_more() -> None:
    ring = AudioRing(1.0)
    reader = ring.reader()
    ring.write(ramp(0, 100), 0)
    ring.close()
    ring.write(ramp(100, 100), time_of(100))
    assert not reader.ended
    (block,) = drain(reader)
    assert block.samples.size == 100
    assert reader.ended
    assert reader.wait(0.0)


def test_a_wait_for_nothing_says_so() -> None:
    assert not AudioRing(1.0).reader().wait(0.0)
    assert not AudioRing(1.0).reader().wait(0.01)


def test_a_block_belongs_to_its_reader() -> None:
    ring = AudioRing(100 / RATE)
    reader = ring.reader()
    ring.write(ramp(0, 100), 0)
    block = reader.read(100)
    assert block is not None
    ring.write(ramp(500, 100), time_of(100))
    np.testing.assert_array_equal(block.samples, ramp(0, 100))
    assert block.samples.dtype == np.float32


def test_no_writer_waits_for_a_loose_reader() -> None:
    ring = AudioRing(1.0, lossless=True)
    loose = ring.reader(loose=True)
    for second in range(3):
        ring.write(np.ones(16_000, np.float32), second * NS_PER_S, timeout_s=0.0)
    block = loose.read(16_000)
    assert block is not None
    assert (block.start, block.gap_before, loose.lost) == (32_000, True, 32_000)
    loose.close()
