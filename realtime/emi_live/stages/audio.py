"""The audio stage: sound in, prosody frames and the time of the newest voice out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from emi_live.clock import NS_PER_S
from emi_live.config import AudioConfig
from emi_live.health import Health
from emi_live.messages import NOTHING_YET, AudioPacket, Packet, end_of_stream
from emi_live.rings import AudioReader
from emi_live.rings.audio import SAMPLE_RATE_HZ
from emi_live.stages.chunks import Chunk, ChunkReader
from emi_models.encoders.prosody import FRAME_SAMPLES, HOP_SAMPLES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_models.encoders.prosody import ProsodyEncoder
    from emi_models.encoders.voice import VoiceGate

__all__ = ["AudioStage"]


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
