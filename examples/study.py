"""A study: show stimuli, mark each, record the session, and look at what came after each marker.

python examples/study.py session.mcap                                   # camera and microphone
python examples/study.py session.mcap source.input=talk.mp4 mode=live   # a file in their place

The recording has features, words, estimates and markers, but no picture and no sound: docs/record.md. A
program that sends LSL markers, such as PsychoPy, needs no Python of yours:
`emi-live --camera 0 --marks lsl: --to lsl: --record session.mcap`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from emi_live import LiveEngine, load_config

STIMULI = ("fixation cross", "picture 1", "picture 2")
SHOWN_S = 0.8


def present(stimulus: str) -> None:
    """Yours: show a picture, play a sound, wait for a key. Here it is a line on the terminal."""
    print(f"now: {stimulus}", flush=True)
    time.sleep(SHOWN_S)


def main(path: Path, settings: list[str]) -> None:
    """Run the session, then replay it."""
    config = load_config(settings=settings or ["source.camera=0"], overrides={"output": {"record": path}})
    with LiveEngine(config) as live:
        for stimulus in STIMULI:
            live.mark(stimulus)  # now; or `live.mark(stimulus, t_ns)` with its time.monotonic_ns()
            present(stimulus)
            live.check()  # raises if a device or the disk has failed
    with LiveEngine(load_config(overrides={"source": {"input": path}})) as replay:
        for estimate in replay.estimates():
            for mark in estimate.marks:
                print(f"{estimate.t_s:5.1f} s  {mark.label:15} joy {estimate['joy']:.3f}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
