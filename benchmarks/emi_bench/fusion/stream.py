"""An endless synthetic stream of one person's windows, a hop apart: most frames of one are in the next."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.stream import FrameRun, StreamWindow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from emi_bench.fusion.subjects import Subject

__all__ = ["HOP_S", "StreamSource"]

HOP_S: Final = 0.2
AUDIO_HZ: Final = 50
PERIOD: Final = 4096  # frames until the content repeats; longer than any window


class StreamSource:
    """The windows of a stream, which begins with full ones: each hop brings 10 voices and a few faces."""

    def __init__(self, subject: Subject) -> None:
        shapes = subject.loaded.network.config.shapes
        self._rates = {"vision": subject.vision_hz, "audio": AUDIO_HZ}
        self._lengths = {"vision": subject.vision_frames, "audio": subject.audio_frames}
        random = np.random.default_rng(0)
        self._content = {
            name: _twice(random.standard_normal((PERIOD, dim), np.float32), self._lengths[name])
            for name, dim in (("vision", shapes.vision_dim), ("audio", shapes.audio_dim))
        }
        self._text = random.standard_normal(shapes.text_dim, np.float32)

    def __iter__(self) -> Iterator[StreamWindow]:
        """From the first hop on, without end."""
        return map(self.window, count())

    def window(self, hop: int) -> StreamWindow:
        """The window at a hop; the words are the same in all."""
        return StreamWindow(
            vision=self._run("vision", hop),
            vision_present=True,
            audio=self._run("audio", hop),
            audio_present=True,
            text=self._text,
            text_present=True,
        )

    def _run(self, name: str, hop: int) -> FrameRun:
        start = int(hop * HOP_S * self._rates[name] + 1e-9)
        place = start % PERIOD
        return FrameRun(start, self._content[name][place : place + self._lengths[name]])


def _twice(frames: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Frames followed by their first `length`, so that any run of that length is one slice."""
    return np.concatenate([frames, frames[:length]])
