"""The last seconds of sound, by capture time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from emi_live.clock import NS_PER_S
from emi_live.rings.audio import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_live.rings import AudioBlock

__all__ = ["SoundRecord"]


class SoundRecord:
    """Blocks of one ring, as many as `seconds` need; what was before a gap is forgotten."""

    def __init__(self, seconds: float) -> None:
        self._limit = round(seconds * SAMPLE_RATE_HZ)
        self._blocks: deque[AudioBlock] = deque()
        self._size = 0

    def add(self, block: AudioBlock) -> None:
        """Take the next block of the ring."""
        if block.gap_before:
            self._blocks.clear()
            self._size = 0
        self._blocks.append(block)
        self._size += block.samples.size
        while self._size - self._blocks[0].samples.size >= self._limit:
            self._size -= self._blocks.popleft().samples.size

    def since(self, t_ns: int, count: int) -> NDArray[np.float32] | None:
        """`count` samples from the one captured at `t_ns` on; None if they are not all here."""
        if not self._blocks or count < 1:
            return None
        inside = [block for block in self._blocks if block.t_ns <= t_ns + NS_PER_S // SAMPLE_RATE_HZ // 2]
        if not inside:
            return None
        first = inside[-1]
        offset = first.start - self._blocks[0].start
        offset += round((t_ns - first.t_ns) * SAMPLE_RATE_HZ / NS_PER_S)
        if offset + count > self._size:
            return None
        samples = np.concatenate([block.samples for block in self._blocks])
        return samples[offset : offset + count]
