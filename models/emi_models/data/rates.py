"""When frames that carry no times were: evenly spaced, from a first one on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WAV2VEC2", "FrameRate"]

NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class FrameRate:
    """Frame k is known at `first_ns + k * hop_ns`, and lasts `first_ns`, or a hop if that is 0."""

    hop_ns: float
    first_ns: int = 0

    @classmethod
    def of(cls, hz: float) -> FrameRate:
        """Pictures: frame k at k / hz."""
        return cls(NS_PER_S / hz)

    def stamps(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """When the frames of these numbers are known, ns."""
        return self.first_ns + np.round(index * self.hop_ns).astype(np.int64)

    def length_ns(self, frames: int) -> int:
        """How long so many frames last, from the start to the end of the last; 0 for none."""
        return 0 if frames == 0 else round((frames - 1) * self.hop_ns + (self.first_ns or self.hop_ns))

    def count(self, until_ns: int) -> int:
        """How many frames are known at `until_ns`, that moment included."""
        return max(0, 1 + int((until_ns - self.first_ns + 0.5) // self.hop_ns))


# The convolutions of wav2vec 2.0 on 16 kHz sound: 400 samples a frame, one every 320.
WAV2VEC2: Final = FrameRate(hop_ns=20_000_000, first_ns=25_000_000)
