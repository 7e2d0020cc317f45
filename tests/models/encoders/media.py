"""Test media as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000


def read_sound(path: Path) -> NDArray[np.float32]:
    """The sound of a file, 16 kHz mono."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("fltp", "mono", RATE_HZ)
        parts = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        parts += resampler.resample(None)
    return np.concatenate([part.to_ndarray()[0] for part in parts]).astype(np.float32)


def read_frames(path: Path, count: int | None = None) -> list[tuple[NDArray[np.uint8], int]]:
    """The first pictures of a file, RGB, each with its time in nanoseconds."""
    frames: list[tuple[NDArray[np.uint8], int]] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frames.append((frame.to_ndarray(format="rgb24"), round(frame.time * 1e9)))
            if len(frames) == count:
                break
    return frames


def cut(samples: NDArray[np.float32], sizes: Sequence[int]) -> list[NDArray[np.float32]]:
    """The samples in blocks of the given sizes, over and over."""
    blocks, offset, turn = [], 0, 0
    while offset < samples.size:
        blocks.append(samples[offset : offset + sizes[turn % len(sizes)]])
        offset += sizes[turn % len(sizes)]
        turn += 1
    return blocks
