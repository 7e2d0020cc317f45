"""Only a microphone: what is said, and how; no camera and no face model.

python examples/microphone.py
python examples/microphone.py "source.mic=USB Audio"           # a name of `emi-live --list-devices`
python examples/microphone.py source.input=talk.wav mode=live  # a file in its place
"""

from __future__ import annotations

import sys

from emi_live import EmiError, LiveEngine, load_config


def main() -> None:
    """Print a line when somebody speaks: time, strongest emotion, words."""
    config = load_config(settings=["face.enabled=false", *(sys.argv[1:] or ["source.mic=default"])])
    with LiveEngine(config) as live:
        print(*live.announcements, sep="\n")
        for estimate in live.estimates():
            voice, text = estimate.modalities["audio"], estimate.modalities["text"]
            if not voice.used and not text.used:
                continue  # nobody speaks: `voice.reason` says why it is missing
            name, value = max(estimate.as_dict().items(), key=lambda item: item[1])
            words = f"{text.committed or ''} {text.partial or ''}".strip()
            print(f"{estimate.t_s:6.1f} s  {name} {value:.2f}  {words}".rstrip(), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print()
    except EmiError as error:  # e.g. no camera: one line with the remedy
        sys.exit(f"error: {error}")
