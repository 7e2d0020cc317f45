"""The child of `IsolatedRecognizer`: `python -m emi_models.speech.child` serves PocketSphinx on its pipes."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from emi_models.errors import EmiError
from emi_models.speech.frames import ACCEPT, BEGIN, ERROR, FINISH, HYPOTHESIS, WORDS, read_frame, write_frame
from emi_models.speech.recognizer import Hypothesis
from emi_models.speech.sphinx import SphinxRecognizer

if TYPE_CHECKING:
    from emi_models.speech.recognizer import Recognizer

__all__ = ["serve"]


def serve(recognizer: Recognizer, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until their stream ends."""
    while (frame := read_frame(requests)) is not None:
        letter, payload = frame
        heard = Hypothesis()
        if letter == BEGIN:
            recognizer.begin(payload.decode())
        elif letter == ACCEPT:
            recognizer.accept(np.frombuffer(payload, np.float32))
        elif letter == HYPOTHESIS:
            heard = recognizer.hypothesis()
        elif letter == FINISH:
            heard = recognizer.finish()
        write_frame(answers, WORDS, json.dumps(asdict(heard)["segments"]).encode())


def main() -> None:
    """Serve until standard input ends; whoever started this process ends it so, and alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = sys.stdout.buffer
    try:
        recognizer = SphinxRecognizer()
    except EmiError as error:
        write_frame(answers, ERROR, str(error).encode())
        return
    write_frame(answers, WORDS, json.dumps(recognizer.name).encode())
    serve(recognizer, sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
