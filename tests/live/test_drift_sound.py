from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emi_live.drift import SoundRecord
from emi_live.rings import AudioBlock

RATE_HZ = 16_000
NS = 1_000_000_000


def block(start: int, size: int, *, gap: bool = False, t_ns: int | None = None) -> AudioBlock:
    samples = np.arange(start, start + size, dtype=np.float32)
    return AudioBlock(samples, start * NS // RATE_HZ if t_ns is None else t_ns, start=start, gap=gap)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=30), st.integers(0, 40_000), st.integers(1, 9000))
def test_it_gives_the_sound_of_any_moment_that_it_holds(sizes: list[int], start: int, count: int) -> None:
    record = SoundRecord(1.0)
    end = 0
    for size in sizes:
        record.add(block(end, size))
        end += size
    found = record.since(start * NS // RATE_HZ, count)
    if found is not None:
        np.testing.assert_array_equal(found, np.arange(start, start + count))
    held = start >= max(0, end - RATE_HZ) and start + count <= end
    assert found is not None or not held


def test_what_was_before_a_gap_is_forgotten() -> None:
    record = SoundRecord(10.0)
    record.add(block(0, 8000))
    record.add(block(8000, 8000, gap=True, t_ns=5 * NS))
    assert record.since(0, 100) is None
    found = record.since(5 * NS + NS // 4, 4000)
    assert found is not None
    assert found[0] == 12_000


def test_more_than_there_is_is_nothing() -> None:
    record = SoundRecord(1.0)
    assert record.since(0, 1) is None
    record.add(block(0, 100))
    assert record.since(0, 101) is None
