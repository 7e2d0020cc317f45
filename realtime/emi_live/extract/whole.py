"""The sound of a clip in one piece, as the papers hear it, and a reader that ends where a clip does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.messages import AudioPacket, Packet, end_of_stream
from emi_live.rings import AudioBlock, AudioReader, AudioRing
from emi_live.rings.audio import SAMPLE_RATE_HZ
from emi_models.encoders.wav2vec import frame_ends_ns

__all__ = ["EarlyEnd", "WholeSoundStage"]

READ_SAMPLES: Final = 16_000
PACKET_FRAMES: Final = 500  # of at most 1500 that the bus takes


class SoundEncoder(Protocol):
    """What is needed of a speech model."""

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (frames, D) of samples (n,), 50 frames a second."""


class EarlyEnd(AudioReader):
    """A reader of a ring whose sound is over at `until_ns`, to the sample, even if the ring's goes on."""

    def __init__(self, ring: AudioRing, until_ns: int) -> None:
        """Join the ring."""
        super().__init__(ring)
        self._until_ns = until_ns
        self._over = False

    @property
    def ended(self) -> bool:
        """Whether all that there is to hear has been read."""
        return self._over or super().ended

    @property
    def progress_ns(self) -> int | None:
        """As `Reader.progress_ns`, but just behind the end at most, however far a gap reaches."""
        known = self._until_ns + 1 if self._over else super().progress_ns
        return None if known is None else min(known, self._until_ns + 1)

    def read(self, max_samples: int) -> AudioBlock | None:
        """As `AudioReader.read`; None once it is over."""
        block = None if self._over else super().read(max_samples)
        if block is None or block.end_ns <= self._until_ns:
            return block
        self._over = True
        left = max(0, _samples(self._until_ns - block.t_ns))
        return replace(block, samples=block.samples[:left]) if left else None

    def wait(self, timeout_s: float) -> bool:
        """As `AudioReader.wait`; does not wait for what will not be read."""
        return self._over or super().wait(timeout_s)


class WholeSoundStage:
    """Gathers the sound of a clip and encodes it at its end: every frame has heard what comes after it.

    Gaps in the sound are filled with silence.
    """

    name = "audio"
    topic = "audio"

    def __init__(self, reader: AudioReader, encoder: SoundEncoder) -> None:
        self._reader = reader
        self._encoder = encoder
        self._parts: list[NDArray[np.float32]] = []
        self._first_ns = 0
        self._heard = 0  # samples in `_parts`
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for sound."""
        return self._reader.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        """Nothing, until the sound is over; then all packets."""
        if self.ended:
            return ()
        block = self._reader.read(READ_SAMPLES)
        if block is not None:
            self._take(block)
            return ()
        if not self._reader.ended:
            return ()
        end_ns = self._first_ns + self._heard * NS_PER_S // SAMPLE_RATE_HZ
        packets = [*self._encode(), end_of_stream(self.topic, end_ns)]
        self.ended = True  # not before: what fails is tried again
        return packets

    def reset(self) -> None:
        """Forget what was heard."""
        self._parts, self._heard = [], 0

    def close(self) -> None:
        """Leave the input."""
        self._reader.close()

    def _take(self, block: AudioBlock) -> None:
        if not self._parts:
            self._first_ns = block.t_ns
        if block.gap_before and (missing := _samples(block.t_ns - self._first_ns) - self._heard) > 0:
            self._parts.append(np.zeros(missing, np.float32))
            self._heard += missing
        self._parts.append(block.samples)
        self._heard += block.samples.size

    def _encode(self) -> Iterator[Packet]:
        if not self._parts:
            return
        frames = self._encoder.encode(np.concatenate(self._parts))
        stamps = (self._first_ns + frame_ends_ns(len(frames))).tolist()
        for start in range(0, len(frames), PACKET_FRAMES):
            part = frames[start : start + PACKET_FRAMES]
            t_ns = stamps[start + len(part) - 1]
            yield AudioPacket(t_ns=t_ns, progress_ns=t_ns, frames=part, last_voice_ns=None)


def _samples(ns: int) -> int:
    """How many whole samples that is."""
    return ns * SAMPLE_RATE_HZ // NS_PER_S
