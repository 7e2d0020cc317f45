"""The audio stage: sound in, prosody frames and the time of the newest voice out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.config import AudioConfig
from emi_live.health import Health
from emi_live.messages import AudioPacket, Packet, end_of_stream
from emi_live.rings import AudioBlock, AudioReader
from emi_live.rings.audio import SAMPLE_RATE_HZ
from emi_models.encoders.prosody import FRAME_SAMPLES, HOP_SAMPLES
from emi_models.encoders.voice import CHUNK_SAMPLES

if TYPE_CHECKING:
    from emi_models.encoders.prosody import ProsodyEncoder
    from emi_models.encoders.voice import VoiceGate

__all__ = ["AudioStage"]

STEP_SAMPLES: Final = SAMPLE_RATE_HZ // 2  # read at once, so that a long backlog does not delay a stop


class AudioStage:
    """Turns sound into prosody at 50 Hz and listens for voice.

    It works on chunks of 512 samples, counted from the start or the last gap, and publishes one packet for
    each: so packets are the same however the sound was cut into blocks. Sound overwritten before it was
    read is counted as `audio.lost_samples`.
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
        self._reader = reader
        self._prosody = prosody
        self._gate = gate
        self._threshold = config.voice_threshold
        self._health = health
        self._lost = 0
        self._chunk: list[NDArray[np.float32]] = []  # pieces of the chunk under way
        self._chunk_size = 0
        self._heard = 0  # samples since the start or the last gap
        self._frames = 0  # prosody frames since then
        self._last_voice_ns: int | None = None
        self._last_ns = 0
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for sound."""
        return self._reader.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packets of the chunks that have been completed."""
        block = self._reader.read(STEP_SAMPLES)
        self._health.count("audio.lost_samples", self._reader.lost - self._lost)
        self._lost = self._reader.lost
        if block is not None:
            return list(self._take(block))
        if not self._reader.ended or self.ended:
            return ()
        self.ended = True
        packets: list[Packet] = []
        if self._chunk_size:
            packets += self._finish_chunk(self._last_ns)
        return [*packets, end_of_stream(self.topic, self._last_ns)]

    def reset(self) -> None:
        """Forget what was heard, as at a gap."""
        self._prosody.reset()
        self._gate.reset()
        self._chunk, self._chunk_size = [], 0
        self._heard = self._frames = 0

    def _take(self, block: AudioBlock) -> Iterator[Packet]:
        if block.gap_before:
            self._health.count("audio.gaps")
            self.reset()
        offset = 0
        while offset < block.samples.size:
            piece = block.samples[offset : offset + CHUNK_SAMPLES - self._chunk_size]
            offset += piece.size
            self._chunk.append(piece)
            self._chunk_size += piece.size
            # Never back, even if the stamps go: progress is a promise.
            self._last_ns = max(self._last_ns, block.t_ns + offset * NS_PER_S // SAMPLE_RATE_HZ)
            if self._chunk_size == CHUNK_SAMPLES:
                yield from self._finish_chunk(self._last_ns)

    def _finish_chunk(self, end_ns: int) -> Iterator[Packet]:
        chunk = np.concatenate(self._chunk)
        self._chunk, self._chunk_size = [], 0
        self._heard += chunk.size
        if (self._gate.push(chunk) >= self._threshold).any():
            self._last_voice_ns = end_ns
        frames = self._prosody.push(chunk)
        self._frames += len(frames)
        if len(frames) == 0:
            return
        since_frame = self._heard - ((self._frames - 1) * HOP_SAMPLES + FRAME_SAMPLES)
        t_ns = end_ns - since_frame * NS_PER_S // SAMPLE_RATE_HZ
        yield AudioPacket(t_ns=t_ns, progress_ns=t_ns, frames=frames, last_voice_ns=self._last_voice_ns)
