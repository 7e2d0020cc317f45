"""The audio stage: sound in, prosody frames and the time of the newest voice out.

`ChunkReader` reads the ring in chunks of the voice gate's size, the same whatever the sizes of the blocks
were.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.config import AudioConfig
from emi_live.health import Health
from emi_live.messages import NOTHING_YET, AudioPacket, Packet, end_of_stream
from emi_live.rings import GAP_NS, SAMPLE_RATE_HZ, AudioReader
from emi_live.stages.stage import Promise
from emi_models.encoders.prosody import FRAME_SAMPLES, HOP_SAMPLES
from emi_models.encoders.voice_activity import CHUNK_SAMPLES

if TYPE_CHECKING:
    from emi_models.encoders.prosody import ProsodyEncoder
    from emi_models.encoders.voice_activity import VoiceGate

__all__ = ["AudioStage", "Chunk", "ChunkReader"]

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


class AudioStage:
    """Turns sound into prosody at 50 Hz and listens for voice; one packet for each chunk of 512 samples.

    In a gap of a lossless stream, packets without a frame say how far it has been read.
    Sound overwritten before it was read is counted as `audio.lost_samples`, gaps as `audio.gaps`.
    """

    name = "audio"
    topic = "audio"

    def __init__(
        self,
        reader: AudioReader,
        prosody: ProsodyEncoder,
        gate: VoiceGate,
        config: AudioConfig,
        health: Health,
    ) -> None:
        self._chunks = ChunkReader(reader, self.name, health)
        self._prosody = prosody
        self._gate = gate
        self._threshold = config.voice_threshold
        self._heard = 0  # samples since the start or the last gap
        self._frames = 0  # prosody frames since then
        self._last_voice_ns: int | None = None
        self._last_ns = 0
        self._told_ns = NOTHING_YET  # `t_ns` of the newest packet
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for sound."""
        return self._chunks.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packets of the chunks that have been completed."""
        packets = [packet for chunk in self._chunks.read() for packet in self._take(chunk)]
        if self._chunks.ended and not self.ended:
            self.ended = True
            packets.append(end_of_stream(self.topic, self._last_ns))
        elif (progress_ns := self._chunks.promise()) is not None:
            packets.append(self._packet(self._told_ns, progress_ns, np.zeros((0, 0), np.float32), 0))
        return packets

    def reset(self) -> None:
        """Forget what was heard, as at a gap."""
        self._prosody.reset()
        self._gate.reset()
        self._heard = self._frames = 0

    def close(self) -> None:
        """Leave the input."""
        self._chunks.close()

    def _take(self, chunk: Chunk) -> Iterator[Packet]:
        self._last_ns = chunk.end_ns
        self._heard += chunk.samples.size
        if (self._gate.push(chunk.samples) >= self._threshold).any():
            self._last_voice_ns = chunk.end_ns
        frames = self._prosody.push(chunk.samples)
        self._frames += len(frames)
        if len(frames):
            since_frame = self._heard - ((self._frames - 1) * HOP_SAMPLES + FRAME_SAMPLES)
            t_ns = chunk.end_ns - since_frame * NS_PER_S // SAMPLE_RATE_HZ
            self._told_ns = t_ns
            yield self._packet(t_ns, t_ns, frames, chunk.arrived_ns)
        if chunk.gap_after:
            self.reset()

    def _packet(
        self, t_ns: int, progress_ns: int, frames: NDArray[np.float32], arrived_ns: int
    ) -> AudioPacket:
        return AudioPacket(
            t_ns=t_ns,
            progress_ns=progress_ns,
            arrived_ns=arrived_ns,
            frames=frames,
            last_voice_ns=self._last_voice_ns,
        )
