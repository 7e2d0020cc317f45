"""Our speech stage in a process like that of a peer: `own_worker MODEL NAME=VALUE …`.

It takes and writes the same lines as `peer_worker.py`. The stage runs at real pace by the real clock, with
the recogniser in a process of its own, as in live use.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emi_bench.speech.peer_worker import Changes
from emi_bench.speech.playback import (
    Playback,
    RealClock,
    WatchedRecognizer,
    load_recognizers,
    play_through,
    prepare,
)
from emi_bench.speech.scoring import displays
from emi_live.config import load_config
from emi_live.health import Health
from emi_live.stages.speech import SpeechStage
from emi_models.encoders.voice_activity import VoiceGate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emi_live.config import LiveConfig
    from emi_models.speech.recognizer import Recognizer

__all__ = ["main"]

SETTINGS = ("backend", "language", "compute_type", "threads", "partial_every_s", "commit")
PACKAGES = ("emi-live", "ctranslate2", "onnxruntime")


def main(arguments: Sequence[str]) -> None:
    """Load, then play each file that is asked for."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(line: dict[str, Any]) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    speech = {"backend": "whisper", "model": arguments[0]}
    config = load_config(settings=arguments[1:], overrides={"mode": "live", "speech": speech})
    with ExitStack() as stack:
        encoders = load_recognizers(config)
        stack.callback(encoders.close)
        recognizer = encoders.recognizer
        assert recognizer is not None  # noqa: S101  # load_recognizers has raised otherwise
        found = config.speech.model_dump(mode="json")
        settings = {name: str(found[name]) for name in SETTINGS} | {"agreement": str(recognizer.agreement)}
        versions = {name: version(name) for name in PACKAGES}
        say({"event": "ready", "settings": settings, "versions": versions})
        for line in sys.stdin:
            pcm = np.fromfile(Path(json.loads(line)["samples"]), np.int16)
            _play(pcm.astype(np.float32) / 32768.0, recognizer, config, say)


def _play(samples: Any, recognizer: Recognizer, config: LiveConfig, say: Any) -> None:
    """One clip, and all that was shown of it."""
    prepare(recognizer)
    clock = RealClock()
    play = Playback(samples, clock)
    watched = WatchedRecognizer(recognizer, play.tick)
    stage = SpeechStage(play.reader, VoiceGate(), watched, config.speech, exact=False, health=Health())
    done = play_through(stage, play)
    stage.close()
    changes = Changes(say)
    for shown in displays(done.shown):
        changes.show(shown.committed, shown.partial, shown.at_s)
    say({"event": "end", "at_s": clock.now_ns() / 1e9, "behind_s": 0.0, "finished": True})


if __name__ == "__main__":
    main(sys.argv[1:])
