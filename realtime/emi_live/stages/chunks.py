"""Sound from a ring in chunks of the voice gate's size, the same however the sound was cut into blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.health import Health
from emi_live.rings import AudioReader
from emi_live.rings.audio import SAMPLE_RATE_HZ
from emi_models.encoders.voice import CHUNK_SAMPLES

__all__ = ["Chunk", "ChunkReader"]

STEP_SAMPLES: Final = 8 * CHUNK_SAMPLES  # a quarter of a second: a backlog must not delay a stop


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive samples, shape (512,), or fewer, even none, before a gap and at the end of the stream."""

    samples: NDArray[np.float32]
    end_ns: int  # capture time at which the last sample ends; never goes back, even if the stamps do
    arrived_ns: int  # when that sample reached the engine
    gap_after: bool  # what comes next does not continue this

    @property
    def whole(self) -> bool:
        """Whether the gate can judge it."""
        return self.samples.size == CHUNK_SAMPLES


class ChunkReader:
    """Reads one ring for one stage. Chunks are counted from the start of the sound or from its last gap."""

    def __init__(self, reader: AudioReader, part: str, health: Health) -> None:
        """Read for the stage `part`, in whose name overwritten samples and gaps are counted."""
        self._reader = reader
        self._part = part
        self._health = health
        self._lost = 0
        self._pending = np.empty(CHUNK_SAMPLES, np.float32)
        self._filled = 0
        self._end_ns = 0
        self._arrived_ns = 0
        self.ended = False  # the last chunk has been given

    @property
    def backlog(self) -> int:
        """Samples that wait in the ring."""
        return self._reader.backlog

    def wait(self, timeout_s: float) -> bool:
        """Wait for sound, or for its end."""
        return self._reader.wait(timeout_s)

    def close(self) -> None:
        """Leave the ring."""
        self._reader.close()

    def read(self) -> list[Chunk]:
        """The chunks that the next quarter of a second completes; never waits."""
        block = self._reader.read(STEP_SAMPLES)
        self._health.count(f"{self._part}.lost_samples", self._reader.lost - self._lost)
        self._lost = self._reader.lost
        if block is None:
            if not self._reader.ended or self.ended:
                return []
            self.ended = True
            return [self._take(gap_after=False)] if self._filled else []
        chunks = []
        if block.gap_before:
            self._health.count(f"{self._part}.gaps")
            chunks.append(self._take(gap_after=True))
        offset = 0
        while offset < block.samples.size:
            piece = block.samples[offset : offset + CHUNK_SAMPLES - self._filled]
            self._pending[self._filled : self._filled + piece.size] = piece
            self._filled += piece.size
            offset += piece.size
            self._end_ns = max(self._end_ns, block.t_ns + offset * NS_PER_S // SAMPLE_RATE_HZ)
            self._arrived_ns = self._reader.arrived_ns(block.start + offset - 1)
            if self._filled == CHUNK_SAMPLES:
                chunks.append(self._take(gap_after=False))
        return chunks

    def _take(self, *, gap_after: bool) -> Chunk:
        samples = self._pending[: self._filled].copy()
        self._filled = 0
        return Chunk(samples, self._end_ns, self._arrived_ns, gap_after)
