"""The camera and the microphone of this computer: bars in the terminal, five times a second.

python examples/laptop.py
python examples/laptop.py source.camera=1 source.mic=none           # any settings
python examples/laptop.py source.input=talk.mp4 mode=live           # a file at its own pace
"""

from __future__ import annotations

import sys

from emi_live import EmiError, Estimate, LiveEngine, load_config

HOME = "\x1b[H\x1b[J" if sys.stdout.isatty() else ""  # draw over what was there


def bars(estimate: Estimate) -> str:
    """A bar for each emotion, a line for each modality."""
    lines = [f"{name:14} {value:.2f} {'█' * round(40 * value)}" for name, value in estimate.as_dict().items()]
    for name, report in estimate.modalities.items():
        lines.append(f"{name:14} {report.state} {report.reason or ''} {report.committed or ''}".rstrip())
    return "\n".join(lines)


def main() -> None:
    """Show estimates until Ctrl-C, or until the file ends."""
    config = load_config(settings=sys.argv[1:] or ["source.camera=0"])
    with LiveEngine(config) as live:
        print(*live.announcements, sep="\n")
        for estimate in live.estimates():
            print(HOME + bars(estimate), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print()
    except EmiError as error:  # e.g. no camera: one line with the remedy
        sys.exit(f"error: {error}")
