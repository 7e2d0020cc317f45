"""Sound from a ring in chunks of the voice gate's size, the same however the sound was cut into blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.health import Health
from emi_live.rings import AudioReader
from emi_live.rings.audio import GAP_NS, SAMPLE_RATE_HZ
from emi_live.stages.stage import Promise
from emi_models.encoders.voice import CHUNK_SAMPLES

__all__ = ["Chunk", "ChunkReader"]

HOLE_NS: Final = (
    2 * GAP_NS
)  # sound that is known to stay out so long ends the run of chunks, before the next comes
STEP_SAMPLES: Final = 8 * CHUNK_SAMPLES  # a quarter of a second: a backlog must not delay a stop


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive samples, shape (512,), or fewer, even none, before a gap and at the end of the stream."""

    samples: NDArray[np.float32]
    start_ns: int  # capture time of the first sample
    end_ns: int  # capture time at which the last sample ends; never goes back, even if the stamps do
    arrived_ns: int  # when that sample reached the engine
    gap_after: bool  # what comes next does not continue this

    @property
    def whole(self) -> bool:
        """Whether the gate can judge it."""
        return self.samples.size == CHUNK_SAMPLES


class ChunkReader:
    """Reads one ring for one stage. Chunks are counted from the start of the sound or from its last gap.

    Where it is known that nothing comes for a while (lossless rings alone know), the chunk before the gap is
    given at once and not with the sound after it; it is the same chunk.
    """

    def __init__(self, reader: AudioReader, part: str, health: Health) -> None:
        """Read for the stage `part`, in whose name overwritten samples and gaps are counted."""
        self._reader = reader
        self._promise = Promise(reader)
        self._part = part
        self._health = health
        self._lost = 0
        self._pending = np.empty(CHUNK_SAMPLES, np.float32)
        self._filled = 0
        self._start_ns = 0
        self._end_ns = 0
        self._arrived_ns = 0
        self._heard = False
        self._in_hole = False  # the chunk before the gap has been given
        self.ended = False  # the last chunk has been given

    @property
    def backlog(self) -> int:
        """Samples that wait in the ring."""
        return self._reader.backlog

    @property
    def hole_until_ns(self) -> int | None:
        """No sound comes before then; None if there is no gap, or nothing is known of it."""
        if self._heard and not self._in_hole:
            return None
        return self._reader.progress_ns

    def wait(self, timeout_s: float) -> bool:
        """Wait for sound, for progress, or for its end."""
        return self._promise.wait(timeout_s)

    def promise(self) -> int | None:
        """In a gap: the `progress_ns` to publish, if it is time for it. All chunks must have been told of."""
        return None if self._heard and not self._in_hole else self._promise.due()

    def close(self) -> None:
        """Leave the ring."""
        self._reader.close()

    def read(self) -> list[Chunk]:
        """The chunks that the next quarter of a second completes; never waits."""
        block = self._reader.read(STEP_SAMPLES)
        self._health.count(f"{self._part}.lost_samples", self._reader.lost - self._lost)
        self._lost = self._reader.lost
        if block is None:
            if self.ended:
                return []
            if not self._reader.ended:
                return self._begin_hole()
            self.ended = True
            return self._begin_hole() or ([self._take(gap_after=False)] if self._filled else [])
        chunks = []
        if block.gap_before:
            self._health.count(f"{self._part}.gaps")
            if not self._in_hole:
                chunks.append(self._take(gap_after=True))
        self._heard, self._in_hole = True, False
        offset = 0
        while offset < block.samples.size:
            piece = block.samples[offset : offset + CHUNK_SAMPLES - self._filled]
            if not self._filled:
                self._start_ns = block.t_ns + offset * NS_PER_S // SAMPLE_RATE_HZ
            self._pending[self._filled : self._filled + piece.size] = piece
            self._filled += piece.size
            offset += piece.size
            self._end_ns = max(self._end_ns, block.t_ns + offset * NS_PER_S // SAMPLE_RATE_HZ)
            self._arrived_ns = self._reader.arrived_ns(block.start + offset - 1)
            if self._filled == CHUNK_SAMPLES:
                chunks.append(self._take(gap_after=False))
        return chunks

    def _begin_hole(self) -> list[Chunk]:
        """The chunk before a gap, once it is known that there is one."""
        until_ns = self._reader.progress_ns
        if not self._heard or self._in_hole or until_ns is None or until_ns - self._end_ns < HOLE_NS:
            return []
        self._in_hole = True
        return [self._take(gap_after=True)]

    def _take(self, *, gap_after: bool) -> Chunk:
        samples = self._pending[: self._filled].copy()
        start_ns = self._start_ns if self._filled else self._end_ns
        self._filled = 0
        return Chunk(samples, start_ns, self._end_ns, self._arrived_ns, gap_after)
