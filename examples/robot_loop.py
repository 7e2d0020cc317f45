"""A robot with a loop of its own: push what it sees and hears, use the newest estimate, never wait.

python examples/robot_loop.py
python examples/robot_loop.py talk.mp4                              # its pictures in place of grey ones
python examples/robot_loop.py talk.mp4 speech.backend=none          # and any settings

Put your camera and microphone where `see` and `hear` are.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator

import av
import numpy as np
from numpy.typing import NDArray

from emi_live import LiveEngine, load_config

TICK_S = 0.05
RATE_HZ = 48_000


def see(path: str | None) -> Iterator[NDArray[np.uint8]]:
    """Pictures, (height, width, 3) uint8 RGB, one for each tick."""
    if path is None:
        return itertools.repeat(np.full((360, 640, 3), 128, np.uint8))
    return (frame.to_ndarray(format="rgb24") for frame in av.open(path).decode(video=0))


def hear() -> NDArray[np.int16]:
    """The sound since the last tick, (n,) int16 or float in [-1, 1]; (n, channels) works as well."""
    return np.zeros(int(TICK_S * RATE_HZ), np.int16)


def main(path: str | None, settings: list[str], ticks: int = 40) -> None:
    """Two seconds of a robot's life."""
    pictures = see(path)
    with LiveEngine(load_config("robot", settings)) as live:  # `robot`: ten estimates a second
        for tick, picture in zip(range(ticks), pictures, strict=False):
            live.push_frame(picture)  # captured now; or give its time.monotonic_ns()
            live.push_audio(hear(), rate_hz=RATE_HZ)
            estimate = live.latest(max_age_s=0.5)
            if estimate is None:
                print(f"tick {tick}: no estimate yet")
            elif not estimate.modalities["vision"].used:
                print(f"tick {tick}: {estimate.modalities['vision'].reason}; look around")
            else:
                print(f"tick {tick}: joy {estimate['joy']:.2f}, {estimate.age_s:.2f} s ago")
            time.sleep(TICK_S)  # your robot's work


if __name__ == "__main__":
    clip = [argument for argument in sys.argv[1:] if "=" not in argument]
    main(clip[0] if clip else None, [argument for argument in sys.argv[1:] if "=" in argument])
