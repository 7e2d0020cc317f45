"""Embed the engine: push pictures and sound, print estimates.

    python examples/embed.py
    python examples/embed.py window.hop_s=0.1 speech.backend=none    # any settings

Put your own camera and microphone where the two arrays are made.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from emi_live import LiveEngine, load_config

HOP_S = 0.2
RATE_HZ = 48_000


def main() -> None:
    """Push two seconds of a grey picture and a quiet tone."""
    config = load_config(settings=sys.argv[1:])
    seconds = np.arange(int(HOP_S * RATE_HZ)) / RATE_HZ
    picture = np.full((360, 640, 3), 128, np.uint8)  # RGB
    sound = (0.05 * np.sin(2 * np.pi * 200 * seconds)).astype(np.float32)  # mono, in [-1, 1]
    with LiveEngine(config) as live:
        for _ in range(10):
            captured_ns = time.monotonic_ns()
            live.push_frame(picture, captured_ns)
            live.push_audio(sound, rate_hz=RATE_HZ)  # without t_ns: it continues the block before
            estimate = next(live.estimates())  # waits for the next hop
            vision = estimate.modalities["vision"]
            print(f"{estimate.t_s:.1f} s: joy {estimate['joy']:.2f}, vision {vision.state} ({vision.reason})")


if __name__ == "__main__":
    main()
