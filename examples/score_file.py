"""Score a media file in exact mode: every frame is used, and every run gives the same numbers.

python examples/score_file.py talk.mp4
python examples/score_file.py talk.mp4 speech.backend=none window.hop_s=0.5    # any settings
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from emi_live import EMOTIONS, LiveEngine, load_config


def main() -> None:
    """Print mean and maximum of each emotion over the file."""
    path, *settings = sys.argv[1:]
    config = load_config(settings=settings, overrides={"source": {"input": Path(path)}})
    # `mode` is exact for files, if not set otherwise.
    rows, with_face = [], 0
    with LiveEngine(config) as live:
        for estimate in live.estimates():
            rows.append(estimate.intensities)
            with_face += estimate.modalities["vision"].used
    values = np.array(rows)  # (estimates, 6), in the order of EMOTIONS
    print(f"{len(values)} estimates, {with_face} with a face")
    for name, mean, most in zip(EMOTIONS, values.mean(axis=0), values.max(axis=0), strict=True):
        print(f"{name:15} mean {mean:.4f}  max {most:.4f}")


if __name__ == "__main__":
    main()
